"""Which role may do what with tickets: functions, each for one role, and no table for any."""

from __future__ import annotations

import asyncpg
import pytest

from tests.conftest import LOGIN_ROLES

ROLES = [role for role in LOGIN_ROLES if role != "broker_owner"]
TABLES = ("feed", "feed_ahead", "ticket", "ticket_customer", "assignment", "work_event", "ticket_event")
WRITING = {
    "apply_ticket_events": "SELECT broker.apply_ticket_events('f', '[]')",
    "feed_heartbeat": "SELECT broker.feed_heartbeat('f', 0, clock_timestamp(), '1 min', '1 min')",
    "apply_snapshot": "SELECT broker.apply_snapshot('f', 0, '[]')",
    "end_snapshot": "SELECT broker.end_snapshot('f', 0, '{}')",
    "import_tickets": "SELECT broker.import_tickets('g', '[]')",
}
READING = {
    "ground": "SELECT broker.ground('T-1', 'i|a')",
    "list_assigned": "SELECT broker.list_assigned('i|a', 1, NULL, NULL)",
}
INNER = {
    "take_turn": "SELECT broker.take_turn('f')",
    "put_ticket": "SELECT broker.put_ticket('f', '{}', false)",
    "put_work": "SELECT broker.put_work('T-1', 1, '{}')",
    "replace_assignments": "SELECT broker.replace_assignments('T-1', 1, '[]', true, clock_timestamp())",
    "close_gap": "SELECT broker.close_gap('f', 9)",
    "facts_version": "SELECT nextval('broker.facts_version')",
}


async def refused(database, role: str, statement: str) -> bool:
    conn = await asyncpg.connect(database.dsn(role))
    try:
        await conn.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    finally:
        await conn.close()
    return False


@pytest.mark.attack("K3", "S3")
async def test_functions(database):
    """Each function is open to the one role that needs it; the access side cannot invent assignments."""
    calls = {**WRITING, **READING, **INNER}
    may = {
        role: {name for name, statement in calls.items() if not await refused(database, role, statement)}
        for role in ROLES
    }

    assert may == {
        role: {"broker_feed": set(WRITING), "broker_access": set(READING)}.get(role, set()) for role in ROLES
    }


@pytest.mark.attack("K3", "S3")
@pytest.mark.parametrize("table", TABLES)
async def test_tables(database, table):
    """No role that logs in can read or write a table of tickets directly."""
    conn = await asyncpg.connect(database.dsn())
    try:
        rights = await conn.fetch(
            "SELECT r.role, p.privilege FROM unnest($2::text[]) AS r (role),"
            " unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)"
            " WHERE has_table_privilege(r.role, 'broker.' || $1, p.privilege)"
            " OR (p.privilege IN ('SELECT', 'INSERT', 'UPDATE')"
            "     AND has_any_column_privilege(r.role, 'broker.' || $1, p.privilege))",
            table,
            ROLES,
        )
        # (control: the owner has them)
        owner = "SELECT has_table_privilege('broker_owner', 'broker.' || $1, 'INSERT')"
        assert await conn.fetchval(owner, table)
    finally:
        await conn.close()

    assert [tuple(right) for right in rights] == []


async def test_definers(database):
    """Every function that runs with its owner's rights pins its search path, and none is PUBLIC's."""
    conn = await asyncpg.connect(database.dsn())
    try:
        rows = await conn.fetch(
            "SELECT p.proname, p.prosecdef, p.proconfig, r.rolname,"
            " has_function_privilege('public', p.oid, 'EXECUTE') AS open"
            " FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner"
            " WHERE p.pronamespace = 'broker'::regnamespace AND p.proname = ANY ($1)",
            [*WRITING, *READING, *INNER, "feeds"],
        )
    finally:
        await conn.close()

    assert len(rows) == len(WRITING) + len(READING) + len(INNER) - 1 + 1  # one INNER is a sequence; feeds
    for row in rows:
        assert "search_path=broker, pg_temp" in row["proconfig"], row["proname"]
        assert (row["rolname"], row["open"]) == ("broker_owner", False), row["proname"]
        assert row["prosecdef"] is (row["proname"] not in INNER), row["proname"]


@pytest.mark.attack("S3")
async def test_shadowing(database, world):
    """A temporary table of the caller's does not stand in for a table of the broker's."""
    async with world.access_pool.acquire() as conn:
        await conn.execute("RESET ALL")
        try:
            await conn.execute("CREATE TEMP TABLE ticket (ticket_id text)")
        except asyncpg.InsufficientPrivilegeError:
            return  # better still
        row = await conn.fetchrow("SELECT relation FROM broker.ground('T-1', 'i|a')")

    assert row["relation"] == "none"
