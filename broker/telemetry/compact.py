"""The trace of a read or a grant, as small as it can be: what is not needed for the answer is done later.

Invariants:
- no SDK object, no formatting, no parsing on the request's path: ids, ticks, one append;
- what waits in the queue has a bounded size, whatever the caller sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

from broker.telemetry.names import CompactMethod, PlacedStep

Nanoseconds = Callable[[], int]

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
TRACEPARENT_LENGTH = 55
"""Length of a traceparent of version 00, the only one there is; a longer one is not even kept."""


def parse_traceparent(text: str | None) -> tuple[str, str] | None:
    """Gives trace id and span id of a valid W3C traceparent; anything else is as if none was sent."""
    if text is None or len(text) != TRACEPARENT_LENGTH:
        return None
    found = TRACEPARENT.fullmatch(text)
    if found is None or found[1] == "0" * 32 or found[2] == "0" * 16:
        return None
    return found[1], found[2]


def keep_traceparent(text: str | None) -> str | None:
    """Gives the text if it may be a traceparent; it is kept until the drain, so its size is checked now."""
    return text if text is not None and len(text) == TRACEPARENT_LENGTH else None


class OpenMark:
    """A step under way."""

    __slots__ = ("_at", "_start", "_ticks", "_trace")

    def __init__(self, trace: CompactTrace, index: int, ticks: Nanoseconds) -> None:
        """Takes where its ticks belong."""
        self._trace = trace
        self._at = 2 * index
        self._ticks = ticks
        self._start = 0

    def __enter__(self) -> None:
        """Begins the step."""
        self._start = self._trace.marks[self._at] or self._ticks()

    def __exit__(self, *_: object) -> None:
        """Ends the step, however its block ends."""
        self._trace.marks[self._at] = self._start
        self._trace.marks[self._at + 1] = self._ticks()


class CompactTrace:
    """The trace of one request: ids, ticks of its steps, outcome; appended to the queue once, as it is.

    Ticks are those of `time.perf_counter_ns`. What is public here is what the drain reads; callers use
    `step`, `mark`, `lap`, `finish`, `trace_id` and `span_id`.
    """

    __slots__ = (
        "_put",
        "_ticks",
        "code",
        "end",
        "event_id",
        "grant_id",
        "ids",
        "last",
        "marks",
        "method",
        "policy_version",
        "reason",
        "start",
        "start_ns",
        "traceparent",
    )

    def __init__(
        self,
        put: Callable[[CompactTrace], None],
        method: CompactMethod,
        ids: bytes,
        start_ns: int,
        ticks: Nanoseconds,
        traceparent: str | None,
    ) -> None:
        """Starts now.

        Args:
            put: takes the finished trace.
            method: what is called.
            ids: 16 random bytes of trace id and 8 of span id.
            start_ns: wall clock, nanoseconds since 1970.
            ticks: clock of the marks.
            traceparent: as the caller sent it; looked at off the request's path.
        """
        self._put = put
        self._ticks = ticks
        self.method = method
        self.ids = ids
        self.start_ns = start_ns
        self.start = self.last = ticks()
        self.end = 0
        self.marks = [0] * (2 * method.places)  # start and end of each step by index; 0: it was not reached
        self.traceparent = traceparent
        self.code = "UNKNOWN"
        self.reason = ""
        self.policy_version = ""
        self.grant_id: UUID | None = None
        self.event_id: UUID | None = None

    @property
    def trace_id(self) -> str:
        """Gives the trace id, 32 lower-case hex digits, as the ledger stores it."""
        return self.ids[:16].hex()

    @property
    def span_id(self) -> str:
        """Gives the id of the RPC's span; its last digit is 0, where the steps carry their number."""
        return self.ids[16:].hex()[:15] + "0"

    def step(self, step: PlacedStep) -> OpenMark:
        """Notes a step that lasts until the `with` block ends; taken again, it began the first time."""
        return OpenMark(self, step.index, self._ticks)

    def mark(self, step: PlacedStep, start: int, end: int) -> None:
        """Notes when a step began and ended, in ticks; for steps that ran side by side or in a batch."""
        at = 2 * step.index
        self.marks[at] = start
        self.marks[at + 1] = end

    def lap(self, step: PlacedStep) -> None:
        """Notes a step that began where the last lap ended and ends now."""
        now = self._ticks()
        at = 2 * step.index
        self.marks[at] = self.last
        self.marks[at + 1] = self.last = now

    def finish(
        self,
        *,
        code: str,
        reason: str = "",
        grant_id: UUID | None = None,
        event_id: UUID | None = None,
        policy_version: str = "",
    ) -> None:
        """Ends the trace and queues it; a second call does nothing."""
        if self.end:
            return
        self.end = self._ticks()
        self.code = code
        self.reason = reason
        self.grant_id = grant_id
        self.event_id = event_id
        self.policy_version = policy_version
        self._put(self)
