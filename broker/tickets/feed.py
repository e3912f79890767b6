"""Takes signed ticket events from helpdesks; the only way in which assignments come to be.

Invariants:
- an event counts only with the signature of a key of the feed that it names, and that feed must be
  one that the peer may speak for: neither transport nor helpdesk key alone is enough;
- a batch and a snapshot are applied as a whole or not at all;
- only a heartbeat keeps a feed fresh, and only where no event is missing: silence ends access.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import MINYEAR, UTC, datetime, timedelta
from enum import StrEnum

import asyncpg

from broker import jose
from broker.database import connection, queries, transaction
from broker.errors import EventConflictError, RequestMalformedError, TokenInvalidError
from broker.settings import FeedSettings
from broker.tickets import events
from broker.tickets.events import Event, Heartbeat, SnapshotEnd, TicketEvent
from broker.tickets.words import refuse

SQL = queries("tickets")

MAX_BATCH = 500
"""Most events of one batch: some 100 ms of signatures and of SQL, well inside a call's time."""

MAX_EVENT_BYTES = 64 * 1024
"""Longest event: a ticket with 50 customers and 50 assignments of the longest names fits."""

MAX_SNAPSHOT = 200_000
MAX_SNAPSHOT_BYTES = 128 * 1024 * 1024
"""Most tickets of a snapshot, and the most that they say together: it is held until it is complete.

With one customer and one assignee a ticket is 400 bytes: 200,000 are held in 110 MB, at the most 170 MB are.
"""

HEARTBEAT_TOLERANCE = timedelta(seconds=60)
"""How far a heartbeat's time may be from the database's clock; a kept one is worth no more than that."""


class Outcome(StrEnum):
    """What became of an event."""

    APPLIED = "applied"  # the stored ticket changed
    DUPLICATE = "duplicate"  # had been received before
    SUPERSEDED = "superseded"  # something newer is stored; nothing changed


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch."""

    outcomes: tuple[Outcome, ...]
    contiguous_seq: int


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a feed stands after a heartbeat."""

    resync_needed: bool
    contiguous_seq: int
    stale_time: datetime | None  # None: it has never been fresh


@dataclass(frozen=True, slots=True)
class Resynced:
    """What a snapshot did."""

    tickets: int
    closed: int
    contiguous_seq: int


