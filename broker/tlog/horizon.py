"""Up to which id every event is known: nothing that commits later can have a smaller one.

An event's id is a time, within `SKEW` of the database's clock when its append began (`broker.check_clock`);
a statement that appends ends within `STATEMENT`. Each mark is a time and a transaction's number; greater
numbers are given out later. Once every transaction up to that number has ended, whatever commits from then
on was appended after that time, so its id is not below it by more than the two.

Invariants:
- pure: it is told what the database said and answers with an id;
- a transaction that stays open holds the horizon back, so its events are still found when it commits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from uuid import UUID

from broker.model import id_floor, id_time

SKEW = 60.0
"""Seconds that an event's id may be off the database's clock; 050_ledger.sql refuses more."""

STATEMENT = 60.0
"""Seconds between the look at the clock and the write within one append: it may wait for a budget's
lock, for 5 seconds, and its process may be held up."""

SWEEP = 12.0
"""How many times faster than time the sweep is: it is through the two minutes in ten seconds, and costs as
much as reading twelve times what is appended."""

LONGEST_SWEEP = 60.0
"""Seconds that a sweep takes at most: a transaction that has been open for days makes longer slices."""

LEAST_SLICE = 1.0

MOST_MARKS = 1000


class Horizon:
    """Remembers marks, and which of them is safe by now."""

    def __init__(self) -> None:
        """Begins without one."""
        self._marks: deque[tuple[float, int]] = deque(maxlen=MOST_MARKS)

    def mark(self, now: float, xid: int) -> None:
        """Remembers a mark; it was taken before what the next look sees."""
        self._marks.append((now, xid))

    def low_id(self, xmin: int) -> UUID | None:
        """Gives the id below which a look sees everything that ever will be; None where none is known.

        Args:
            xmin: of the look's snapshot: transactions below have ended.
        """
        safe = None
        while self._marks and self._marks[0][1] < xmin:
            safe = self._marks.popleft()
        if safe is None:
            return None
        self._marks.appendleft(safe)  # safe at the next look too, whatever is open then
        return id_floor(safe[0] - SKEW - STATEMENT)


@dataclass(slots=True)
class Sweep:
    """A look over everything that an open transaction could still write into, a slice at a time."""

    at: UUID  # looked at below
    looked_at: float  # when, on the monotonic clock
    span: float  # seconds of ids to look over
    xmin: int  # of a snapshot before the first slice: transactions below had ended

    def slice_end(self, now: float, reach: UUID) -> UUID:
        """Gives the end of the next slice: as much as is due since the last, and never beyond `reach`."""
        at = id_time(self.at)
        passed = now - self.looked_at
        due = max(LEAST_SLICE, SWEEP * passed, self.span * passed / LONGEST_SWEEP)
        return min(reach, id_floor(at + due))
