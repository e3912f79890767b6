"""Nobody changes what is on record; what keeps it from growing shows before it matters."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import asyncpg
import pytest

from broker.errors import LedgerUnavailableError
from broker.ledger import ADMIN_DOOR, append_events
from tests.conftest import LOGIN_ROLES
from tests.ledger.conftest import denial

CHANGES = {
    "update": "UPDATE broker.{table} SET agent = 'nobody' WHERE id = $1",
    "delete": "DELETE FROM broker.{table} WHERE id = $1",
    "truncate": "TRUNCATE broker.{table}",
}


async def partition(ground) -> str:
    """Gives the partition of now."""
    return await ground.conn.fetchval("SELECT broker.partition_name(clock_timestamp())")


@pytest.mark.attack("A20")
class TestAppendOnly:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("role", ["postgres", *LOGIN_ROLES])
    async def test_a20_no_role_changes_an_event(self, own_ground, role, change):
        """UPDATE, DELETE and TRUNCATE fail for every role, the owner and a superuser included."""
        ledger = await own_ground.ledger()
        event = denial()
        await ledger.append(event)
        conn = await asyncpg.connect(own_ground.database.dsn(role))
        try:
            for table in ("ledger_event", await partition(own_ground)):
                sql = CHANGES[change].format(table=table)
                args = [event.id] if "$1" in sql else []
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(sql, *args)
        finally:
            await conn.close()
        assert (await own_ground.event(event.id))["agent"] == event.agent

    async def test_a20_the_trigger_is_what_stops_the_owner(self, own_ground):
        """Control: without the triggers the owner could; so it is they, not chance, that stop the change."""
        ledger = await own_ground.ledger()
        event = denial()
        await ledger.append(event)
        for table in ("ledger_event", await partition(own_ground)):
            await own_ground.conn.execute(f"ALTER TABLE broker.{table} DISABLE TRIGGER USER")
        conn = await asyncpg.connect(own_ground.database.dsn("broker_owner"))
        await conn.execute(CHANGES["delete"].format(table="ledger_event"), event.id)
        await conn.close()

        assert await own_ground.event(event.id) is None

    @pytest.mark.parametrize("role", [role for role in LOGIN_ROLES if role != "broker_owner"])
    async def test_a20_no_login_role_inserts_past_the_doors(self, ground, role):
        """Rows come through the functions alone, which check clock, kind and ground."""
        conn = await asyncpg.connect(ground.database.dsn(role))
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute("INSERT INTO broker.ledger_event (id) VALUES (gen_random_uuid())")
            for table in ("access_grant", "budget_use", "agent_suspension"):
                for verb in (f"DELETE FROM broker.{table}", f"TRUNCATE broker.{table}"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await conn.execute(verb)
        finally:
            await conn.close()

    @pytest.mark.attack("A21")
    async def test_a21_the_auditor_reads_events_and_no_passes(self, ground):
        """The auditor's role reads the ledger, and neither passes nor whose customer is who."""
        conn = await asyncpg.connect(ground.database.dsn("broker_auditor"))
        try:
            await conn.fetch("SELECT * FROM broker.ledger_event LIMIT 1")
            for table in ("access_grant", "ticket_customer", "guard_key", "ticket"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.fetch(f"SELECT * FROM broker.{table}")
        finally:
            await conn.close()


@pytest.mark.attack("A4")
class TestPartitions:
    async def test_a4_missing_ones_stop_appends_and_readiness(self, own_ground):
        """Without this month's partition nothing is taken and readiness says why; made again, it goes on."""
        ledger = await own_ground.ledger()
        await ledger.append(denial())
        assert await ledger.ready() == ""
        name = await partition(own_ground)
        await own_ground.conn.execute(f"ALTER TABLE broker.ledger_event DETACH PARTITION broker.{name}")
        assert "partitions" in await ledger.ready()
        with pytest.raises(LedgerUnavailableError):
            await ledger.append(denial())
        await own_ground.conn.execute(f"ALTER TABLE broker.{name} RENAME TO put_aside")
        await own_ground.conn.execute("SELECT broker.ensure_partitions()")
        assert await ledger.ready() == ""
        await ledger.append(denial())

    async def test_a_missing_one_ahead_shows_before_it_is_needed(self, own_ground):
        """At the end of a month, readiness falls before the first append would."""
        await own_ground.conn.execute(
            "CREATE OR REPLACE FUNCTION broker.partition_name(p_time timestamptz) RETURNS text"
            " LANGUAGE sql STABLE AS $$ SELECT 'ledger_event_' ||"
            " CASE WHEN p_time < clock_timestamp() + interval '1 day' THEN to_char(p_time, 'YYYYMM')"
            " ELSE '209912' END $$"
        )
        ledger = await own_ground.ledger()

        assert "partitions" in await ledger.ready()
        await ledger.append(denial())

    async def test_making_them_waits_for_no_auditor(self, own_ground):
        """A long query of an auditor keeps neither new partitions nor appends waiting."""
        ledger = await own_ground.ledger()
        auditor = await asyncpg.connect(own_ground.database.dsn("broker_auditor"))
        transaction = auditor.transaction()
        await transaction.start()
        await auditor.fetch("SELECT * FROM broker.ledger_event LIMIT 1")
        async with asyncio.timeout(3):
            made = await own_ground.conn.fetchval("SELECT broker.ensure_partitions(4)")
            await ledger.append(denial())
        await transaction.rollback()
        await auditor.close()

        assert made == 2

    async def test_they_follow_one_another_without_a_gap(self, own_ground):
        """Each month ends where the next begins, at midnight UTC, also over the end of a year."""
        await own_ground.conn.execute("SELECT broker.ensure_partitions(14)")
        bounds = await own_ground.conn.fetch(
            "SELECT pg_get_expr(c.relpartbound, c.oid) AS told"
            " FROM pg_class c JOIN pg_inherits i ON inhrelid = c.oid"
            " WHERE inhparent = 'broker.ledger_event'::regclass ORDER BY relname"
        )
        spans = [row["told"].split("'")[1::2] for row in bounds]

        assert len(spans) == 15
        assert all(one[1] == two[0] for one, two in pairwise(spans))
        times = [
            await own_ground.conn.fetchval("SELECT broker.uuid7_time($1::uuid)", span[0]) for span in spans
        ]
        assert {(t.day, t.hour, t.minute, t.second) for t in times} == {(1, 0, 0, 0)}

    async def test_rows_find_theirs(self, own_ground):
        """The default partition does not exist: an id of nowhere is refused, never put somewhere."""
        with pytest.raises(asyncpg.CheckViolationError):
            await own_ground.conn.execute(
                "INSERT INTO broker.ledger_event SELECT gen_random_uuid(), 'denial', now(),"
                " '', '', NULL, '', '', '', 'refused', '', NULL, ''"
            )


class TestDurability:
    async def test_a_role_set_to_lazy_commits_is_overruled(self, own_ground):
        """An answer waits for the disk though somebody set the role to commit asynchronously."""
        await own_ground.conn.execute("ALTER ROLE broker_access SET synchronous_commit = off")
        await own_ground.conn.execute(
            "ALTER ROLE broker_access SET default_transaction_isolation = 'repeatable read'"
        )
        try:
            plain = await asyncpg.connect(own_ground.database.dsn("broker_access"))
            assert await plain.fetchval("SHOW synchronous_commit") == "off"  # control: it does hold elsewhere
            await plain.close()
            pool = await own_ground.pool()
            assert await pool.fetchval("SHOW synchronous_commit") == "on"
            assert await pool.fetchval("SHOW transaction_isolation") == "read committed"
        finally:
            await own_ground.conn.execute("ALTER ROLE broker_access RESET ALL")


@pytest.mark.attack("A16")
async def test_a16_an_act_that_cannot_be_recorded_does_not_happen(own_ground):
    """An administrator's act whose event finds no place is UNAVAILABLE, and undone with it."""
    name = await partition(own_ground)
    pool = await own_ground.pool("broker_admin")
    suspend = "SELECT broker.suspend_agent('https://idp.test|x', 'why', 'who')"

    async def act() -> None:
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute(suspend)
            await append_events(conn, [denial()], door=ADMIN_DOOR)

    await act()  # control
    await own_ground.conn.execute("DELETE FROM broker.agent_suspension")
    await own_ground.conn.execute(f"ALTER TABLE broker.ledger_event DETACH PARTITION broker.{name}")
    with pytest.raises(LedgerUnavailableError):
        await act()
    assert await own_ground.conn.fetchval("SELECT count(*) FROM broker.agent_suspension") == 0


async def test_purge_is_bounded_and_forgets_only_what_has_ended(own_ground):
    """One call forgets at most so many rows, never a grant that lives or a budget row that still counts."""
    case = await own_ground.case()
    ledger = await own_ground.ledger()
    grants = [case.grant() for _ in range(5)]
    for grant in grants:
        await ledger.append(grant)
    await ledger.append(case.read(grants[0]))
    await case.sql(
        "UPDATE broker.access_grant SET expire_time = now() - interval '8 days' WHERE grant_id <> $1",
        grants[0].grant_id,
    )
    rounds = [await own_ground.conn.fetchval("SELECT broker.purge(3)") for _ in range(3)]

    assert rounds == [3, 1, 0]
    assert await own_ground.conn.fetchval("SELECT count(*) FROM broker.access_grant") == 1
    assert await own_ground.conn.fetchval("SELECT count(*) FROM broker.budget_use") == 1
