"""From a complaint file to names: `broker audit attribute`, and whoever serves the same.

Before the question can be counted its file is read, and for that it is looked up which fields any read ever
gave out (`known_fields`): that tells of nobody. Then

    (1) put the question on record: how many identifiers, of which kinds; never which
    (2) have the records database turn them into pseudonyms, behind a pass that (1) alone gives
    (3) bring the index of disclosures up to now
    (4) fetch the complainants' reads before the contact, and what chance is worked out from
    (5) drop those that the ledger's own bytes do not bear out (evidence.py)
    (6) rank (attribution.py)
    (7) put on record whose pseudonyms were learnt and what was answered, then answer

Invariants:
- no identifier is in an event, an answer or an error; lines of the file are told by their numbers;
- evidence is what the leaf says: a row of the index that its leaf does not bear out counts for nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.attribution import (
    ANY_FIELD,
    MOST_SHOWN,
    Attribution,
    Candidate,
    Case,
    Chance,
    Read,
    attribute,
    overlaps,
)
from broker.audit.complaints import Complaint, Complaints, Unused
from broker.audit.disclosures import catch_up
from broker.audit.evidence import borne_out
from broker.audit.matching import matching
from broker.audit.record import Auditor, put_on_record
from broker.database import connection, queries
from broker.ledger import EventIds

Q = queries("attribution")

MOST_READS = 2000
"""Reads of one complainant that are looked at; a person with more is no customer but a test account."""

AT_ONCE = 2000
"""Leaves that are fetched and compared at once."""

FOUND = {
    "none": "matches nobody in the ledger",
    "several": "matches several people in the ledger; which of them complained cannot be told",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One read that showed a complainant's data before the contact."""

    line: int
    event_id: UUID
    time: datetime
    fields: tuple[str, ...]  # of those that the caller knew; none where the leaf does not tell
    tool: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A candidate by name."""

    names: tuple[str, ...]
    candidate: Candidate
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Who could be the source, and what of complaints and index could not be used."""

    attribution: Attribution
    suspects: tuple[Suspect, ...]
    unused: tuple[Unused, ...]
    tampered: tuple[UUID, ...]  # as in LeakReport


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The whole answer."""

    event_id: UUID  # of the question
    attribution: Attribution
    suspects: tuple[Suspect, ...]
    unused: tuple[Unused, ...]
    lines: int
    matched: int
    tampered: tuple[UUID, ...] = ()  # rows of the index that their ledger events do not bear out


async def known_fields(pool: asyncpg.Pool) -> frozenset[str]:
    """Gives the fields that any read gave out in clear up to now, as broker_auditor."""
    await catch_up(pool)
    async with connection(pool) as conn:
        return frozenset(row["name"] for row in await conn.fetch(Q.known_fields))


async def attribute_leak(
    pool: asyncpg.Pool,
    records: asyncpg.Pool,
    complaints: Complaints,
    *,
    by: Auditor,
    ids: EventIds,
    conditioned: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> LeakReport:
    """Ranks who could be the source of a leak.

    Args:
        pool: the broker's database as broker_auditor.
        records: the records database as broker_auditor.
        complaints: what the file holds.
        by: who asks.
        ids: event ids.
        conditioned: compare within queues and weeks, else among all customers.
        progress: takes what is done now.

    Raises:
        IdentifiersUsedUpError: too many on this day; nothing was matched.
        BrokerError: a database or the ledger does not answer.
    """
    # (1)
    question = await put_on_record(pool, ids, by, {
        "query": "attribute",
        "identifiers": len(complaints.used),
        "kinds": dict(sorted(Counter(c.kind for c in complaints.used).items())),
        "conditioned": conditioned,
    })  # fmt: skip
    progress("Matching identifiers")
    customers, unused = await _match(pool, records, question, complaints.used)  # (2)
    ranked = await rank(pool, customers, conditioned=conditioned, progress=progress)  # (3) to (6)
    await put_on_record(pool, ids, by, {
        "query": "attribute",
        "answers": str(question),
        "matched": sorted({pseudonym for _, pseudonym in customers}),
        "verdict": ranked.attribution.verdict.name,
        "named": [list(s.names) for s in ranked.suspects if s.candidate.named],
    })  # (7)  # fmt: skip
    return LeakReport(
        question, ranked.attribution, ranked.suspects,
        tuple(sorted((*complaints.unused, *unused, *ranked.unused), key=lambda u: u.line)),
        complaints.lines, len(customers), ranked.tampered,
    )  # fmt: skip


async def rank(
    pool: asyncpg.Pool,
    customers: Sequence[tuple[Complaint, str]],
    *,
    conditioned: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Ranked:
    """Ranks who could have leaked what callers knew of customers, who go by pseudonym here; (3) to (6)."""
    await catch_up(pool, progress)  # (3)
    progress("Comparing with the ledger")
    async with connection(pool) as conn:
        names = {r["name_id"]: {"kind": r["kind"], "name": r["name"]} for r in await conn.fetch(Q.names)}
        cases, unused, tampered = await _cases(conn, customers, names)  # (4), (5)
        chance = await _chance(conn, cases, names)
    found = await asyncio.to_thread(attribute, cases, chance, conditioned=conditioned)  # (6)
    return Ranked(found, _suspects(found, cases, names), tuple(unused), tampered)


async def _match(
    pool: asyncpg.Pool, records: asyncpg.Pool, question: UUID, used: Sequence[Complaint]
) -> tuple[list[tuple[Complaint, str]], list[Unused]]:
    """Turns identifiers into pseudonyms; each customer once, at the first line that names them."""
    if not used:
        return [], []
    tickets = [c.identifier for c in used if c.kind == "ticket"]
    async with connection(pool) as conn:
        [made] = await conn.fetch(Q.match_pass, question, tickets)
    sealed = iter(made["sealed"])
    told = [next(sealed) if c.kind == "ticket" else c.identifier for c in used]
    async with matching(records) as conn:
        rows = await conn.fetch(Q.match_customers, made["pass"], [c.kind for c in used], told)
    matched: list[tuple[Complaint, str]] = []
    unused: list[Unused] = []
    first: dict[str, int] = {}
    for complaint, row in zip(used, rows, strict=True):
        pseudonym = row["pseudonym"]
        if pseudonym is None:
            unused.append(Unused(complaint.line, FOUND[row["found"]]))
        elif pseudonym in first:
            unused.append(Unused(complaint.line, f"the same customer as line {first[pseudonym]}"))
        else:
            first[pseudonym] = complaint.line
            matched.append((complaint, pseudonym))
    return matched, unused


async def _cases(
    conn: Any, customers: Sequence[tuple[Complaint, str]], names: Mapping[int, Mapping[str, Any]]
) -> tuple[list[Case], list[Unused], tuple[UUID, ...]]:
    """Gives the cases, what cannot be one, and the rows of the index that the ledger does not bear out."""
    reads: dict[str, list[Any]] = {}
    for row in await conn.fetch(Q.reads, [pseudonym for _, pseudonym in customers], MOST_READS + 1):
        reads.setdefault(row["customer"], []).append(row)
    before = {
        pseudonym: [r for r in reads.get(pseudonym, ()) if r["read_time"] < complaint.contact]
        for complaint, pseudonym in customers
        if len(reads.get(pseudonym, ())) <= MOST_READS
    }
    told, tampered = await _told(conn, [row for rows in before.values() for row in rows], names)
    cases, unused = [], []
    for complaint, pseudonym in customers:
        mine = tuple(
            Read(
                r["event_id"], r["read_time"], r["agent_id"], r["tool_id"], r["stratum_id"],
                frozenset(r["clear"]), unreadable=r["unreadable"],
            )
            for r in sorted(before.get(pseudonym, ()), key=lambda r: r["event_id"]) if r["event_id"] in told
        )  # fmt: skip
        if pseudonym not in before:
            unused.append(
                Unused(complaint.line, f"over {MOST_READS} reads; a test account rather than a customer")
            )
        elif not mine:
            unused.append(
                Unused(complaint.line, "nobody was given anything of this customer before the contact")
            )
        else:
            cases.append(Case(complaint.line, complaint.contact, complaint.fields, mine))
    return cases, unused, tampered


async def _told(
    conn: Any, rows: Sequence[Any], names: Mapping[int, Mapping[str, Any]]
) -> tuple[set[UUID], tuple[UUID, ...]]:
    """Gives the events of the rows that the ledger's own bytes bear out, and those of the others."""
    told: set[UUID] = set()
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        leaves = {r["id"]: r["leaf"] for r in await conn.fetch(Q.leaves, [r["event_id"] for r in part])}
        grants = {r["grant_id"] for r in part if r["grant_id"]}
        outcomes = [r["leaf"] for r in await conn.fetch(Q.outcomes, list(grants))]
        told |= await asyncio.to_thread(borne_out, part, leaves, outcomes, names)
    return told, tuple(sorted({r["event_id"] for r in rows} - told))


