"""A draft held against the ledger: recorded decisions, taken again; the replay is itself on the ledger.

Invariants:
- whoever asks reads no event: the database gives distinct decisions and counts (085_replay.sql);
- the replay's event is durable before its report is given;
- one connection of its own, one core, no statement without an end: the access path is not starved;
- people are counted exactly or not at all, and the report says which.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncpg

from broker.database import connection, open_pool, queries, transaction
from broker.errors import PolicyUnavailableError
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.policy import Policy, PolicyStore
from broker.policy.catalog_reader import read_catalog
from broker.policy.files import CATALOG, RULES
from broker.policy.findings import Findings
from broker.policy.lines import read_csv
from broker.policy.replay import (
    MOST_NAMED,
    Mark,
    People,
    Replay,
    ReplayReport,
    recorded_from,
    sensitive_fields,
)
from broker.policy.rules import GROUP_PREFIX
from broker.policy.seal import UNCHECKED

Q = queries("replay")

STATEMENT_TIMEOUT = 600.0
"""Seconds for one statement. Slices take about one; counting people takes one statement over everything."""

SLICE = 1.0
"""Seconds that one slice of the record should take, so that progress shows and no snapshot grows old."""

FIRST_SLICE = 1 / 64
"""Share of the span that the first slice takes; those after it follow the clock."""

MOST_GROWTH = 4.0
"""Most that a slice may be longer than the one before: the nights are empty, the mornings are not."""

MOST_DETAILS = 200_000
"""Distinct decisions held in memory, some 150 MB. Beyond, flips are still counted, people are not."""


Kept = tuple[bytes, int]
"""Equal decisions: what they saw and said, and the first version whose events lack the same groups."""


class ReplayProgress(Protocol):
    """Takes how far a replay is."""

    def __call__(self, what: str, done: float, decisions: int, /) -> None:
        """Shows what is done now, the share of it that is done, and the decisions seen so far."""


async def open_replay_pool(dsn: str) -> asyncpg.Pool:
    """Opens the one connection of a replay, as broker_admin; it uses one core of the database."""
    return await open_pool(
        dsn, name="broker policy replay", max_size=1, statement_timeout=STATEMENT_TIMEOUT,
        settings={"max_parallel_workers_per_gather": "0"},
    )  # fmt: skip


async def replay_ledger(
    pool: asyncpg.Pool,
    ids: EventIds,
    new: Policy,
    *,
    asked_by: str,
    person: str = "",
    since: datetime,
    until: datetime | None = None,
    trace_id: str = NO_TRACE,
    progress: ReplayProgress = lambda _what, _done, _decisions: None,
    steady: Callable[[], float] = time.monotonic,
) -> ReplayReport:
    """Takes the decisions of a span again under a draft, and puts on record that somebody asked.

    Args:
        pool: of `open_replay_pool`.
        ids: event ids.
        new: the draft.
        asked_by: the console or the command that asks, for the record.
        person: at the console, `issuer|subject`.
        since: from when.
        until: up to when; None: now.
        trace_id: of the request that asked, where one did.
        progress: is told how far it is.
        steady: seconds that only count up; sizes the slices.

    Raises:
        DatabaseUnavailableError: the database does not answer, or a statement took too long.
    """
    until = until or datetime.now(UTC)
    again = _Replaying(
        pool, Replay(new, sensitive=await _sensitive_now(pool), mapped=await _mapped(pool, since, until))
    )
    await again.read(since, until, progress, steady)
    progress("Counting whom it concerns", 0.0, again.decisions)
    report = again.replay.report(await again.people(since, until))
    await _record(
        pool, ids, report, person=person, asked_by=asked_by, trace_id=trace_id, since=since, until=until
    )
    progress("Done", 1.0, again.decisions)
    return report


class _Replaying:
    """One replay under way."""

    def __init__(self, pool: asyncpg.Pool, replay: Replay) -> None:
        self.replay = replay
        self.decisions = 0
        self._pool = pool
        self._classes: dict[int, int] = {}  # version -> first one whose events lack the same groups
        self._first: dict[frozenset[str], int] = {}  # those groups -> that version
        self._found: dict[Kept, tuple[int, str]] = {}  # -> decisions, first event
        self._marks: dict[Kept, frozenset[Mark]] = {}  # of those that changed
        self._overflowed = False

    async def read(
        self, since: datetime, until: datetime, progress: ReplayProgress, steady: Callable[[], float]
    ) -> None:
        """Reads the record slice by slice, then decides what was found."""
        at, step = since, (until - since) * FIRST_SLICE
        shortest = timedelta(milliseconds=1)  # what event ids can tell apart
        while at < until:
            end = min(at + max(step, shortest), until)
            began = steady()
            async with connection(self._pool) as conn:
                rows = await conn.fetch(Q.replay_inputs, at, end)
            took = max(steady() - began, SLICE / 1000)
            step = (end - at) * max(1 / MOST_GROWTH, min(MOST_GROWTH, SLICE / took))
            for row in rows:
                self._add(row["detail"], row["policy_version"], row["decisions"], row["example"])
            at = end
            progress("Replaying", (at - since) / (until - since), self.decisions)
        self._decide()

    async def people(self, since: datetime, until: datetime) -> Mapping[Mark, People] | None:
        """Counts whom the changed decisions concern; None where there were too many to count by."""
        if self._overflowed:
            return None
        if not self._marks:
            return {}
        signatures = {marks: number for number, marks in enumerate(dict.fromkeys(self._marks.values()))}
        marks = sorted({mark for marks in signatures for mark in marks})
        number_of = {mark: number for number, mark in enumerate(marks)}
        pairs = [(signature, number_of[mark]) for of, signature in signatures.items() for mark in of]
        async with connection(self._pool) as conn:
            rows = await conn.fetch(
                Q.replay_people, since, until,
                list(self._classes), list(self._classes.values()),
                [detail for detail, _ in self._marks], [version for _, version in self._marks],
                [signatures[of] for of in self._marks.values()],
                [signature for signature, _ in pairs], [mark for _, mark in pairs], MOST_NAMED,
            )  # fmt: skip
        return {
            marks[row["mark"]]: People(
                row["agents"], row["customers"], row["nameless"],
                dict(zip(row["named"], row["named_decisions"], strict=True)),
            )
            for row in rows
        }  # fmt: skip

    def _add(self, detail: bytes, version: int, decisions: int, example: str) -> None:
        self.decisions += decisions
        if version not in self._classes:
            self._classes[version] = self._first.setdefault(self.replay.unrecorded(version), version)
        kept = detail, self._classes[version]
        before = self._found.get(kept)
        self._found[kept] = (before[0] + decisions, before[1]) if before else (decisions, example)
        if len(self._found) > MOST_DETAILS:
            self._overflowed = True
            self._decide()

    def _decide(self) -> None:
        for (detail, version), (decisions, example) in self._found.items():
            marks = self.replay.add(recorded_from(json.loads(detail), decisions, example, version))
            if marks and not self._overflowed:
                self._marks[detail, version] = marks
        self._found = {}


async def _mapped(pool: asyncpg.Pool, since: datetime, until: datetime) -> dict[int, frozenset[str]]:
    """Gives the groups that each version of the span mapped; its events tell of no other."""
    async with connection(pool) as conn:
        rows = await conn.fetch(Q.versions_in_force, since, until)
    return {
        row["version"]: frozenset(
            line.words[1].removeprefix(GROUP_PREFIX)
            for line in read_csv(RULES, row["rules"], Findings())
            if line.words[0] == "g" and line.words[1].startswith(GROUP_PREFIX)
        )
        for row in rows
    }


async def _sensitive_now(pool: asyncpg.Pool) -> frozenset[str]:
    """Gives the fields that are sensitive in the policy in force: a draft may not talk them away."""
    try:
        _, bundle = await PolicyStore(pool, UNCHECKED).active()
    except PolicyUnavailableError:
        return frozenset()
    catalog = read_catalog(bundle.files.texts[CATALOG], Findings())
    return sensitive_fields(catalog) if catalog else frozenset()


async def _record(
    pool: asyncpg.Pool, ids: EventIds, report: ReplayReport,
    *, person: str, asked_by: str, trace_id: str, since: datetime, until: datetime,
) -> None:  # fmt: skip
    detail = {
        "act": "replayed",  # the question, where it came over the port, is "replay"
        "digest": report.digest,
        "since": since.isoformat(),
        "until": until.isoformat(),
        "decisions": report.decisions,
        "changed": report.changed,
        "undecidable": sum(report.undecidable.values()),
        "customers_newly_reachable": report.customers_newly_reachable,
    }
    event = Event(
        id=ids.new(),
        kind=EventKind.POLICY,
        outcome="done",
        trace_id=trace_id,
        agent=person,
        tool=asked_by,
        detail=detail,
    )
    async with transaction(pool) as conn:
        await append_events(conn, [event], door=ADMIN_DOOR)
