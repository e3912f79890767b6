"""Keeps denials from becoming a weapon: beyond a rate, one event with a count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds over which denials of one peer and reason are counted."""

MOST_KEYS = 10_000
"""Most peers and reasons counted apart; beyond it they share one counter, so memory stays bounded."""

OVERFLOW = ("", "")


@dataclass(slots=True)
class _Counter:
    start: float
    seen: int = 0
    held: int = 0  # of seen, those that no event tells yet


class DenialRate:
    """Says which denials are recorded one by one, and gives the counts of the others."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """Takes the most single events per peer, reason and minute, and a monotonic clock in seconds."""
        self._per_minute = per_minute
        self._clock = clock
        self._counters: dict[tuple[str, str], _Counter] = {}

    def admit(self, peer: str, reason: str) -> bool:
        """Tells whether this denial is recorded by itself; if not, it is counted."""
        key = (peer, reason)
        if key not in self._counters and len(self._counters) >= MOST_KEYS:
            key = OVERFLOW
        now = self._clock()
        counter = self._counters.setdefault(key, _Counter(now))
        if now - counter.start >= WINDOW:
            counter.start, counter.seen = now, 0
        counter.seen += 1
        if counter.seen <= self._per_minute:
            return True
        counter.held += 1
        return False

    def give_back(self, peer: str, reason: str, count: int) -> None:
        """Takes back a count of `due` that could not be recorded; it is due again after a window."""
        counter = self._counters.setdefault((peer, reason), _Counter(self._clock()))
        counter.held += count

    def due(self, *, everything: bool = False) -> list[tuple[str, str, int]]:
        """Takes out the counts whose window is over: peer, reason, number of denials.

        Args:
            everything: also the windows that still run; at shutdown.
        """
        now = self._clock()
        result = []
        for key, counter in list(self._counters.items()):
            if everything or now - counter.start >= WINDOW:
                del self._counters[key]
                if counter.held:
                    result.append((*key, counter.held))
        return result
