"""Agents who read and then do nothing, against their peers: a test that may be looked at every day.

A visit is what one agent read on one ticket on one day; without work of theirs on it within a day it is
unexplained (120_unexplained.sql). Of a queue's N visits on a day, U are unexplained. An agent who made n of
the N and is as their peers are has of the U what a blind draw gives (hypergeometric). How likely that is for
one whose odds of an unexplained visit are r times the peers' is known exactly, too (Fisher's noncentral one).
So each day gives, for several r, the ratio of that chance to the one at `TOLERATED`. Products of such ratios,
averaged over r, are at most 1 on average for everybody whose odds are tolerable, whatever day one stops at.
So they ever reach A / alpha with a chance of alpha / A at most (Ville's inequality): of A honest agents, any
is ever called with a chance of alpha at most. No rate is estimated, so none needs to be shrunk: with few
peers, or when all of them leave visits unexplained because the feed was down, a day says little.

Invariants:
- an agent without peers is never called;
- a day once counted is never counted again: the test goes over all days from the first one asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.disclosures import catch_up, until
from broker.audit.record import Auditor, put_on_record
from broker.audit.statistics import log_evidence
from broker.database import connection, queries
from broker.errors import BrokerError
from broker.ledger import EventIds

log = logging.getLogger(__name__)

Q = queries("unexplained")

ALPHA = 0.01
"""Chance that any honest agent is ever called."""

TOLERATED = 2.0
"""Odds, against the peers', up to which leaving visits unexplained is somebody's way of working."""

SUSPECTED = (4.0, 8.0, 16.0, 32.0)
"""Odds that are looked for; what lies between is found a little later."""

LOOK = 600.0
"""Seconds between looks whether a day is due."""

MOST_VISITS = 20
"""Visits shown of an agent who is called."""


@dataclass(frozen=True, slots=True)
class Tally:
    """One agent's judged visits in one queue on one day."""

    day: date
    queue: str
    agent: str
    visits: int
    unexplained: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What all days together say of one agent."""

    agent: str
    visits: int
    unexplained: int
    expected: float  # as many as chance gives an agent like the peers
    evidence: float  # logarithm of the highest average of products up to any day
    called_on: date | None  # the first day it reached the bound


def stand(tallies: Iterable[Tally], *, alpha: float = ALPHA, tolerated: float = TOLERATED) -> list[Standing]:
    """Gives every agent's standing, strongest evidence first.

    Args:
        tallies: of consecutive days; agents without visits may be left out.
        alpha: chance that any honest agent is ever called.
        tolerated: odds against the peers' that call nobody.
    """
    groups: dict[tuple[date, str], list[Tally]] = defaultdict(list)
    for tally in tallies:
        groups[tally.day, tally.queue].append(tally)
    agents = {t.agent for group in groups.values() for t in group}
    bound = math.log(len(agents) / alpha) if agents else 0.0
    odds = (tolerated, *(tolerated * s / TOLERATED for s in SUSPECTED))
    sums = {agent: [0.0] * len(SUSPECTED) for agent in agents}
    totals = {agent: [0, 0, 0.0] for agent in agents}
    best = dict.fromkeys(agents, 0.0)
    called: dict[str, date] = {}
    days: dict[date, list[list[Tally]]] = defaultdict(list)
    for (day, _), group in groups.items():
        days[day].append(group)
    for day in sorted(days):
        for group in days[day]:
            whole, marked = sum(t.visits for t in group), sum(t.unexplained for t in group)
            for t in group:
                base, *others = log_evidence(whole, marked, t.visits, t.unexplained, odds)
                sums[t.agent] = [s + o - base for s, o in zip(sums[t.agent], others, strict=True)]
                total = totals[t.agent]
                total[0] += t.visits
                total[1] += t.unexplained
                total[2] += t.visits * marked / whole if whole else 0.0
        for agent in {t.agent for group in days[day] for t in group}:
            best[agent] = max(best[agent], _mean(sums[agent]))
            if best[agent] >= bound:
                called.setdefault(agent, day)
    standings = [
        Standing(
            agent,
            int(totals[agent][0]),
            int(totals[agent][1]),
            totals[agent][2],
            best[agent],
            called.get(agent),
        )
        for agent in agents
    ]
    return sorted(standings, key=lambda s: (s.called_on is None, -s.evidence, s.agent))


def _mean(logs: Sequence[float]) -> float:
    """Gives the logarithm of the mean of what is given by logarithms."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs) / len(logs))


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit without work, by pseudonyms."""

    event_id: UUID
    day: date
    queue: str
    reads: int
    customer: str
    ticket: str


@dataclass(frozen=True, slots=True)
class UnexplainedReport:
    """The whole answer."""

    event_id: UUID
    standings: tuple[Standing, ...]
    visits: dict[str, tuple[Visit, ...]]  # of those who are called
    days: tuple[date, ...]
    unjudged: int  # visits whose ticket nobody could tell any more


async def judge(pool: asyncpg.Pool) -> date | None:
    """Judges the next day that is due, as broker_admin or broker_auditor; None where none is."""
    async with connection(pool) as conn:
        judged: date | None = await conn.fetchval(Q.judge)
    return judged


async def unexplained_reads(
    pool: asyncpg.Pool,
    since: date,
    *,
    by: Auditor,
    ids: EventIds,
    alpha: float = ALPHA,
    progress: Callable[[str], None] = lambda _: None,
) -> UnexplainedReport:
    """Judges what is due and gives every agent's standing since a day, as broker_auditor."""
    detail = {"query": "unexplained", "since": since.isoformat(), "alpha": alpha}
    question = await put_on_record(pool, ids, by, detail)
    await catch_up(pool, progress)
    while (judged := await judge(pool)) is not None:
        progress(f"Judging visits of {judged}")
    async with connection(pool) as conn:
        rows = await conn.fetch(Q.tallies, since)
        progress("Comparing with peers")
        tallies = [Tally(r["day"], r["queue"], r["agent"], r["visits"], r["unexplained"]) for r in rows]
        standings = await asyncio.to_thread(stand, tallies, alpha=alpha)
        visits = {
            s.agent: tuple(map(_visit, await conn.fetch(Q.visits, s.agent, since, MOST_VISITS)))
            for s in standings
            if s.called_on
        }
    days = tuple(sorted({r["day"] for r in rows}))
    return UnexplainedReport(question, tuple(standings), visits, days, sum(r["unjudged"] for r in rows))


async def keep_judging(
    pool: asyncpg.Pool, stop: asyncio.Event, *, wait: Callable[[float], Awaitable[None]] | None = None
) -> None:
    """Judges every day once it is due, for as long as the process lives: grants are forgotten after a week.

    Args:
        pool: connections as broker_admin.
        stop: ends it.
        wait: waits between looks; by default until `stop`, or the seconds given.
    """
    wait = wait or until(stop)
    while not stop.is_set():
        try:
            while await judge(pool) is not None:
                continue
        except (BrokerError, asyncpg.PostgresError):
            log.exception("judging visits failed")
        await wait(LOOK)


def _visit(row: Any) -> Visit:
    return Visit(row["event_id"], row["day"], row["queue"], row["reads"], row["customer"], row["ticket"])
