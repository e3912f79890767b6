"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from broker.errors import StartupError

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str, now: datetime) -> datetime:
    """Reads a time, or how long ago it was.

    Raises:
        StartupError: it is neither.
    """
    if match := re.fullmatch(r"([0-9]{1,4})([mhdw])", text):
        return now - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise StartupError(f"{option} takes 30d, 12h, 45m, 2w or a date as 2026-11-01") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
