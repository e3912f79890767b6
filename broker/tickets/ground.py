"""What an agent has to do with a ticket, as of now; asked for each grant and each read.

Invariants:
- a ticket that is not this agent's gives the same answer as one that does not exist, by the same
  statement (K1, E1); nothing of it reaches this process;
- presence, freshness and "last assignee" are judged by the database's clock, here nothing is remembered;
- positions of a list have one length and hold only what the agent was shown (E5).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from broker.database import Batch, connection, queries
from broker.errors import BrokerError, DatabaseUnavailableError
from broker.model import Agent, Ground, OpenedBy, Presence, Provenance, Relation, TicketStatus
from broker.tickets import words
from broker.tickets.words import refuse

SQL = queries("tickets")

BATCH = 64
"""Most grounds asked for in one statement."""

BACKLOG = 2048
"""Most that wait; beyond, callers are refused at once rather than after their deadline."""

PAGE_DEFAULT = 50
PAGE_MOST = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSITION = struct.Struct(">q64s")  # microseconds of start_time, ticket id padded with NUL
_TOKEN_LENGTH = 96  # 72 bytes in base64


@dataclass(frozen=True, slots=True)
class Standing:
    """The ground of one agent on one ticket, with what the database's clock says of it.

    In this order: suspended is AGENT_SUSPENDED, whatever the ticket; relation NONE is TICKET_CLOSED for the
    last assignee and else TICKET_DENIED; then a feed that is not fresh is FEED_STALE.
    """

    ground: Ground
    present: bool
    was_last_assignee: bool  # of a ticket that is closed or deleted; who may learn so
    feed_fresh: bool
    suspended: bool = False  # then nothing else is told

    @property
    def presence(self) -> Presence:
        """Gives presence as a rule sees it."""
        return Presence.PRESENT if self.present else Presence.ABSENT


@dataclass(frozen=True, slots=True)
class AssignedTicket:
    """One open ticket of an agent."""

    ticket_id: str
    kind: str
    relation: Relation
    assign_time: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Some open tickets of an agent, newest relation first."""

    tickets: tuple[AssignedTicket, ...]
    next_page_token: str  # "" on the last page


@dataclass(frozen=True, slots=True)
class FeedState:
    """How one feed stands."""

    feed_id: str
    contiguous_seq: int
    fresh: bool
    events_missing: bool


class Tickets:
    """Reads tickets for the access side; sees only what the database's functions give."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes a pool of role broker_access."""
        self._pool = pool
        self._grounds: Batch[tuple[str, Agent], Standing] = Batch(
            self._flush, limit=BATCH, backlog=BACKLOG, refused=_refused
        )

    async def ground(self, ticket_id: str, agent: Agent) -> Standing:
        """Resolves the ground of an agent on a ticket, known or not.

        Raises:
            RequestMalformedError: the id cannot be a ticket's.
            DatabaseUnavailableError: the database does not answer.
        """
        return await self._grounds.submit((words.read_ticket_id(ticket_id), agent))

    async def list_assigned(self, agent: Agent, *, page_size: int = 0, page_token: str = "") -> Page:
        """Lists an agent's open tickets, newest relation first.

        Args:
            agent: whose.
            page_size: 0 means 50; more than 100 is cut to 100.
            page_token: `next_page_token` of the page before, or "".

        Raises:
            RequestMalformedError: size or token is malformed.
            DatabaseUnavailableError: the database does not answer.
        """
        if page_size < 0:
            raise refuse("page_size", "is negative")
        size = min(page_size or PAGE_DEFAULT, PAGE_MOST)
        after, ticket = _position(page_token) if page_token else (None, None)
        async with connection(self._pool) as conn:
            rows = await conn.fetch(SQL.list_assigned, agent.key, size + 1, after, ticket)
        tickets = tuple(
            AssignedTicket(row["ticket_id"], row["kind"], Relation(row["relation"]), row["start_time"])
            for row in rows[:size]
        )
        return Page(tickets, _page_token(tickets[-1]) if len(rows) > size else "")

    async def _flush(self, asked: Sequence[tuple[str, Agent]]) -> Sequence[Standing | BaseException]:
        """Asks for all that came together in one statement: the same for every ticket, known or not."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(SQL.grounds, [t for t, _ in asked], [a.key for _, a in asked])
        return [_standing(ticket_id, row) for (ticket_id, _), row in zip(asked, rows, strict=True)]

    async def feeds(self) -> tuple[FeedState, ...]:
        """Lists how each feed stands that was ever heard of; for readiness and metrics."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(SQL.feeds)
        return tuple(
            FeedState(row["feed_id"], row["contiguous_seq"], row["fresh"], row["events_missing"])
            for row in rows
        )


def _standing(ticket_id: str, row: asyncpg.Record) -> Standing:
    return Standing(
        Ground(
            ticket_id=ticket_id,
            kind=row["kind"],
            status=TicketStatus(row["status"]),
            relation=Relation(row["relation"]),
            provenance=Provenance(row["provenance"]),
            opened_by=OpenedBy(row["opened_by"]),
            present_until=row["present_until"],
            facts_version=row["facts_version"],
            customers=tuple(row["customers"]),
        ),
        present=row["present"],
        was_last_assignee=row["was_last_assignee"],
        feed_fresh=row["feed_fresh"],
        suspended=row["suspended"],
    )


def _refused() -> BrokerError:
    return DatabaseUnavailableError(cause="backlog full")


def _page_token(last: AssignedTicket) -> str:
    micros = (last.assign_time - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(_POSITION.pack(micros, last.ticket_id.encode("ascii"))).decode("ascii")


def _position(token: str) -> tuple[datetime, str]:
    try:
        if len(token) != _TOKEN_LENGTH:
            raise refuse("page_token", "is no page token")
        micros, padded = _POSITION.unpack(base64.b64decode(token, altchars=b"-_", validate=True))
        time = _EPOCH + timedelta(microseconds=micros)
        return time, words.read_ticket_id(padded.rstrip(b"\0").decode("ascii"), "page_token")
    except (binascii.Error, ValueError, OverflowError) as exc:
        raise refuse("page_token", "is no page token") from exc
