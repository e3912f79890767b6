"""Events of the ledger by filter and page, in the order of the transparency log.

    (1) pending    events that are no leaves yet: those of about the last second, by id
    (2) leaves     by their index, which is dense and never changes

Newest first (1) comes before (2), oldest first after it. Both hang on the tree's size when the first page was
asked for, which the page token carries: so no event comes twice and none is left out, whatever is recorded
while somebody turns the pages.

Invariants:
- an event is shown only after its own columns were compared with the filter; what an index said only
  tells where to look;
- a call does bounded work: a page may be short, even empty, and have a next one;
- a token has one length and is good for its filter and order alone (E5).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import Connection, connection, queries
from broker.errors import EventNotFoundError, RequestMalformedError

Q = queries("events")

WINDOW = 4096
"""Leaves whose events are looked at in one statement: some ten milliseconds."""

MOST_WINDOWS = 5
"""Windows of one call."""

BACK = 5_000
"""Milliseconds before the last leaf's event from which on events are looked for that are no leaves: what was
late by more is a leaf within seconds, too."""

LAST_ID = UUID(int=(1 << 128) - 1)

_TOKEN = struct.Struct(">16sBQ16s")
TOKEN_LENGTH = 2 * _TOKEN.size

_PENDING, _LEAVES = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are meant: those for which everything holds that is not None."""

    agent: str | None = None  # `issuer|subject`
    tool: str | None = None
    customer: str | None = None  # pseudonyms, both
    ticket: str | None = None
    grant_id: UUID | None = None
    kind: str | None = None
    outcome: str | None = None
    reason: str | None = None
    policy_version: int | None = None
    since: datetime | None = None  # record time
    until: datetime | None = None  # exclusive

    @property
    def values(self) -> tuple[Any, ...]:
        """Gives all values in the order of the statements' parameters."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def is_open(self) -> bool:
        """Tells whether every event is meant."""
        return all(value is None for value in self.values)

    def described(self) -> dict[str, str]:
        """Gives what is set, for the record of the question."""
        pairs = zip((field.name for field in fields(self)), self.values, strict=True)
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in pairs
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event with its place in the log; None: it has none yet."""

    event_id: UUID
    leaf_index: int | None
    record_time: datetime
    kind: str
    outcome: str
    reason: str
    agent: str
    tool: str
    customer: str
    ticket: str
    grant_id: UUID | None
    trace_id: str
    policy_version: int | None
    leaf: bytes


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, and the token of the next ones; "" where there are none."""

    events: tuple[StoredEvent, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins."""

    phase: int
    size: int  # of the tree at the first page
    at: int  # an id, or an index; exclusive but for an index when the oldest come first


class EventReader:
    """Reads events, as broker_auditor."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes the auditors' pool."""
        self._pool = pool

    async def get(self, event_id: UUID) -> StoredEvent:
        """Gives one event.

        Raises:
            EventNotFoundError: the ledger has none of that id.
        """
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.event, event_id)
        if not rows:
            raise EventNotFoundError
        return StoredEvent(*rows[0])

    async def page(
        self, wanted: EventFilter, *, size: int, token: str = "", oldest_first: bool = False
    ) -> EventPage:
        """Gives a page of events.

        Args:
            wanted: which.
            size: at most how many.
            token: of the page before.
            oldest_first: the order; newest first otherwise.

        Raises:
            RequestMalformedError: the token is none, or of another filter or order.
        """
        digest = _digest(wanted, oldest_first=oldest_first)
        found: list[StoredEvent] = []
        async with connection(self._pool) as conn:
            walk = _Walk(conn, wanted, oldest_first=oldest_first)
            place: _Place | None = _read(token, digest) if token else await walk.first()
            for _ in range(MOST_WINDOWS):
                if place is None or len(found) >= size:
                    break
                events, place = await walk.go(place, size - len(found))
                found += events
        return EventPage(tuple(found), _write(place, digest) if place else "")


