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
from broker.records.plan import OUR_POLICIES, UNDOING, Plan, build, findings, notes
from broker.records.relations import Relation, World, look
from broker.records.shape import guard_shape, shape_text
from broker.records.steps import Step

LOCK_TRIES = 50
"""Tries before we give up and say that the tables are busy."""


class InstallRefusedError(Exception):
    """The guard cannot be installed or undone as things are; carries every finding."""

    def __init__(self, found: list[str]) -> None:
        """Holds what is in the way, each with what to do."""
        super().__init__("\n".join(found))
        self.findings = found


async def plan_install(conn: Connection, catalog: Catalog) -> Plan:
    """Makes the plan that brings the guard to this catalog; an empty one where it stands already.

    Keys and salts outlive a change of the catalog, and a repair: only the mapping is undone and made
    anew, in the same transaction.

    Raises:
        InstallRefusedError: a table cannot be guarded; nothing was changed.
    """
    done = await _steps(conn)
    before = await _undo(conn, [s for s in done if s.part == "mapping"])
    now = await look(conn, catalog)
    world = _look_past(now, done)
    if found := findings(catalog, world):
        raise InstallRefusedError(found)
    steps = build(catalog, world, [s.sql for s in done])
    same = [s.sql for s in steps] == [s.sql for s in done if s.part == "mapping"]
    if done and same and await _unspoilt(conn, now):
        return Plan((), notes(catalog, world))
    return Plan((*before, *steps), notes(catalog, world), shape_text(guard_shape(catalog)), forget=bool(done))


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
    return Plan(await _undo(conn, done))


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
    for _ in range(LOCK_TRIES):
        try:
            async with conn.transaction():
                for sql in plan.statements:
                    await conn.execute(sql)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await pause(random.uniform(0.05, 0.2))  # noqa: S311 - keeps two tries apart, no secret
        except asyncpg.PostgresError as exc:
            raise InstallRefusedError([f"PostgreSQL refused: {exc}; nothing was changed"]) from exc
        else:
            return
    raise InstallRefusedError(["the tables are too busy; nothing was changed, try again"])


async def _undo(conn: Connection, done: list[Step]) -> tuple[Step, ...]:
    relations = sorted({s.relation for s in done if s.relation})
    there = {r["r"] for r in await conn.fetch(queries("records").still_there, relations)}
    return tuple(
        Step(
            s.undo,
            UNDOING,
            f"undoes: {' '.join(s.sql.split())[:70]}",
            s.part,
            s.relation if s.relation in there else "",  # dropped since: there is nothing to lock
        )
        for s in reversed(done)
        if s.undo
    )


async def _unspoilt(conn: Connection, world: World) -> bool:
    """Says whether policies, views, functions and row security are as they were left."""
    if not all(r.row_security for r in world.relations.values() if not r.is_view):
        return False
    looked: str | None = await conn.fetchval(queries("records").looked)
    return looked == await fingerprint(conn)


async def _steps(conn: Connection) -> list[Step]:
    q = queries("records")
    there = (await conn.fetch(q.is_installed))[0]
    steps = []
    if there["installed"]:
        steps = [Step(r["sql"], r["undo"], "", r["part"], r["relation"]) for r in await conn.fetch(q.steps)]
    if there["room"] and not steps:
        raise InstallRefusedError(["schema broker_guard is there, but by no installation; drop or rename it"])
    return steps


def _look_past(world: World, done: list[Step]) -> World:
    """Gives the world as it would be without the installed mapping."""
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
