"""Acts that two do at once, or one does twice."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg

from broker.ledger import Event, EventIds, EventKind, GrantStore
from tests.ledger.conftest import Ground, eventually

AGENT = "https://idp.test|twice"


async def test_suspended_beside_a_reinstatement(own_ground: Ground) -> None:
    """A suspension that finds one in force which ends at that moment begins all the same."""
    suspend = "SELECT agent, suspended_by, end_time FROM broker.suspend_agent($1, 'why', $2)"
    await own_ground.conn.fetch(suspend, AGENT, "first")
    # Stops between the function's two statements: such a trigger fires where nothing is inserted, too.
    await own_ground.conn.execute(
        "CREATE FUNCTION broker.stop() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7, 7); RETURN NULL; END $$;"
        "CREATE TRIGGER stop AFTER INSERT ON broker.agent_suspension"
        " FOR EACH STATEMENT EXECUTE FUNCTION broker.stop()"
    )
    conn = await asyncpg.connect(own_ground.database.dsn("broker_admin"))
    try:
        await own_ground.conn.execute("SELECT pg_advisory_lock(7, 7)")
        second = asyncio.create_task(conn.fetchrow(suspend, AGENT, "second"))

        async def waits() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1"
            return bool(await own_ground.conn.fetchval(waiting, conn.get_server_pid()))

        await eventually(waits)
        assert await own_ground.conn.fetchval("SELECT broker.reinstate_agent($1)", AGENT)
        await own_ground.conn.execute("SELECT pg_advisory_unlock(7, 7)")
        row = await second
    finally:
        await conn.close()

    assert tuple(row) == (AGENT, "second", None)
    assert await own_ground.conn.fetchval("SELECT broker.is_suspended($1)", AGENT)


async def test_each_revocation_is_on_record(own_ground: Ground) -> None:
    """Whoever revokes a grant twice is told two ids, and both name an event; the time is the first one's."""
    case = await own_ground.case()
    ledger = await own_ground.ledger()
    grant = case.grant()
    await ledger.append(grant)
    store = GrantStore(await own_ground.pool())
    ids = EventIds()
    events = [
        Event(
            id=ids.new(), kind=EventKind.REVOKE, outcome="done", trace_id=uuid.uuid4().hex, agent=agent,
            tool="desk", grant_id=grant.grant_id,
        )
        for agent in (case.agent, case.agent, AGENT)
    ]  # fmt: skip
    first, second, strange = [await store.revoke(event) for event in events]

    assert first is not None
    assert (second, strange) == (first, None)
    rows = [await own_ground.event(event.id) for event in events]
    assert [row and (row["kind"], row["grant_id"], row["trace_id"]) for row in rows] == [
        ("revoke", grant.grant_id, events[0].trace_id),
        ("revoke", grant.grant_id, events[1].trace_id),
        None,
    ]
