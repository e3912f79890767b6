"""Every ground for a refusal, one by one: an append looks at it, and without it accepts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from broker.database import queries
from broker.errors import LedgerUnavailableError
from broker.ledger import GrantAppend
from broker.ledger.writer import grant_values, read_values
from tests.ledger.conftest import IDS, Case, Ground, denial
from tests.rpc.company import eventually
from tests.tickets.test_ground import pages_touched


async def revoked(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.access_grant SET revoke_time = now() WHERE agent = $1", case.agent)


async def expired(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.access_grant SET expire_time = now() WHERE agent = $1", case.agent)


async def suspended(case: Case, ground: Ground) -> None:
    await case.sql(
        "INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES ($1, 'r', 'b')", case.agent
    )


async def reassigned(case: Case, ground: Ground) -> None:
    await case.sql(
        "UPDATE broker.assignment SET end_time = clock_timestamp() WHERE ticket_id = $1", case.ticket
    )


async def taken_by_another(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.assignment SET agent = agent || '-2' WHERE ticket_id = $1", case.ticket)


async def closed(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.ticket SET status = 'closed' WHERE ticket_id = $1", case.ticket)


async def deleted(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.ticket SET status = 'deleted' WHERE ticket_id = $1", case.ticket)


async def unlinked(case: Case, ground: Ground) -> None:
    await case.sql("DELETE FROM broker.ticket_customer WHERE ticket_id = $1", case.ticket)


async def merged(case: Case, ground: Ground) -> None:
    await case.sql(
        "UPDATE broker.ticket_customer SET customer_id = 'C-other' WHERE ticket_id = $1", case.ticket
    )


async def stale_feed(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.feed SET stale_time = clock_timestamp() WHERE feed_id = $1", case.feed)


async def new_policy(case: Case, ground: Ground) -> None:
    await ground.activate()


async def new_facts(case: Case, ground: Ground) -> None:
    await case.sql(
        "UPDATE broker.ticket SET facts_version = nextval('broker.facts_version') WHERE ticket_id = $1",
        case.ticket,
    )


async def present_now(case: Case, ground: Ground) -> None:
    await case.sql(
        "UPDATE broker.ticket SET present_until = now() + interval '1 minute' WHERE ticket_id = $1",
        case.ticket,
    )


async def pending(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.ticket SET status = 'pending' WHERE ticket_id = $1", case.ticket)


async def reinstated(case: Case, ground: Ground) -> None:
    await suspended(case, ground)
    await case.sql("UPDATE broker.agent_suspension SET end_time = now() WHERE agent = $1", case.agent)


async def another_suspended(case: Case, ground: Ground) -> None:
    await case.sql(
        "INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES ($1 || '2', 'r', 'b')",
        case.agent,
    )


async def presence_long_over(case: Case, ground: Ground) -> None:
    await case.sql("UPDATE broker.ticket SET present_until = now() WHERE ticket_id = $1", case.ticket)


TURNS = [
    (reassigned, "TICKET_DENIED"),
    (taken_by_another, "TICKET_DENIED"),
    (unlinked, "TICKET_DENIED"),
    (merged, "TICKET_DENIED"),
    (closed, "TICKET_CLOSED"),
    (deleted, "TICKET_CLOSED"),
    (suspended, "AGENT_SUSPENDED"),
    (stale_feed, "FEED_STALE"),
    (new_policy, "POLICY_STALE"),
    (new_facts, "FACTS_STALE"),
    (present_now, "FACTS_STALE"),
    # Controls: what looks like one of them and is none.
    (pending, ""),
    (reinstated, ""),
    (another_suspended, ""),
    (presence_long_over, ""),
]
OF_GRANTS = [(revoked, "TOKEN_INVALID"), (expired, "TOKEN_INVALID")]
NAMES = [turn.__name__ for turn, _ in TURNS]


@pytest.mark.attack("R13", "K2", "K4", "J26")
class TestRead:
    @pytest.mark.parametrize(("turn", "reason"), TURNS + OF_GRANTS, ids=[*NAMES, "revoked", "expired"])
    async def test_r13_the_append_looks_again(self, ground, turn, reason):
        """A read is accepted until one fact turns, then refused for that very reason, on the next append."""
        case = await ground.case()
        ledger = await ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        assert (await ledger.append(case.read(grant))).reason == ""
        await turn(case, ground)
        read = case.read(grant)
        verdict = await ledger.append(read)

        assert verdict.reason == reason
        stored = await ground.event(read.id)
        if reason in {"POLICY_STALE", "FACTS_STALE"}:
            assert stored is None  # to be decided again, nothing happened yet
            assert verdict.receipt is None
        else:
            assert stored["outcome"] == ("refused" if reason else "released")

    async def test_another_agents_grant(self, ground):
        """A grant is good for its agent alone, whatever else they share."""
        one = await ground.case()
        two = await ground.case()
        ledger = await ground.ledger()
        grant = one.grant()
        await ledger.append(grant)

        assert (await ledger.append(replace(one.read(grant), agent=two.agent))).reason == "TOKEN_INVALID"
        assert (await ledger.append(one.read(grant))).reason == ""

    async def test_presence_that_ends(self, ground):
        """A decision that counted on the customer's presence is taken again once it is over."""
        case = await ground.case()
        ledger = await ground.ledger()
        await present_now(case, ground)
        grant = case.grant(present=True)
        await ledger.append(grant)
        assert (await ledger.append(case.read(grant, present=True))).reason == ""
        await presence_long_over(case, ground)

        assert (await ledger.append(case.read(grant, present=True))).reason == "FACTS_STALE"

    async def test_each_of_a_group_has_its_own(self, ground):
        """In one commit some are accepted and others refused, each for its own reason."""
        ledger = await ground.ledger()
        cases = [await ground.case() for _ in range(5)]
        grants = [case.grant() for case in cases]
        for grant in grants:
            await ledger.append(grant)
        for case, turn in zip(cases, (pending, closed, reassigned, suspended, stale_feed), strict=True):
            await turn(case, ground)
        reads = [case.read(grant) for case, grant in zip(cases, grants, strict=True)]
        verdicts = await ledger._commit(reads)

        assert [v.reason for v in verdicts] == [
            "", "TICKET_CLOSED", "TICKET_DENIED", "AGENT_SUSPENDED", "FEED_STALE",
        ]  # fmt: skip
        for read, verdict in zip(reads, verdicts, strict=True):
            assert verdict.receipt.leaf.startswith(read.head)