async def _chance(conn: Any, cases: Sequence[Case], names: Mapping[int, Any]) -> Chance:
    """Fetches what chance needs: of the cases' queues and weeks, and of whoever is tested."""
    strata = sorted({r.stratum for c in cases for r in c.reads})
    _, tested = overlaps(cases)
    fields = sorted({name for c in cases for name in c.wanted} | {ANY_FIELD})
    sizes = await conn.fetch(Q.sizes, strata)
    weeks = {r["stratum_id"]: r for r in await conn.fetch(Q.weeks)}
    seen = await conn.fetch(Q.seen, sorted(tested), [*strata, *weeks], fields)
    totals = {r["name_id"]: r["customers"] for r in await conn.fetch(Q.totals)}
    return Chance(
        size={r["stratum_id"]: r["customers"] for r in sizes},
        seen={
            (r["name_id"], r["stratum_id"], r["field"]): r["customers"]
            for r in seen if r["stratum_id"] not in weeks
        },
        size_by_week={r["week"]: r["customers"] for r in weeks.values()},
        seen_by_week={
            (r["name_id"], weeks[r["stratum_id"]]["week"], r["field"]): r["customers"]
            for r in seen if r["stratum_id"] in weeks
        },
        totals={name_id: totals.get(name_id, 0) for name_id in names},
        tools=frozenset(name_id for name_id, r in names.items() if r["kind"] == "tool"),
    )  # fmt: skip


def _suspects(
    found: Attribution, cases: Sequence[Case], names: Mapping[int, Mapping[str, Any]]
) -> tuple[Suspect, ...]:
    shown = [c for place, c in enumerate(found.candidates) if place < MOST_SHOWN or c.named]
    return tuple(
        Suspect(
            tuple(names[s]["name"] for s in candidate.subjects),
            candidate,
            tuple(
                _evidence(case, read, names)
                for case in cases
                for s in candidate.subjects
                for read in case.evidence(s)
            ),
        )
        for candidate in shown
    )


def _evidence(case: Case, read: Read, names: Mapping[int, Mapping[str, Any]]) -> Evidence:
    fields = read.clear & case.fields if case.fields else read.clear
    return Evidence(case.line, read.event_id, read.time, tuple(sorted(fields)), names[read.tool]["name"])
