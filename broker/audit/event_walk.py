"""Goes through events in one order: pending ones by id, leaves by the index over them or one by one.

    (1) pending      no leaves yet: looked at one by one, about a second's worth
    (2) the rest     leaves behind the last full chunk: looked at one by one, fewer than 4,096 in normal times
    (3) chunks       where all wanted values are, by the index (100_event_index.sql)

In (3) the rarest value leads: the chunks it is in, then the others' places in these. What two frequent values
have in common is found from a kilobyte a chunk, so an empty answer costs no look at events at all.

Invariants:
- an event is shown only after its own columns were compared with the filter; the index tells where to look;
- each step does bounded work, and says where the next one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from broker.audit.event_filter import EventFilter, StoredEvent
from broker.audit.postings import BITMAP, CHUNK, common
from broker.database import Connection, queries
from broker.model import LAST_ID, id_floor, id_time

Q = queries("events")

PENDING, LEAVES = 0, 1

EVERYWHERE = b"\xff" * BITMAP

SLACK = timedelta(minutes=2)
"""More than an event's id may be off its record time: an append refuses a minute."""

PIECE = 512
"""Events that are looked at in one statement where a few of them will do."""

FIRST_SLICE = 16
MOST_SLICE = 1024
"""Chunks of one step, four times as many as in the step before: whoever finds something soon reads little."""

BACK = 5.0
"""Seconds before the last leaf's event from which on events are looked for that are no leaves: what was
late by more is a leaf within seconds, too."""

EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins."""

    phase: int
    size: int  # of the tree at the first page
    at: int  # an id, or an index; exclusive but for an index when the oldest come first


class Walk:
    """Goes through events in one order, over one connection."""

    def __init__(self, conn: Connection, wanted: EventFilter, *, oldest_first: bool) -> None:
        """Takes the connection, as broker_auditor, which events are meant, and the order."""
        self._conn = conn
        self._wanted = wanted
        self._oldest_first = oldest_first
        self._slice = FIRST_SLICE
        self._chunks = 0  # that are indexed
        self._size = 0
        self._low, self._high = 0, 0  # chunks that may hold what is meant, by its time
        self._whole = range(0)  # chunks that lie in that time whole
        self._words: list[tuple[int, str]] | None = None  # rarest first
        self._ids = _ids_between(wanted.since, wanted.until)

    async def begin(self) -> Place:
        """Looks how far the log and the index are; gives the first place."""
        (row,) = await self._conn.fetch(Q.head)
        self._size, self._chunks = row["size"], row["chunks"]
        await self._bound_by_time()
        return Place(LEAVES, self._size, 0) if self._oldest_first else Place(PENDING, self._size, LAST_ID.int)

    async def go(self, place: Place, most: int) -> tuple[Sequence[StoredEvent], Place | None]:
        """Gives the next events, at most so many, and where the next ones are; None behind the last."""
        if place.phase == PENDING:
            return await self._pending(place, most)
        indexed = min(self._chunks, place.size // CHUNK) * CHUNK
        if place.at < indexed or (place.at == indexed and not self._oldest_first):
            indexes, at = await self._in_chunks(place.at, indexed, most)
        elif self._oldest_first:
            at = min(place.at + CHUNK, place.size)
            indexes = await self._matching(range(place.at, at))
        else:
            at = max(place.at - CHUNK, indexed)
            indexes = await self._matching(range(at, place.at))
        return await self._fetched(place.size, indexes, at, most)

    # --- (1) ---------------------------------------------------------------------------------------
    async def _pending(self, place: Place, most: int) -> tuple[Sequence[StoredEvent], Place | None]:
        last = await self._conn.fetchval(Q.last_leaf, place.size)
        floor = UUID(int=0) if last is None else id_floor(id_time(last) - BACK)
        at = UUID(int=place.at)
        low, high = (max(at, floor), LAST_ID) if self._oldest_first else (floor, at)
        rows = await self._conn.fetch(
            Q.pending, low, high, place.size, CHUNK, self._oldest_first, *self._wanted.values
        )
        meant = [row for row in rows if row["meant"]]
        if len(meant) > most:
            meant = meant[:most]
            following: Place | None = Place(PENDING, place.size, meant[-1]["id"].int)
        elif len(rows) == CHUNK:
            following = Place(PENDING, place.size, rows[-1]["id"].int)
        else:
            following = None if self._oldest_first else Place(LEAVES, place.size, place.size)
        return [StoredEvent(*tuple(row)[:-1]) for row in meant], following

    # --- (2) ---------------------------------------------------------------------------------------
    async def _matching(self, indexes: Sequence[int]) -> list[int]:
        if self._wanted.is_open:
            return list(indexes)
        rows = await self._conn.fetch(Q.matching, list(indexes), *self._wanted.values, *self._ids)
        return [row["seq"] for row in rows]

    async def _fetched(
        self, size: int, indexes: list[int], at: int, most: int
    ) -> tuple[Sequence[StoredEvent], Place | None]:
        """Fetches the events of ascending indexes, in the order asked for; gives the place behind, too."""
        if not self._oldest_first:
            indexes.reverse()
        if len(indexes) > most:
            indexes = indexes[:most]
            at = indexes[-1] + 1 if self._oldest_first else indexes[-1]
        rows = await self._conn.fetch(Q.leaves, indexes, *self._wanted.values) if indexes else []
        events = [StoredEvent(*row) for row in rows]
        if self._oldest_first:
            return events, Place(LEAVES, size, at) if at < size else Place(PENDING, size, 0)
        return events[::-1], Place(LEAVES, size, at) if at > 0 else None

    # --- (3) ---------------------------------------------------------------------------------------
    async def _in_chunks(self, at: int, end: int, most: int) -> tuple[list[int], int]:
        """Gives the next indexes that may be meant, ascending, and how far that was."""
        low, high = self._low, min(self._high, end // CHUNK)
        low, high = (max(low, at // CHUNK), high) if self._oldest_first else (low, min(high, -(-at // CHUNK)))
        if low >= high:
            return [], end if self._oldest_first else 0
        if self._wanted.words:
            postings, reached = await self._by_index(low, high)
        else:
            chunk = low if self._oldest_first else high - 1
            postings = {chunk: [EVERYWHERE]}
            reached = (chunk + 1) * CHUNK if self._oldest_first else chunk * CHUNK
        indexes: list[int] = []
        for chunk in sorted(postings, reverse=not self._oldest_first):
            places = (chunk * CHUNK + place for place in common(postings[chunk]))
            within = [i for i in places if (i >= at) == self._oldest_first]
            indexes += within if chunk in self._whole else await self._in_time(within, most)
            if len(indexes) > most:
                break  # `_fetched` leaves off where these end
        return sorted(indexes), reached

    async def _in_time(self, indexes: list[int], most: int) -> list[int]:
        """Gives those of a chunk that are meant, past `most` or all: it holds a bound of the time."""
        kept: list[int] = []
        pieces = [indexes[at : at + PIECE] for at in range(0, len(indexes), PIECE)]
        for piece in pieces if self._oldest_first else reversed(pieces):
            kept += await self._matching(piece)
            if len(kept) > most:
                break
        return kept

    async def _by_index(self, low: int, high: int) -> tuple[dict[int, list[bytes]], int]:
        """Gives the places of all words in the next chunks that have them all, and how far that was."""
        first, *others = await self._by_rarity(low, high)
        statement = Q.postings_up if self._oldest_first else Q.postings_down
        rows = await self._conn.fetch(statement, *first, low, high, self._slice)
        postings = {row["chunk"]: [row["places"]] for row in rows}
        exhausted = len(rows) < self._slice
        self._slice = min(self._slice * 4, MOST_SLICE)
        for word in others:
            places = await self._places(word, list(postings))
            postings = {c: [*found, places[c]] for c, found in postings.items() if c in places}
        if exhausted:
            reached = high * CHUNK if self._oldest_first else low * CHUNK
        else:
            last = rows[-1]["chunk"]
            reached = (last + 1) * CHUNK if self._oldest_first else last * CHUNK
        return postings, reached

    async def _places(self, word: tuple[int, str], chunks: Sequence[int]) -> dict[int, bytes]:
        """Gives where a word is in some chunks: one by one, or in one run where they lie close together."""
        if not chunks:
            return {}
        low, high = min(chunks), max(chunks) + 1
        if high - low < 2 * len(chunks):
            rows = await self._conn.fetch(Q.postings_up, *word, low, high, high - low)
        else:
            rows = await self._conn.fetch(Q.postings_in, *word, chunks)
        return {row["chunk"]: row["places"] for row in rows}

    async def _by_rarity(self, low: int, high: int) -> list[tuple[int, str]]:
        if self._words is None:
            words = self._wanted.words
            if len(words) > 1:
                counts = {w: await self._conn.fetchval(Q.rarity, *w, low, high) for w in words}
                words.sort(key=counts.__getitem__)
            self._words = words
        return self._words

    async def _bound_by_time(self) -> None:
        if self._wanted.since is None and self._wanted.until is None:
            self._low, self._high, self._whole = 0, self._chunks, range(self._chunks)
            return
        since, until = self._wanted.since or EVER[0], self._wanted.until or EVER[1]
        (row,) = await self._conn.fetch(Q.chunks_between, since, until)
        if row["low"] is not None:
            self._low, self._high = row["low"], row["high"] + 1
        if row["whole_low"] is not None:
            self._whole = range(row["whole_low"], row["whole_high"] + 1)


def _ids_between(since: datetime | None, until: datetime | None) -> tuple[UUID, UUID]:
    """Gives the ids between which events of a time are, generously."""
    low = UUID(int=0) if since is None else id_floor((since - SLACK).timestamp())
    return low, LAST_ID if until is None else id_floor((until + SLACK).timestamp())