@pytest.mark.attack("R7")
class TestGrant:
    @pytest.mark.parametrize(("turn", "reason"), TURNS, ids=NAMES)
    async def test_r7_the_append_looks_again(self, ground, turn, reason):
        """A grant is made until one fact turns, then refused for that very reason, and has no pass."""
        case = await ground.case()
        ledger = await ground.ledger()
        made = await ledger.append(case.grant())
        assert (made.reason, made.row["pass"].count("|")) == ("", 5)
        await turn(case, ground)
        grant = case.grant()
        verdict = await ledger.append(grant)

        assert verdict.reason == reason
        assert bool(verdict.row["pass"]) == (reason == "")
        row = await ground.conn.fetchrow(
            "SELECT * FROM broker.access_grant WHERE grant_id = $1", grant.grant_id
        )
        assert (row is None) == bool(reason)

    async def test_a_customer_of_another_ticket(self, ground):
        """A grant cannot name somebody whom its ticket does not link."""
        case, other = await ground.case(), await ground.case()
        ledger = await ground.ledger()

        assert (await ledger.append(case.grant(customer_id=other.customer))).reason == "TICKET_DENIED"
        assert (await ledger.append(case.grant())).reason == ""


class TestCost:
    """P9: a ground is one row a table, however many tickets an agent has and whatever the planner knows."""

    SEED = """
        WITH t AS (
            INSERT INTO broker.ticket
                (ticket_id, feed_id, version, content_hash, status, kind, opened_by)
            SELECT $1 || n, $2, 1, '', 'open', 'general', 'customer'
            FROM generate_series(1, 2000) AS n RETURNING ticket_id
        )
        INSERT INTO broker.assignment
            (ticket_id, agent, relation, assigned_by, version, ticket_live, start_time)
        SELECT
            t.ticket_id, CASE WHEN t.ticket_id LIKE '%0' THEN $3 ELSE 'another' END, 'assignee', 'queue',
            1, true, clock_timestamp()
        FROM t
    """
    AS_IN_AN_APPEND = """
        SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;
        SET enable_hashjoin = off; SET enable_mergejoin = off;
        PREPARE ground (uuid, text, bigint, boolean, bigint, timestamptz) AS
        SELECT * FROM broker.read_ground($1, $2, $3, $4, $5, $6);
        PREPARE status (uuid, text) AS SELECT * FROM broker.grant_status($1, $2)
    """

    async def pages(self, case: Case, grant: GrantAppend, ground: Ground) -> list[int]:
        """Counts the pages that the ground of a read and a look at a grant's status touch, planned anew."""
        conn = await asyncpg.connect(ground.database.dsn())
        try:
            await conn.execute(self.AS_IN_AN_APPEND)
            return [
                await pages_touched(conn, f"EXECUTE {call}")
                for call in (
                    f"ground('{grant.grant_id}', '{case.agent}', 1, false, 1, now())",
                    f"status('{grant.grant_id}', '{case.agent}')",
                )
            ]
        finally:
            await conn.close()

    async def test_p9_many_tickets_assigned(self, own_ground):
        """With two hundred tickets among two thousand, on tables that were never analysed, as with one."""
        case = await own_ground.case()
        ledger = await own_ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        one = await self.pages(case, grant, own_ground)
        await case.sql(self.SEED, f"{case.ticket}-", case.feed, case.agent)
        await case.sql("VACUUM")  # which counts pages and rows, and nothing that is in them
        many = await self.pages(case, grant, own_ground)

        assert all(after <= before + 20 for before, after in zip(one, many, strict=True)), (one, many)


