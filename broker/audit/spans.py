"""Spans by attribute, name and time, newest first.

Spans have no index by attribute, because each would slow what stores them; they lie in the order of time. So
time is walked back in windows that grow while they are quickly through, and a call ends when its time is up.
A step that began more than a minute after its request is not found by its time; GetTrace shows it.

Invariants:
- a call does bounded work: a page may be short, even empty, and have a next one;
- a token has one length and is good for its question alone (E5).
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from broker.database import connection, queries
from broker.errors import RequestMalformedError
from broker.traces import Span, span_of

Q = queries("audit_traces")

CALL_SECONDS = 2.0
"""Seconds after which no further window is begun."""

FIRST_WINDOW = 10**9
MOST_WINDOW = 4096 * FIRST_WINDOW
"""Nanoseconds of time that one statement looks over."""

QUICK, SLOW = 0.1, 1.0
"""Seconds; the window behind one that took less than the first is four times as large, less than the second
twice, else half: each reads the minute before it as well, so growing only while quick would get nowhere."""

_TOKEN = struct.Struct(">16sq8s")
TOKEN_LENGTH = 2 * _TOKEN.size
LAST_SPAN = b"\xff" * 8


@dataclass(frozen=True, slots=True)
class SpanQuery:
    """Which spans are meant."""

    since: datetime
    until: datetime
    attributes: Mapping[str, str]
    name: str = ""

    @property
    def digest(self) -> bytes:
        """Gives what binds a page token to this question."""
        told = (self.since, self.until, sorted(self.attributes.items()), self.name)
        return hashlib.sha256(repr(told).encode()).digest()[:16]

    def described(self) -> dict[str, object]:
        """Gives the question for its record."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "attributes": dict(self.attributes),
            "name": self.name,
        }


async def search(
    pool: asyncpg.Pool,
    wanted: SpanQuery,
    *,
    size: int,
    token: str = "",
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[list[Span], str]:
    """Gives a page of spans, and the token of the next; "" on the last.

    Args:
        pool: as broker_auditor.
        wanted: which.
        size: at most how many.
        token: of the page before.
        monotonic: a clock in seconds.

    Raises:
        RequestMalformedError: the token is none, or another question's.
    """
    since, until = _nanoseconds(wanted.since), _nanoseconds(wanted.until)
    at, behind = (until - 1, LAST_SPAN) if not token else _read(token, wanted)
    found: list[Span] = []
    began, window = monotonic(), FIRST_WINDOW
    async with connection(pool) as conn:
        while at >= since and len(found) < size and monotonic() - began < CALL_SECONDS:
            low, looked = max(at - window + 1, since), monotonic()
            rows = await conn.fetch(
                Q.search_spans, low, at, behind, json.dumps(wanted.attributes), size - len(found),
                wanted.name or None,
            )  # fmt: skip
            found += [span_of(row) for row in rows]
            if len(found) == size:
                at, behind = found[-1].start_ns, bytes.fromhex(found[-1].span_id)
            else:
                at, behind = low - 1, LAST_SPAN
            window = _next(window, monotonic() - looked)
    return found, _TOKEN.pack(wanted.digest, at, behind).hex() if at >= since else ""


def _next(window: int, took: float) -> int:
    if took > SLOW:
        return max(window // 2, FIRST_WINDOW)
    return min(window * (4 if took < QUICK else 2), MOST_WINDOW)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _read(token: str, wanted: SpanQuery) -> tuple[int, bytes]:
    try:
        digest, at, behind = _TOKEN.unpack(bytes.fromhex(token) if len(token) == TOKEN_LENGTH else b"")
    except (ValueError, struct.error):
        raise RequestMalformedError(field="page_token", cause="page token") from None
    if digest != wanted.digest:
        raise RequestMalformedError(field="page_token", cause="page token")
    return at, behind