class TicketFeed:
    """Applies what helpdesks send."""

    def __init__(self, pool: asyncpg.Pool, feeds: Sequence[FeedSettings], clock: Callable[[], float]) -> None:
        """Reads the feeds' keys.

        Args:
            pool: of role broker_feed.
            feeds: the configured helpdesks.
            clock: POSIX seconds; for what is signed in the future. All else goes by the database's.

        Raises:
            StartupError: a key file is no key set.
        """
        self._pool = pool
        self._feeds = {feed.feed_id: (feed, jose.KeyFile(feed.jwks_file)) for feed in feeds}
        self._clock = clock

    def trouble(self) -> str:
        """Looks at the feeds' key files; says what is wrong with the first wrong one, or ""."""
        return next((why for _, keys in self._feeds.values() if (why := keys.trouble())), "")

    async def publish(self, peer_feeds: Collection[str], batch: Sequence[str]) -> Published:
        """Applies events of one feed, all or none, durably once it returns.

        Args:
            peer_feeds: the feeds that the peer may speak for.
            batch: compact JWS.

        Raises:
            TokenInvalidError: an event is not signed by a key of its feed.
            RequestMalformedError: an event is malformed.
            EventConflictError: a version came before with other content, or the ticket is another feed's.
        """
        if not 1 <= len(batch) <= MAX_BATCH:
            raise refuse("events", f"are not 1 to {MAX_BATCH}")
        feed, found = self._read_all(peer_feeds, batch)
        rows = [_row(event, feed, f"events[{n}]") for n, event in enumerate(found)]
        with _conflicts():
            async with connection(self._pool) as conn:
                [row] = await conn.fetch(SQL.apply_events, feed.feed_id, json.dumps(rows))
        return Published(tuple(Outcome(word) for word in row["outcomes"]), row["contiguous_seq"])

    async def heartbeat(self, peer_feeds: Collection[str], token: str) -> Freshness:
        """Takes a heartbeat; extends the feed's freshness where no event is missing.

        An older heartbeat than the last one that counted extends nothing.

        Raises:
            TokenInvalidError: it is not signed by a key of its feed.
            RequestMalformedError: it is malformed, or its time too far from the database's clock.
        """
        feed, found = self._read(peer_feeds, token, "heartbeat")
        if not isinstance(found, Heartbeat):
            raise refuse("heartbeat.type", "is not heartbeat")
        with _conflicts():
            async with connection(self._pool) as conn:
                [row] = await conn.fetch(
                    SQL.heartbeat,
                    feed.feed_id,
                    found.seq,
                    datetime.fromtimestamp(found.time, UTC),
                    timedelta(seconds=feed.max_silence),
                    HEARTBEAT_TOLERANCE,
                )
        stale: datetime = row["stale_time"]
        never = stale.year == MINYEAR  # -infinity
        return Freshness(row["resync_needed"], row["contiguous_seq"], None if never else stale)

    async def resync(self, peer_feeds: Collection[str], parts: AsyncIterable[Sequence[str]]) -> Resynced:
        """Replaces what is known of all open tickets by a snapshot, all or nothing.

        The database is not touched before the snapshot is complete and found good. If we die
        before the commit, everything is as it was, and the helpdesk sends it again.

        Raises:
            TokenInvalidError: an event is not signed by a key of its feed.
            RequestMalformedError: an event is malformed, or the snapshot is incomplete or mixed.
            EventConflictError: a newer snapshot was applied before, or a ticket is another feed's.
        """
        feed, end, tickets = await self._read_snapshot(peer_feeds, parts)
        names = sorted(tickets)  # the order of all writers' locks, see 240_snapshots.sql
        rows = [tickets[name] for name in names]
        with _conflicts():
            async with transaction(self._pool) as conn:
                for start in range(0, len(rows), MAX_BATCH):
                    part = f"[{','.join(rows[start : start + MAX_BATCH])}]"
                    await conn.execute(SQL.apply_snapshot, feed.feed_id, end.seq, part)
                [row] = await conn.fetch(SQL.end_snapshot, feed.feed_id, end.seq, names)
        return Resynced(len(names), row["closed"], row["contiguous_seq"])

    async def _read_snapshot(
        self, peer_feeds: Collection[str], parts: AsyncIterable[Sequence[str]]
    ) -> tuple[FeedSettings, SnapshotEnd, dict[str, str]]:
        """Reads a snapshot to its end; gives the tickets' rows as JSON, by ticket."""
        feed: FeedSettings | None = None
        end: SnapshotEnd | None = None
        seqs: set[int] = set()
        tickets: dict[str, str] = {}
        held = 0
        async for part in parts:
            if not 1 <= len(part) <= MAX_BATCH:
                raise refuse("events", f"are not 1 to {MAX_BATCH}")
            feed_here, found = self._read_all(peer_feeds, part)
            if end is not None or feed_here != (feed or feed_here):
                raise refuse("events", "go on after the snapshot's end, or are of two feeds")
            feed = feed_here
            for n, event in enumerate(found):
                seqs.add(event.seq)
                if isinstance(event, SnapshotEnd) and n == len(found) - 1:
                    end = event
                    continue
                if not isinstance(event, TicketEvent) or not event.complete or event.ticket_id in tickets:
                    raise refuse(f"events[{n}]", "is no ticket, or one that the snapshot has named")
                row = json.dumps(_row(event, feed, f"events[{n}]"))  # ASCII: as many bytes as characters
                tickets[event.ticket_id] = row
                held += len(row)
                if len(tickets) > MAX_SNAPSHOT or held > MAX_SNAPSHOT_BYTES:
                    most = f"{MAX_SNAPSHOT} tickets or {MAX_SNAPSHOT_BYTES} bytes"
                    raise refuse("events", f"are more than {most}")
        # The end's number and the one `seq` of all are what make the signed parts one signed whole.
        if feed is None or end is None or end.tickets != len(tickets) or seqs != {end.seq}:
            raise refuse("events", "are no complete snapshot")
        return feed, end, tickets

    def _read_all(
        self, peer_feeds: Collection[str], batch: Sequence[str]
    ) -> tuple[FeedSettings, list[Event]]:
        read = [self._read(peer_feeds, token, f"events[{n}]") for n, token in enumerate(batch)]
        feed = read[0][0]
        if any(other != feed for other, _ in read):
            raise refuse("events", "are of two feeds")
        return feed, [event for _, event in read]

    def _read(self, peer_feeds: Collection[str], token: str, field: str) -> tuple[FeedSettings, Event]:
        try:
            feed, verified = self._verify(peer_feeds, token)
        except TokenInvalidError as exc:
            raise TokenInvalidError(
                cause=f"{field}: {exc.cause}",
                field=field,
                detail="Invalid ticket event; sign it with a key of the feed that it names.",
            ) from exc
        return feed, events.read_event(verified.claims, now=self._clock(), field=field)

    def _verify(self, peer_feeds: Collection[str], token: str) -> tuple[FeedSettings, jose.Verified]:
        unverified = jose.peek(token, max_bytes=MAX_EVENT_BYTES)
        feed_id = unverified.issuer
        if feed_id not in peer_feeds or feed_id not in self._feeds:
            raise TokenInvalidError(cause="iss is no feed of this peer")
        feed, keys = self._feeds[feed_id]
        return feed, unverified.verify(
            keys=keys.current(), algorithms=feed.algorithms, types=(events.EVENT_TYPE,)
        )


def _row(event: Event, feed: FeedSettings, field: str) -> dict[str, object]:
    """Gives an event as the database takes it; what a piece of work says of presence is worked out here."""
    if not isinstance(event, TicketEvent):
        raise refuse(f"{field}.type", "speaks of no ticket")
    row = event.as_row()
    if event.work is not None:
        seconds = event.work.seconds_of_presence(call=feed.call_presence, reply=feed.reply_presence)
        work = row["work"]
        assert isinstance(work, dict)  # noqa: S101 - as_row makes it
        work["time"] = _timestamp(event.work.time)
        work["present_until"] = None if seconds is None else _timestamp(event.work.time + seconds)
    return row


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@contextlib.contextmanager
def _conflicts() -> Iterator[None]:
    """Turns the refusals of the SQL functions (010_tickets.sql) into ours.

    Raises:
        EventConflictError: BK001, BK002, BK004.
        RequestMalformedError: BK003.
    """
    try:
        yield
    except asyncpg.PostgresError as exc:
        place = f"events[{exc.detail}]" if exc.detail else "events"
        match exc.sqlstate:
            case "BK001":
                raise EventConflictError(cause="version with other content", field=place) from exc
            case "BK002":
                raise EventConflictError(
                    cause="ticket of another feed",
                    field=place,
                    detail="The ticket belongs to another feed; nothing was applied.",
                ) from exc
            case "BK003":
                raise RequestMalformedError(cause="heartbeat's time", field="heartbeat.iat") from exc
            case "BK004":
                raise EventConflictError(
                    cause="older than a snapshot",
                    field=place,
                    detail="A newer snapshot was applied before; nothing was applied.",
                ) from exc
        raise