class TestSizes:
    """Whoever appends may be taken over: what no index holds or no answer carries does not come in."""

    @pytest.mark.parametrize(
        "change",
        [
            {"tool": "t" * 2401},
            {"agent": "ä" * 1201},
            {"trace_id": "0" * 65},
            {"detail": {"told": "x" * 262_144}},
        ],
        ids=["tool", "agent", "trace", "leaf"],
    )
    async def test_too_large(self, ground, change):
        """Such an event is refused, and so alone: its neighbours in the group are stored."""
        ledger = await ground.ledger()
        good, bad = denial(id=IDS.new()), denial(id=IDS.new(), **change)
        stored, refused = await asyncio.gather(
            ledger.append(good), ledger.append(bad), return_exceptions=True
        )

        assert stored.reason == ""
        assert isinstance(refused, LedgerUnavailableError)
        assert await ground.event(good.id) is not None
        assert await ground.event(bad.id) is None

    async def test_too_large_a_read(self, ground):
        """A read with a head that no answer could carry is refused, nothing is released on it."""
        case = await ground.case()
        ledger = await ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        with pytest.raises(LedgerUnavailableError):
            await ledger.append(case.read(grant, head=b"{" + b" " * 262_144))


class TestErasing:
    """A person is erased while a grant on their ticket is being made: nothing of them stays behind."""

    ERASE = "SELECT grants FROM broker.erase_customer($1)"

    async def test_the_grant_was_first(self, own_ground):
        """Stored, and not committed yet: the erasure waits, and takes it with it."""
        case = await own_ground.case()
        pool = await own_ground.pool()
        eraser = await asyncpg.connect(own_ground.database.dsn())
        async with pool.acquire() as conn, conn.transaction():
            [made] = await conn.fetch(queries("ledger").create_grant, *grant_values(case.grant()))
            erasing = asyncio.create_task(eraser.fetchval(self.ERASE, case.customer))
            await eventually(lambda: _waits(case.conn, eraser.get_server_pid()))

        assert made["reason"] == ""
        assert await erasing == 1
        assert await self.left(case) == 0
        await eraser.close()

    async def test_the_erasure_was_first(self, own_ground):
        """Not committed yet: the grant waits, and then finds that the ticket is nobody's any more."""
        case = await own_ground.case()
        ledger = await own_ground.ledger()
        eraser = await asyncpg.connect(own_ground.database.dsn())
        async with eraser.transaction():
            await eraser.execute("SELECT * FROM broker.erase_customer($1)", case.customer)
            append = asyncio.create_task(ledger.append(case.grant()))
            await eventually(lambda: _waits(case.conn))
        first = await append
        await case.load()
        again = await ledger.append(case.grant())

        assert [first.reason, again.reason] == ["FACTS_STALE", "TICKET_DENIED"]
        assert await self.left(case) == 0
        await eraser.close()

    async def left(self, case: Case) -> int:
        """Counts the rows of grants that hold the customer's key."""
        query = "SELECT count(*) FROM broker.access_grant WHERE customer_id = $1"
        return int(await case.conn.fetchval(query, case.customer))


async def _waits(conn: asyncpg.Connection, pid: int | None = None) -> bool:
    """Says whether somebody, or this backend, waits for an advisory lock."""
    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    found = {row["pid"] for row in await conn.fetch(waiting)}
    return bool(found) if pid is None else pid in found


async def test_an_append_has_its_number_before_it_waits(own_ground):
    """A walker that finds no older transaction under way has seen every event of an older id (120)."""
    case = await own_ground.case()
    ledger = await own_ground.ledger()
    grant = case.grant()
    await ledger.append(grant)
    await case.sql("DELETE FROM broker.budget_use")  # so that the read must charge, behind the lock
    pool = await own_ground.pool()
    locker = await asyncpg.connect(own_ground.database.dsn())
    async with pool.acquire() as reader:
        await locker.execute("BEGIN")
        await locker.execute("SELECT broker.lock_budget($1)", case.agent)
        call = "SELECT * FROM broker.append_read" + _numbered(11)
        reading = asyncio.create_task(reader.fetch(call, *read_values(case.read(grant))))
        waiting: list[asyncpg.Record] = []

        async def waits() -> bool:
            waiting[:] = await case.conn.fetch(
                "SELECT backend_xid IS NOT NULL AS numbered FROM pg_stat_activity"
                " WHERE pid = $1 AND wait_event_type = 'Lock'",
                reader.get_server_pid(),
            )
            return bool(waiting)

        try:
            await eventually(waits)
        finally:
            await locker.close()
        [row] = await reading

    assert waiting[0]["numbered"]
    assert row["reason"] == ""


def _numbered(count: int) -> str:
    return f"({', '.join(f'${number}' for number in range(1, count + 1))})"
