"""Shadow mode: a draft decides beside the active policy on live traffic, without effect.

In a worker: `access` shows its decisions to a `Tally`; this room's task drains it, decides each once under
the draft and adds the differences to the database. For administrators: start, stop, look (`Shadows`).

Invariants:
- nothing flows from here to a request: the task reads a tally that requests write, and that is all;
- whatever fails here (draft, database, a defect) is logged and shown as trouble; requests never wait for it;
- memory, rows and the time taken at a stretch are bounded;
- starting and stopping are acts of a person on the ledger, in one transaction with what they change;
- what workers are given to compile has been compiled before, where it could harm nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

import asyncpg

from broker.database import connection, open_pool, queries, transaction
from broker.errors import BrokerError, PolicyInvalidError, PolicyRefusedError, RequestMalformedError
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.model import WITHHELD, Decided
from broker.policy import Policy, PolicyFiles, Tally, load
from broker.policy.bundle import Bundle
from broker.policy.replay import Deciding

Q = queries("shadow")
log = logging.getLogger(__name__)

ROUND = 1.0
"""Seconds between looks at which shadow runs."""

REPORT = 3.0
"""Seconds between reports to the database."""

STATEMENT_TIMEOUT = 5.0
"""Seconds for one of its statements; it has one connection, and nobody waits for it."""

AT_A_STRETCH = 64
"""Decisions held against the shadow before requests get their turn; about a millisecond's work."""

MOST_CLASSES = 2_000
"""Most classes of difference, in a worker's memory and in the table. Who has more has seen enough."""

MOST_ROLES = 450
"""Most characters of an agent's roles, one after the other; the table takes 500."""

REFUSED = (asyncpg.IntegrityConstraintViolationError, RequestMalformedError)
"""What the database says to a report that it will never take."""

NO_ROLES = "(none)"
"""Roles of agents whose groups lead to none."""

UNKNOWN = "unknown"
"""What a shadow says of a field that its catalog does not have."""


