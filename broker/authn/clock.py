"""The clock that tokens and certificates are held against: it follows the wall clock, never back."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """POSIX seconds that never run slower than the machine really aged since the start.

    A wall clock set back an hour must not bring an expired token back to life (W2); one set
    forward makes tokens end early, which is safe (W3), and set right again it is right again.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        """Anchors the clock.

        Args:
            wall: POSIX seconds.
            steady: seconds that only count up.
        """
        self._wall = wall
        self._steady = steady
        self._start = wall() - steady()

    def __call__(self) -> float:
        """Gives POSIX seconds."""
        return max(self._wall(), self._start + self._steady())