class _Walk:
    """Goes through events in one order, over one connection."""

    def __init__(self, conn: Connection, wanted: EventFilter, *, oldest_first: bool) -> None:
        self._conn = conn
        self._wanted = wanted
        self._oldest_first = oldest_first

    async def first(self) -> _Place:
        size = int(await self._conn.fetchval(Q.head))
        return _Place(_LEAVES, size, 0) if self._oldest_first else _Place(_PENDING, size, LAST_ID.int)

    async def go(self, place: _Place, most: int) -> tuple[Sequence[StoredEvent], _Place | None]:
        """Gives the next events, at most so many, and where the next ones are."""
        return await (self._pending if place.phase == _PENDING else self._leaves)(place, most)

    async def _pending(self, place: _Place, most: int) -> tuple[Sequence[StoredEvent], _Place | None]:
        floor = await self._pending_floor(place.size)
        at = UUID(int=place.at)
        low, high = (max(at, floor), LAST_ID) if self._oldest_first else (floor, at)
        rows = await self._conn.fetch(
            Q.pending, low, high, place.size, WINDOW, self._oldest_first, *self._wanted.values
        )
        meant = [row for row in rows if row["meant"]]
        if len(meant) > most:
            meant = meant[:most]
            following: _Place | None = _Place(_PENDING, place.size, meant[-1]["id"].int)
        elif len(rows) == WINDOW:
            following = _Place(_PENDING, place.size, rows[-1]["id"].int)
        else:
            following = None if self._oldest_first else _Place(_LEAVES, place.size, place.size)
        return [StoredEvent(*tuple(row)[:-1]) for row in meant], following

    async def _pending_floor(self, size: int) -> UUID:
        last = await self._conn.fetchval(Q.last_leaf, size)
        return UUID(int=0) if last is None else UUID(int=max((last.int >> 80) - BACK, 0) << 80)

    async def _leaves(self, place: _Place, most: int) -> tuple[Sequence[StoredEvent], _Place | None]:
        if self._oldest_first:
            low, high = place.at, min(place.at + WINDOW, place.size)
        else:
            low, high = max(place.at - WINDOW, 0), place.at
        indexes = await self._candidates(low, high)
        if not self._oldest_first:
            indexes.reverse()
        if len(indexes) > most:
            indexes = indexes[:most]
            at = indexes[-1] + 1 if self._oldest_first else indexes[-1]
        else:
            at = high if self._oldest_first else low
        rows = await self._conn.fetch(Q.leaves, indexes, *self._wanted.values)
        events = [StoredEvent(*row) for row in rows]
        if not self._oldest_first:
            events.reverse()
        return events, self._behind(place.size, at)

    async def _candidates(self, low: int, high: int) -> list[int]:
        if self._wanted.is_open:
            return list(range(low, high))
        rows = await self._conn.fetch(Q.matching, low, high, *self._wanted.values)
        return [row["seq"] for row in rows]

    def _behind(self, size: int, at: int) -> _Place | None:
        if self._oldest_first:
            return _Place(_LEAVES, size, at) if at < size else _Place(_PENDING, size, 0)
        return _Place(_LEAVES, size, at) if at > 0 else None


def _digest(wanted: EventFilter, *, oldest_first: bool) -> bytes:
    return hashlib.sha256(repr((wanted.values, oldest_first)).encode()).digest()[:16]


def _write(place: _Place, digest: bytes) -> str:
    return _TOKEN.pack(digest, place.phase, place.size, place.at.to_bytes(16)).hex()


def _read(token: str, digest: bytes) -> _Place:
    """Reads a token; it guards against mix-ups alone: forging one shows nothing that asking would not."""
    try:
        data = bytes.fromhex(token) if len(token) == TOKEN_LENGTH else b""
        told, phase, size, at = _TOKEN.unpack(data)
    except (ValueError, struct.error):
        raise RequestMalformedError(field="page_token", cause="page token") from None
    place = _Place(phase, size, int.from_bytes(at))
    if told != digest or phase > _LEAVES or size >= 1 << 63 or (phase == _LEAVES and place.at > size):
        raise RequestMalformedError(field="page_token", cause="page token")
    return place