class Difference(NamedTuple):
    """One class of difference: a field of some agents on some tickets, under both policies."""

    field: str
    active: str
    shadow: str
    roles: str
    ticket_kind: str
    purpose: str


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """A shadow and where it decides otherwise."""

    shadow_id: int
    digest: str
    started_by: str
    start_time: datetime
    end_time: datetime | None  # None: it runs
    compared: int
    differing: int
    left_out: int
    unlisted: int
    trouble: str
    count_time: datetime | None
    differences: tuple[tuple[Difference, int, Mapping[str, str]], ...] = ()  # uses, first facts; most first


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose act it is, for the ledger."""

    person: str  # `issuer|subject`
    console: str  # identity of the certificate
    trace_id: str = NO_TRACE


@dataclass(frozen=True, slots=True)
class Started:
    """What came of a draft."""

    event: UUID
    shadow: ShadowReport | None  # None: the files are no policy
    told: Mapping[str, Any]  # what the draft holds, or its `findings`


Check = Callable[[Bundle], Awaitable[Mapping[str, Any]]]
"""Says what a draft holds, or `findings` where it is no policy; within bounds of time and memory."""


class Shadowing:
    """One worker's shadow: learns of it, holds decisions against it, reports."""

    def __init__(
        self, dsn: str, tally: Tally, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Takes where the database is (as broker_access), what requests write, the clock that ends rules."""
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None  # of its own: it must not take connections from requests
        self._tally = tally
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._shadow_id: int | None = None
        self._deciding: Deciding | None = None
        self._policy: Policy | None = None
        self._clear()

    async def __aenter__(self) -> Self:
        """Begins to look, in the background; waits for nothing."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the task; what it has counted since the last report is lost."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._pool is not None:
            self._pool.terminate()

    async def look(self) -> None:
        """Learns which shadow runs; never raises."""
        try:
            await self._look()
        except Exception as exc:  # noqa: BLE001 - a shadow's failure is nobody else's
            self._fail("the shadow cannot be learnt of", exc)

    async def report(self) -> None:
        """Holds what requests decided against the shadow and adds it up in the database; never raises."""
        if self._pool is None or self._shadow_id is None:
            return
        try:
            await self._compare()
            await self._send(self._pool)
        except Exception as exc:  # noqa: BLE001 - as above
            self._fail("the shadow cannot be held against decisions", exc)
            if isinstance(exc, REFUSED):
                self._forget()
            with contextlib.suppress(Exception):  # by itself: what the counts fail of must not silence it
                await self._count(self._pool, [])

    async def _run(self) -> None:
        rounds = 0
        while True:
            await self.look()
            if rounds % int(REPORT / ROUND) == 0:
                await self.report()
            rounds += 1
            await asyncio.sleep(ROUND)

    async def _look(self) -> None:
        if self._pool is None:
            self._pool = await open_pool(
                self._dsn, name="broker-shadow", max_size=1, statement_timeout=STATEMENT_TIMEOUT
            )
        async with connection(self._pool) as conn:
            running = await conn.fetchval(Q.running_id)
        if running == self._shadow_id and not (self._policy and self._policy.is_over(self._today)):
            return
        # From here to the end of the load nothing is counted: a half-known shadow is none.
        self._tally.on = False
        self._tally.drain()
        self._clear()
        self._shadow_id, self._deciding, self._policy = None, None, None
        if running is None:
            return
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.running)
        if row is None:
            return
        # Known from here on, also where it cannot be loaded: it would not load a second later either.
        self._shadow_id = row["shadow_id"]
        files = PolicyFiles.from_mapping(json.loads(row["files"]))
        if files.digest != row["digest"]:
            raise PolicyInvalidError(["the shadow's files have another digest than its row"])
        self._policy = await asyncio.to_thread(load, files, "shadow", today=self._today)
        self._deciding = Deciding(self._policy)
        self._tally.on = True
        log.info("a shadow runs", extra={"digest": files.digest})

    @property
    def _today(self) -> date:
        return self._now().date()

    async def _compare(self) -> None:
        counts, left_out = self._tally.drain()
        self._left_out += left_out
        if self._deciding is None or self._policy is None:
            return
        for number, (decided, uses) in enumerate(counts.items(), start=1):
            self._hold(decided, uses, self._deciding, self._policy)
            if number % AT_A_STRETCH == 0:
                await asyncio.sleep(0)

    def _hold(self, decided: Decided, uses: int, deciding: Deciding, policy: Policy) -> None:
        names = [field.name for field in decided.decision.fields]
        levels = deciding.levels(policy.roles_of(decided.groups), decided.facts, names)
        roles = _named(decided.roles)
        differs = False
        for field in decided.decision.fields:
            active, shadow = field.level.value if field.level else WITHHELD, levels.get(field.name, UNKNOWN)
            if active == shadow:
                continue
            differs = True
            difference = Difference(
                field.name, active, shadow, roles, decided.facts.kind, decided.facts.purpose
            )
            if difference not in self._facts:
                if len(self._facts) >= MOST_CLASSES:
                    self._unlisted += uses
                    continue
                self._facts[difference] = json.dumps(decided.facts.as_mapping())
            self._differences[difference] += uses
        self._compared += uses
        self._differing += uses if differs else 0

    async def _send(self, pool: asyncpg.Pool) -> None:
        """Reports; what could not be reported is kept for the next time."""
        if not (self._compared or self._left_out or self._unlisted or self._trouble):
            return
        await self._count(
            pool, list(self._differences.items()),
            self._compared, self._differing, self._left_out, self._unlisted,
        )  # fmt: skip
        self._clear()

    async def _count(
        self,
        pool: asyncpg.Pool,
        found: list[tuple[Difference, int]],
        compared: int = 0,
        differing: int = 0,
        left_out: int = 0,
        unlisted: int = 0,
    ) -> None:
        """Adds to the database's counts, and tells the trouble."""
        columns: list[list[Any]] = [list(column) for column in zip(*(d for d, _ in found), strict=True)]
        columns = columns or [[] for _ in Difference._fields]
        async with connection(pool) as conn:
            await conn.fetchval(
                Q.count_shadow, self._shadow_id, compared, differing, left_out, unlisted, self._trouble,
                *columns, [uses for _, uses in found],
                [self._facts[difference] for difference, _ in found], MOST_CLASSES,
            )  # fmt: skip

    def _clear(self) -> None:
        self._differences: Counter[Difference] = Counter()
        self._facts: dict[Difference, str] = {}
        self._compared = self._differing = self._left_out = self._unlisted = 0
        self._trouble = ""

    def _forget(self) -> None:
        """Counts as left out what the database will not take: it would refuse everything later with it."""
        lost, trouble = self._compared + self._left_out, self._trouble
        self._clear()
        self._left_out, self._trouble = lost, trouble

    def _fail(self, sentence: str, exc: Exception) -> None:
        """Remembers and logs what went wrong, without the text of what was thrown: it might quote rows."""
        cause = exc.reason if isinstance(exc, BrokerError) else type(exc).__name__
        if isinstance(exc, PolicyInvalidError):
            cause = exc.findings[0]
        if f"{sentence}: {cause}" != self._trouble:
            log.warning("shadow trouble", extra={"finding": f"{sentence}: {cause}"})
        self._trouble = f"{sentence}: {cause}"


