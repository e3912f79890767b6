"""Events of the ledger by filter and page, in the order of the transparency log.

    (1) pending    events that are no leaves yet: those of about the last second, by id
    (2) leaves     by their index, which is dense and never changes

Newest first (1) comes before (2), oldest first after it. Both hang on the tree's size when the first page was
asked for, which the page token carries: so no event comes twice and none is left out, whatever is recorded
while somebody turns the pages. How they are found is in event_walk.py.

Invariants:
- a call does bounded work: a page may be short, even empty, and have a next one;
- a token has one length and is good for its filter and order alone (E5).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.audit.event_filter import EventFilter, StoredEvent, fitting
from broker.audit.event_walk import LEAVES, PENDING, Place, Walk
from broker.database import connection, queries
from broker.errors import EventNotFoundError, RequestMalformedError

Q = queries("events")

MOST_STEPS = 12
"""Steps of one call: each looks at some thousand events, or at the index over some hundred thousand."""

_TOKEN = struct.Struct(">16sBQ16s")
TOKEN_LENGTH = 2 * _TOKEN.size


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, and the token of the next ones; "" where there are none."""

    events: tuple[StoredEvent, ...]
    next_token: str


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

    async def names(self, agent: str) -> bool:
        """Tells whether any event names an agent, as `issuer|subject`."""
        page = EventPage((), "")
        while not page.events:
            page = await self.page(EventFilter(agent=agent), size=1, token=page.next_token)
            if not page.next_token:
                break
        return bool(page.events)

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
            walk = Walk(conn, wanted, oldest_first=oldest_first)
            first = await walk.begin()
            place: Place | None = _read(token, digest) if token else first
            for _ in range(MOST_STEPS):
                if place is None or len(found) >= size:
                    break
                events, following = await walk.go(place, size - len(found))
                fits = fitting([*found, *events]) - len(found)
                if fits < len(events):
                    place = _behind(events[fits - 1], place, oldest_first=oldest_first) if fits else place
                    found += events[:fits]
                    break
                found += events
                place = following
        return EventPage(tuple(found), _write(place, digest) if place else "")


def _behind(event: StoredEvent, place: Place, *, oldest_first: bool) -> Place:
    """Gives where the next event is when a page ends with this one."""
    if event.leaf_index is None:
        return Place(PENDING, place.size, event.event_id.int)
    return Place(LEAVES, place.size, event.leaf_index + 1 if oldest_first else event.leaf_index)


def _digest(wanted: EventFilter, *, oldest_first: bool) -> bytes:
    return hashlib.sha256(repr((wanted.values, oldest_first)).encode()).digest()[:16]


def _write(place: Place, digest: bytes) -> str:
    return _TOKEN.pack(digest, place.phase, place.size, place.at.to_bytes(16)).hex()


def _read(token: str, digest: bytes) -> Place:
    """Reads a token; it guards against mix-ups alone: forging one shows nothing that asking would not."""
    try:
        data = bytes.fromhex(token) if len(token) == TOKEN_LENGTH else b""
        told, phase, size, at = _TOKEN.unpack(data)
    except (ValueError, struct.error):
        raise RequestMalformedError(field="page_token", cause="page token") from None
    place = Place(phase, size, int.from_bytes(at))
    if told != digest or phase > LEAVES or size >= 1 << 63 or (phase == LEAVES and place.at > size):
        raise RequestMalformedError(field="page_token", cause="page token")
    return place
