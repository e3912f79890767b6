"""Whether what says whom to trust can be read: deny list, authorities, keys; an alert where it cannot.

Each of these sources goes on with its last good content when its file is wrong or gone, so that a slip takes
nobody's access away. But then taking somebody's away does not work either, and somebody has to hear of it.

It is an alert and no matter of readiness: replicas share these files, so one slip would take them all out of
service at once, and what is in force is what was trusted a moment ago.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from broker.telemetry import Metrics

log = logging.getLogger(__name__)

Look = Callable[[], str]
"""Looks at a file or address now; gives what is wrong with it, or ""."""


class TrustWatch:
    """Looks at the sources, shows and logs which of them cannot be read."""

    def __init__(self, metrics: Metrics, sources: Mapping[str, Sequence[Look]]) -> None:
        """Takes the looks of each kind of source, one of `telemetry.TRUST`."""
        self._metrics = metrics
        self._sources = sources
        self._said = dict.fromkeys(sources, "")

    def look(self) -> None:
        """Looks at each; a line in the log where one became wrong, wrong otherwise, or right again."""
        for source, looks in self._sources.items():
            why = next((why for look in looks if (why := look())), "")
            self._metrics.trust_alert[source].set(1 if why else 0)
            if why != self._said[source]:
                self._said[source] = why
                level = logging.ERROR if why else logging.INFO
                log.log(
                    level, "source of trust changed", extra={"file": source, "reason": why or "good again"}
                )