def _named(roles: frozenset[str]) -> str:
    """Names roles as one word of bounded length; sets that differ have different words."""
    names = "+".join(sorted(roles)) or NO_ROLES
    if len(names) <= MOST_ROLES:
        return names
    shown = names[:MOST_ROLES].rpartition("+")[0].split("+")
    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    return f"{'+'.join(shown)}+{len(roles) - len(shown)} more ({digest})"


class Shadows:
    """Starts, ends and shows shadows, for administrators."""

    def __init__(self, pool: asyncpg.Pool, ids: EventIds, check: Check) -> None:
        """Takes connections as broker_admin, ids of events, and what reads a draft."""
        self._pool = pool
        self._ids = ids
        self._check = check

    async def start(self, bundle: Bundle, by: Whose) -> Started:
        """Lets a draft run as shadow on every worker, in place of the one that runs.

        Files that are no policy are told why; that they were tried is on record, and nothing else changed.
        """
        digest = bundle.files.digest
        told = await self._check(bundle)
        if findings := told.get("findings"):
            async with transaction(self._pool) as conn:
                refusals = len(findings)
                event = await self._record(conn, "start shadow", digest, by, refusals=refusals)
            return Started(event, None, told)
        texts = json.dumps(dict(bundle.files.texts), ensure_ascii=False)
        async with transaction(self._pool) as conn:
            await conn.fetchval(Q.start_shadow, texts, digest, by.person)
            event = await self._record(conn, "start shadow", digest, by)
            # The one of this call: until the commit nobody else starts another.
            return Started(event, await _latest(conn), told)

    async def stop(self, by: Whose) -> tuple[UUID, ShadowReport | None]:
        """Ends the shadow that runs; gives the event's id and what has ended, None where none ran."""
        async with transaction(self._pool) as conn:
            digest: str | None = await conn.fetchval(Q.stop_shadow)
            event = await self._record(conn, "stop shadow", digest or "", by)
            return event, await _latest(conn) if digest else None

    async def latest(self, most: int = MOST_CLASSES) -> ShadowReport | None:
        """Gives the shadow that was started last and its differences; None where there never was one."""
        async with connection(self._pool) as conn:
            report = await _latest(conn)
            rows = await conn.fetch(Q.differences, report.shadow_id, most) if report else []
        if report is None:
            return None
        differences = tuple(
            (Difference(*(r[name] for name in Difference._fields)), r["uses"], json.loads(r["facts"]))
            for r in rows
        )
        return replace(report, differences=differences)

    async def _record(self, conn: Any, act: str, digest: str, by: Whose, *, refusals: int = 0) -> UUID:
        event = Event(
            id=self._ids.new(),
            kind=EventKind.POLICY,
            outcome="refused" if refusals else "done",
            reason=PolicyRefusedError.reason if refusals else "",
            trace_id=by.trace_id,
            agent=by.person,
            tool=by.console,
            detail={"act": act, "digest": digest} | ({"refusals": refusals} if refusals else {}),
        )
        await append_events(conn, [event], door=ADMIN_DOOR)
        return event.id


async def _latest(conn: Any) -> ShadowReport | None:
    row = await conn.fetchrow(Q.latest)
    return ShadowReport(**dict(row)) if row else None
