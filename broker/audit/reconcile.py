"""Ledger and spans compared: what either has and the other lacks, part by part, newest first.

Invariants:
- parts leave no time out and overlap nowhere; each is as long as its work stays short;
- an event's time is its id's, a span's its begin: what begins in one part and is recorded in the next is
  found all the same, because each side looks the other up by id.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from broker.database import connection, queries

Q = queries("audit_traces")

FIRST_PART = timedelta(minutes=1)
MOST_PART = timedelta(days=1)

AHEAD = timedelta(minutes=2)
"""Nothing on record is of a later time: an event's id is at most a minute ahead of the clock."""

QUICK, SLOW = 0.2, 0.8
"""Seconds; the part behind one that took less is twice as long, behind one that took more half as long."""

NAMED = 20
"""Events and traces of a part that are named."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the time holds."""

    since: datetime
    until: datetime
    events: int
    events_without_spans: int
    traces: int
    traces_without_events: int
    missing_spans: tuple[UUID, ...]  # events
    missing_events: tuple[str, ...]  # trace ids


async def reconcile(
    pool: asyncpg.Pool,
    since: datetime,
    until: datetime,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Part]:
    """Compares part by part; no connection is held between two parts.

    Args:
        pool: as broker_auditor.
        since: from when.
        until: until when; a time to come is now, or there would be a part for each of its days.
        clock: POSIX seconds.
        monotonic: a clock in seconds.
    """
    until = min(until, datetime.fromtimestamp(clock(), UTC) + AHEAD)
    length = FIRST_PART
    while since < until:
        begin, began = max(since, until - length), monotonic()
        async with connection(pool) as conn:
            [events] = await conn.fetch(Q.without_spans, begin, until, NAMED)
            bounds = (int(moment.timestamp() * 10**6) * 1000 for moment in (begin, until))
            [traces] = await conn.fetch(Q.without_events, *bounds, NAMED)
        yield Part(
            begin, until, events["events"], events["missing"], traces["traces"], traces["missing"],
            tuple(events["some"] or ()), tuple(traces["some"] or ()),
        )  # fmt: skip
        took, until = monotonic() - began, begin
        if took < QUICK:
            length = min(length * 2, MOST_PART)
        elif took > SLOW:
            length = max(length / 2, FIRST_PART)
