"""What a shadow policy is shown of live decisions: a bounded count, taken off the request's path.

Invariants:
- `saw` does nothing while no shadow is set, and cannot fail: it counts objects by identity;
- memory is bounded; what finds no place is counted as left out;
- nothing in here decides anything, and nothing of it flows back into a request.
"""

from __future__ import annotations

from broker.model import Decided

MOST_DECISIONS = 4096
"""Most decisions held between two drains; at 3 seconds that is 1,300 new decisions a second and worker."""


class Tally:
    """Counts how often each decision was used since the last drain. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Counts nothing until `on` is set."""
        self.on = False
        self._counts: dict[Decided, int] = {}
        self._left_out = 0

    def saw(self, decided: Decided) -> None:
        """Counts one use of a decision."""
        if not self.on:
            return
        counts = self._counts
        if decided in counts:
            counts[decided] += 1
        elif len(counts) < MOST_DECISIONS:
            counts[decided] = 1
        else:
            self._left_out += 1

    def drain(self) -> tuple[dict[Decided, int], int]:
        """Takes out the counts, and how many uses found no place."""
        taken = self._counts, self._left_out
        self._counts, self._left_out = {}, 0
        return taken
