"""Installs, changes and undoes the guard, as the records database's administrator.

Invariants:
- one transaction: if we die in the middle, nothing has happened;
- locks on other owners' tables are asked for in short tries and given back, so other programs wait
  a fraction of a second at most and are never the victim of a dead-lock with us;
- what was done is remembered in the database with its undo; an undo needs no catalog.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import asyncpg

from broker.catalog import Catalog
from broker.database import Connection, queries
from broker.records.checks import fingerprint
from broker.records.plan import OUR_POLICIES, Plan, Step, build, findings, notes
from broker.records.relations import Relation, World, look, mapping_text

LOCK_TRY = "200ms"
"""How long one try may hold others up; below deadlock_timeout (1 s), so nobody is aborted for us."""

LOCK_TRIES = 50
"""Tries before we give up and say that the tables are busy."""


UNDOING = "-- an undo itself"
"""Marks steps that undo an earlier installation; they are not remembered."""


class InstallRefusedError(Exception):
    """The guard cannot be installed or undone as things are; carries every finding."""

    def __init__(self, found: list[str]) -> None:
        """Holds what is in the way, each with what to do."""
        super().__init__("\n".join(found))
        self.findings = found


async def plan_install(conn: Connection, catalog: Catalog) -> Plan:
    """Makes the plan that brings the guard to this catalog; an empty one where it is there already.

    Keys and salts outlive a change of the catalog: only the mapping is undone and made anew, in the
    same transaction.

    Raises:
        InstallRefusedError: a table cannot be guarded; nothing was changed.
    """
    done = await _steps(conn)
    before = _undo([s for s in done if s.part == "mapping"])
    world = await _look_past(conn, catalog, done)
    if found := findings(catalog, world):
        raise InstallRefusedError(found)
    steps = build(catalog, world, with_store=not done)
    if done and [s.sql for s in steps] == [s.sql for s in done if s.part == "mapping"]:
        return Plan((), notes(catalog, world))
    return Plan((*before, *steps), notes(catalog, world), mapping_text(catalog), forget=bool(done))


async def plan_uninstall(conn: Connection, *, destroy_salts: bool = False) -> Plan:
    """Makes the plan that undoes everything an installation did.

    Args:
        conn: the administrator's connection.
        destroy_salts: goes on where salts exist; the ledger's pseudonyms can then never be resolved.

    Raises:
        InstallRefusedError: nothing is installed, or salts would be lost unasked.
    """
    done = await _steps(conn)
    if not done:
        raise InstallRefusedError(["nothing is installed here"])
    salts = await conn.fetchval(queries("records").salts)
    if salts and not destroy_salts:
        raise InstallRefusedError(
            [f"it would destroy {salts} salts; the ledger's pseudonyms would be nobody's (--destroy-salts)"]
        )
    return Plan(_undo(done))


async def apply(
    conn: Connection, plan: Plan, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Runs a plan in one transaction.

    Args:
        conn: the administrator's connection.
        plan: from `plan_install` or `plan_uninstall`.
        pause: waits between tries for the locks.

    Raises:
        InstallRefusedError: the tables stayed busy, or the administrator lacks a right; nothing was changed.
    """
    if not plan.steps:
        return
    try:
        for _ in range(LOCK_TRIES):
            try:
                async with conn.transaction():
                    await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TRY}'")
                    for table in plan.locks:  # quoted by PostgreSQL
                        await conn.execute(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")
                    await _run(conn, plan)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await pause(random.uniform(0.05, 0.2))  # noqa: S311 - keeps two tries apart, no secret
            else:
                return
    except asyncpg.InsufficientPrivilegeError as exc:
        raise InstallRefusedError(
            [f"the administrator's role lacks a right: {exc}; nothing was changed"]
        ) from exc
    raise InstallRefusedError(
        [f"{', '.join(plan.locks)}: too busy to change; nothing was changed, try again"]
    )


async def _run(conn: Connection, plan: Plan) -> None:
    q = queries("records")
    for step in plan.steps:
        await conn.execute(step.sql)
    if not plan.mapping:
        return
    if plan.forget:
        await conn.execute(q.steps_clear)
    for step in plan.steps:
        if step.undo != UNDOING:
            await conn.execute(q.step_add, step.part, step.relation, step.sql, step.undo)
    await conn.execute(q.installation_set, plan.mapping, await fingerprint(conn))


def _undo(done: list[Step]) -> tuple[Step, ...]:
    return tuple(
        Step(s.undo, UNDOING, f"undoes: {' '.join(s.sql.split())[:70]}", s.part, s.relation)
        for s in reversed(done)
        if s.undo
    )


async def _steps(conn: Connection) -> list[Step]:
    q = queries("records")
    there = (await conn.fetch(q.is_installed))[0]
    if there["installed"]:
        return [Step(r["sql"], r["undo"], "", r["part"], r["relation"]) for r in await conn.fetch(q.steps)]
    if there["room"]:
        raise InstallRefusedError(
            ["schema broker_guard is there, but not by an installation; drop or rename it"]
        )
    return []


async def _look_past(conn: Connection, catalog: Catalog, done: list[Step]) -> World:
    """Looks at the database as it would be without the installed mapping."""
    world = await look(conn, catalog)
    guarded = {s.relation for s in done if s.relation}
    grants = [s.sql for s in done if s.sql.startswith("GRANT SELECT (")]
    return replace(world, relations={k: _past(r, guarded, grants) for k, r in world.relations.items()})


def _past(relation: Relation, guarded: set[str], grants: list[str]) -> Relation:
    """Takes away what the installed mapping gave a relation."""
    listed = "".join(
        f", {g},"
        for grant in grants
        if (g := _between(grant, "GRANT SELECT (", f") ON {relation.quoted} TO"))
    )
    columns = {
        name: replace(c, guard_granted=c.guard_granted and f", {c.quoted}," not in listed)
        for name, c in relation.columns.items()
    }
    if relation.quoted not in guarded:
        return replace(relation, columns=columns)
    policies = tuple(p for p in relation.policies if p not in OUR_POLICIES)
    return replace(relation, columns=columns, row_security=False, policies=policies)


def _between(text: str, start: str, end: str) -> str:
    if not text.startswith(start) or end not in text:
        return ""
    return text[len(start) : text.rindex(end)]
