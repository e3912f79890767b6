"""Whose data an agent, a tool or a grant was given, and who was given a customer's: for notifying them.

    (1) put the question on record
    (2) bring the index up with the ledger, so that nothing that is committed by now is missing
    (3) read the selected disclosures in the order of their customers, from one snapshot
    (4) add them up, customer by customer

Invariants:
- a read counts as a disclosure unless a later outcome event says that it came to nothing;
- memory does not grow with the report: it is a stream, and whoever takes it may write it away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.disclosures import catch_up
from broker.audit.exposed import CustomerExposure, Manner, Read, Totals, fold, instant
from broker.audit.field_classes import chosen, field_classes
from broker.audit.record import Auditor, put_on_record
from broker.database import Connection, queries, transaction
from broker.ledger import EventIds
from broker.model import LAST_ID, id_floor

Q = queries("exposure")

AT_ONCE = 20_000
"""Disclosures that are fetched at once."""

SKEW = timedelta(seconds=61)
"""How far an event's id may be from its time (the append refuses more): the index goes by id."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which disclosures; what is None does not matter, one of the first four is needed."""

    agent: str | None = None  # issuer|subject
    tool: str | None = None
    customer: str | None = None  # pseudonym
    grant_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None  # without

    def __post_init__(self) -> None:
        """Refuses a question about everything."""
        if not (self.agent or self.tool or self.customer or self.grant_id):
            raise ValueError("give an agent, a tool, a customer or a grant")

    def as_mapping(self) -> dict[str, str]:
        """Gives what was asked, as it is put on record and into a pack."""
        told = {
            "agent": self.agent, "tool": self.tool, "customer": self.customer,
            "grant": str(self.grant_id) if self.grant_id else None,
            "since": instant(self.since) if self.since else None,
            "until": instant(self.until) if self.until else None,
        }  # fmt: skip
        return {name: text for name, text in told.items() if text is not None}

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """Gives bounds of the event ids: every selected one is between them, others may be."""
        low = id_floor((self.since - SKEW).timestamp()) if self.since else UUID(int=0)
        return low, id_floor((self.until + SKEW).timestamp()) if self.until else LAST_ID


async def put_question(
    pool: asyncpg.Pool, ids: EventIds, by: Auditor, selection: Selection, query: str = "exposure"
) -> UUID:
    """Puts a question on record, (1); nothing is read before.

    Raises:
        LedgerUnavailableError: it is not on record.
    """
    return await put_on_record(pool, ids, by, {"query": query, **selection.as_mapping()})


async def exposed(
    pool: asyncpg.Pool,
    selection: Selection,
    totals: Totals,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[list[CustomerExposure]]:
    """Streams the customers of a report in the order of their pseudonyms; the question is on record.

    Args:
        pool: connections as broker_auditor, whose statements may take as long as the report.
        selection: which disclosures.
        totals: counts every customer that was given.
        progress: hears how far it is.
    """
    await catch_up(pool, progress)
    async with transaction(pool) as conn:
        await conn.execute(Q.one_snapshot)
        words = await find_words(conn, selection)
        if words is None:
            return
        over: list[Read] = []  # of the customer who may go on in the next fetch
        cursor = await conn.cursor(Q.disclosures, *words.arguments)
        while rows := await cursor.fetch(AT_ONCE):
            reads = over + words.reads(rows)
            cut = len(reads)
            while cut and reads[cut - 1][0] == reads[-1][0]:
                cut -= 1
            over = reads[cut:]
            if cut:
                yield _counted(fold(reads[:cut]), totals)
                progress(f"{totals.reads:,} disclosures of {totals.customers:,} customers")
        if over:
            yield _counted(fold(over), totals)


async def classes_for(pool: asyncpg.Pool, totals: Totals) -> dict[str, str]:
    """Gives the classes of every field that was counted."""
    return chosen(await field_classes(pool), totals.fields)


@dataclass(frozen=True, slots=True)
class Words:
    """What the numbers in the index stand for, and a selection in them."""

    arguments: tuple[object, ...]
    names: Mapping[int, str]
    manners: Mapping[tuple[int, int], Manner]

    def reads(self, rows: Sequence[Any]) -> list[Read]:
        """Puts the words in their places."""
        names, manners = self.names, self.manners
        return [
            (customer, ticket, time, names[agent], names[tool], manners[shape, ground])
            for customer, ticket, time, agent, tool, shape, ground in rows
        ]


class _Manners(dict[tuple[int, int], Manner]):
    """Makes each manner once, when it is first met."""

    def __init__(self, shapes: Mapping[int, Any], grounds: Mapping[int, Any]) -> None:
        super().__init__()
        self._shapes, self._grounds = shapes, grounds

    def __missing__(self, key: tuple[int, int]) -> Manner:
        shape, ground = self._shapes[key[0]], self._grounds[key[1]]
        found = self[key] = Manner(
            frozenset(shape["clear"]), frozenset(shape["masked"]), shape["unreadable"], ground["purpose"],
            ground["provenance"],
        )  # fmt: skip
        return found


async def find_words(conn: Connection, selection: Selection) -> Words | None:
    """Reads the index's words; None where one of those that were asked for never came up."""
    names = {row["name_id"]: row["name"] for row in await conn.fetch(Q.names)}
    asked: list[int | None] = []
    for kind, name in (("agent", selection.agent), ("tool", selection.tool)):
        found = None if name is None else await conn.fetchval(Q.name_id, kind, name)
        if name is not None and found is None:
            return None
        asked.append(found)
    shapes = {row["fields_id"]: row for row in await conn.fetch(Q.shapes)}
    grounds = {row["ground_id"]: row for row in await conn.fetch(Q.grounds)}
    low, high = selection.ids
    arguments = (
        *asked, selection.customer, selection.grant_id, low, high, selection.since, selection.until,
    )  # fmt: skip
    return Words(arguments, names, _Manners(shapes, grounds))


def _counted(customers: Iterator[CustomerExposure], totals: Totals) -> list[CustomerExposure]:
    found = list(customers)
    for one in found:
        totals.add(one)
    return found
