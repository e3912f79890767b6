"""What an agent has to do with a ticket: the facts, who may see them, and what the lookup costs."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

import asyncpg
import pytest

from broker.dev.helpdesk import assignment
from broker.errors import DatabaseUnavailableError, RequestMalformedError
from broker.model import OpenedBy, Presence, Provenance, Relation, TicketStatus
from tests.tickets.conftest import ALICE, BOB, CAROL, World


class TestFacts:
    @pytest.mark.parametrize(
        ("assigned_by", "expected"),
        [
            ("queue", Provenance.ROUTED),
            ("import", Provenance.IMPORTED),
            (BOB, Provenance.PEER),
            (CAROL, Provenance.PEER),  # the same subject at another issuer is not Alice
            (ALICE, Provenance.SELF),
        ],
    )
    @pytest.mark.attack("K3")
    async def test_provenance(self, world, assigned_by, expected):
        """Who assigned is a fact, seen from the agent who asks: assigning oneself shows."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE, assigned_by=assigned_by))

        assert expected is (await world.ground("T-1")).ground.provenance

    @pytest.mark.parametrize(
        ("opened_by", "expected"),
        [
            ("customer", OpenedBy.CUSTOMER),
            ("system", OpenedBy.SYSTEM),
            ("import", OpenedBy.IMPORTED),
            (BOB, OpenedBy.PEER),
            (ALICE, OpenedBy.SELF),
        ],
    )
    async def test_opened_by(self, world, opened_by, expected):
        """Who opened the ticket is a fact, seen from the agent who asks."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE, opened_by=opened_by))

        assert expected is (await world.ground("T-1")).ground.opened_by

    async def test_two_agents(self, world):
        """Each agent of a ticket sees it from his own side."""
        await world.send(
            world.helpdesk.open("T-1", customers=["7"], opened_by=BOB),
            world.helpdesk.assign("T-1", assignment(ALICE, BOB), assignment(BOB, BOB, "collaborator")),
        )
        alice, bob = (await world.ground("T-1", ALICE)).ground, (await world.ground("T-1", BOB)).ground

        assert alice.provenance is Provenance.PEER
        assert alice.opened_by is OpenedBy.PEER
        assert bob.relation is Relation.COLLABORATOR
        assert bob.provenance is Provenance.SELF
        assert bob.opened_by is OpenedBy.SELF

    async def test_taken_over_from_oneself(self, world):
        """Provenance is that of the live assignment: what somebody else confirms is no longer one's own."""
        await world.send(
            world.helpdesk.open("T-1", customers=["7"], assignee=ALICE, assigned_by=ALICE),
            world.helpdesk.reassign("T-1", ALICE, "queue"),
        )

        assert (await world.ground("T-1")).ground.provenance is Provenance.ROUTED

    async def test_kind_unknown_to_any_catalog(self, world):
        """A kind that no catalog knows is given as it is; no rule names it."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], kind="lunch", assignee=ALICE))

        assert (await world.ground("T-1")).ground.kind == "lunch"

    @pytest.mark.attack("K5")
    async def test_customers(self, world):
        """The linked customers are given, and no other, so that one who is not linked can be refused."""
        await world.send(
            world.helpdesk.open("T-1", customers=["8", "7"], assignee=ALICE),
            world.helpdesk.open("T-2", customers=["9"], assignee=ALICE),
        )

        assert (await world.ground("T-1")).ground.customers == ("7", "8")


class TestPresence:
    async def opened(self, world: World) -> None:
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))

    async def test_absent(self, world):
        """Nobody is present because a ticket is open."""
        await self.opened(world)

        assert (await world.ground("T-1")).presence is Presence.ABSENT

    async def test_call(self, world):
        """A call is presence for 30 minutes, or until it ends."""
        await self.opened(world)
        await world.send(world.helpdesk.call_started("T-1"))
        await world.later(29 * 60)
        assert (await world.ground("T-1")).presence is Presence.PRESENT
        await world.later(61)
        assert (await world.ground("T-1")).presence is Presence.ABSENT

        await world.send(world.helpdesk.call_started("T-1", "system"))
        assert (await world.ground("T-1")).present
        await world.send(world.helpdesk.call_ended("T-1", "system"))
        assert not (await world.ground("T-1")).present

    async def test_reply(self, world):
        """A customer's reply is presence for 15 minutes; an agent's is none."""
        await self.opened(world)
        await world.send(world.helpdesk.reply("T-1", ALICE), world.helpdesk.note("T-1", ALICE))
        assert not (await world.ground("T-1")).present

        await world.send(world.helpdesk.reply("T-1"))
        await world.later(14 * 60)
        assert (await world.ground("T-1")).present
        await world.later(61)
        assert not (await world.ground("T-1")).present

    async def test_own_word(self, world):
        """An agent who merely says that he is on the phone makes nobody present."""
        await self.opened(world)
        await world.send(world.helpdesk.call_started("T-1", ALICE))

        assert not (await world.ground("T-1")).present

    async def test_reply_within_a_call(self, world):
        """A reply during a call does not shorten the presence that the call gives."""
        await self.opened(world)
        await world.send(world.helpdesk.call_started("T-1"), world.helpdesk.reply("T-1"))
        await world.later(20 * 60)

        assert (await world.ground("T-1")).present

    async def test_old_work(self, world):
        """Work of an hour ago that is told now makes nobody present."""
        await self.opened(world)
        world.clock.ahead = -3600
        await world.send(world.helpdesk.call_started("T-1"))

        assert not (await world.ground("T-1")).present


class TestOthersTickets:
    @pytest.mark.attack("K1", "E2")
    async def test_alike(self, world):
        """Another's open, closed and deleted ticket look like one that does not exist."""
        for name in ("open", "closed", "deleted"):
            await world.send(
                world.helpdesk.open(f"T-{name}", customers=["7"], assignee=BOB),
                world.helpdesk.reply(f"T-{name}"),
            )
        await world.send(
            world.helpdesk.set_status("T-closed", "closed"), world.helpdesk.set_status("T-deleted", "deleted")
        )
        await world.beat()
        async with world.access_pool.acquire() as conn:
            rows = [
                tuple(await conn.fetchrow("SELECT * FROM broker.ground($1, $2)", f"T-{name}", ALICE.key))
                for name in ("open", "closed", "deleted", "unknown")
            ]
            # (control: their assignee sees a difference)
            own = await conn.fetchrow("SELECT * FROM broker.ground('T-open', $1)", BOB.key)

        assert len(set(map(str, rows))) == 1
        assert str(tuple(own)) != str(rows[0])
        assert (await world.ground("T-open")).ground.relation is Relation.NONE

    async def test_suspended(self, world):
        """A suspended agent is told of no ticket, their own ones included; reinstated, they are again."""
        await world.send(world.helpdesk.open("T-own", customers=["7"], assignee=ALICE))
        await world.beat()
        await world.admin.execute(
            "INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES ($1, 'r', 'b')",
            ALICE.key,
        )
        try:
            own, unknown = await world.ground("T-own"), await world.ground("T-unknown")
        finally:
            await world.admin.execute("DELETE FROM broker.agent_suspension")

        assert own.suspended
        assert replace(own.ground, ticket_id="") == replace(unknown.ground, ticket_id="")
        assert own.ground.relation is Relation.NONE
        later = await world.ground("T-own")
        assert (later.suspended, later.ground.relation) == (False, Relation.ASSIGNEE)

    async def test_a_refusal_of_their_own(self, world):
        """Whoever asked together and got no answer each get a refusal of their own, by its own id."""
        await world.access_pool.close()
        asked = [world.ground("T-1"), world.ground("T-1", BOB), world.ground("T-2")]
        refused = await asyncio.gather(*asked, return_exceptions=True)

        assert {type(error) for error in refused} == {DatabaseUnavailableError}
        assert len({id(error) for error in refused}) == 3

    @pytest.mark.attack("K1")
    async def test_closed(self, world):
        """Of a closed ticket its last assignee learns that it is closed, and nothing else; others nothing."""
        await world.send(
            world.helpdesk.open("T-1", customers=["7"], assignee=CAROL),
            world.helpdesk.assign("T-1", assignment(ALICE), assignment(BOB, "queue", "supervisor")),
            world.helpdesk.close("T-1"),
        )
        alice, bob, carol = [await world.ground("T-1", agent) for agent in (ALICE, BOB, CAROL)]

        assert alice.was_last_assignee
        assert (alice.ground.status, alice.ground.customers) == (TicketStatus.CLOSED, ())
        assert alice.ground.relation is Relation.NONE
        assert not bob.was_last_assignee
        assert not carol.was_last_assignee
        assert bob.ground.status is carol.ground.status is TicketStatus.DELETED

    async def test_closed_after_it_was_taken_away(self, world):
        """The last assignee may learn it also where the helpdesk took the ticket away before it closed it."""
        await world.send(
            world.helpdesk.open("T-1", customers=["7"], assignee=ALICE), world.helpdesk.assign("T-1")
        )
        assert not (await world.ground("T-1")).was_last_assignee

        await world.send(world.helpdesk.close("T-1"))

        assert (await world.ground("T-1")).was_last_assignee
        assert not (await world.ground("T-1", BOB)).was_last_assignee

    @pytest.mark.attack("K2")
    async def test_reassigned(self, world):
        """The first lookup after a reassignment has committed finds no relation, on every connection."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))
        before = await asyncio.gather(*(world.ground("T-1") for _ in range(8)))
        assert {Relation.ASSIGNEE} == {standing.ground.relation for standing in before}

        await world.send(world.helpdesk.reassign("T-1", BOB))

        after = await asyncio.gather(*(world.ground("T-1") for _ in range(8)))
        assert {Relation.NONE} == {standing.ground.relation for standing in after}

    @pytest.mark.attack("B7", "S1", "S9")
    @pytest.mark.parametrize(
        "ticket_id",
        ["", " T-1", "T-1 ", "T\n", "T-1\0", "T\u200b-1", "\u0422-1", "T' OR 1=1--", "T" * 2**20, "T\ud800"],
    )
    async def test_malformed_id(self, world, ticket_id):
        """What cannot be a ticket's id is refused before the database is asked."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))

        with pytest.raises(RequestMalformedError):
            await world.ground(ticket_id)

        assert (await world.ground("T-1")).ground.relation is Relation.ASSIGNEE


class TestList:
    async def test_pages(self, world):
        """Pages hold every open ticket once, newest first, and end."""
        await world.send(
            *(world.helpdesk.open(f"T-{n}", customers=["7"], assignee=ALICE) for n in range(7)),
            world.helpdesk.open("T-bob", customers=["7"], assignee=BOB),
            world.helpdesk.open("T-closed", customers=["7"], assignee=ALICE),
            world.helpdesk.close("T-closed"),
        )
        seen, token, tokens = [], "", []
        for _ in range(4):
            page = await world.listed(page_size=3, page_token=token)
            seen += [ticket.ticket_id for ticket in page.tickets]
            if not (token := page.next_page_token):
                break
            tokens.append(token)

        assert [f"T-{n}" for n in reversed(range(7))] == seen
        assert len(tokens) == 2

    @pytest.mark.attack("R2")
    async def test_reassigned_between_pages(self, world):
        """A ticket that was reassigned after the first page is not on the second."""
        await world.send(*(world.helpdesk.open(f"T-{n}", customers=["7"], assignee=ALICE) for n in range(4)))
        page = await world.listed(page_size=2)
        await world.send(world.helpdesk.reassign("T-0", BOB))

        rest = await world.listed(page_size=2, page_token=page.next_page_token)

        assert [ticket.ticket_id for ticket in rest.tickets] == ["T-1"]

    @pytest.mark.attack("E5")
    async def test_token(self, world):
        """A page token has one length and holds the last ticket shown, nothing of what is hidden."""
        names = ["T", "T" * 64, "T-22", "T-333"]
        await world.send(*(world.helpdesk.open(name, customers=["7"], assignee=ALICE) for name in names))
        pages = [await world.listed(page_size=size) for size in (1, 2, 3)]

        assert {96} == {len(page.next_page_token) for page in pages}
        for page in pages:
            held = base64.urlsafe_b64decode(page.next_page_token)[8:].rstrip(b"\0").decode()
            assert held == page.tickets[-1].ticket_id

    async def test_another_agents_token(self, world):
        """Somebody else's token is a position and opens nothing."""
        await world.send(
            *(world.helpdesk.open(f"T-{n}", customers=["7"], assignee=ALICE) for n in range(3)),
        )
        token = (await world.listed(page_size=1)).next_page_token

        assert (await world.listed(BOB, page_token=token)).tickets == ()

    @pytest.mark.parametrize(
        "token",
        [
            "x",
            "A" * 96,
            "/" * 96,
            "=" * 96,
            "A" * 2**20,
            "é" * 96,
            base64.urlsafe_b64encode(b"\x7f" + b"\xff" * 7 + b"T-1".ljust(64, b"\0")).decode(),
            base64.urlsafe_b64encode(b"\0" * 8 + b"T'--".ljust(64, b"\0")).decode(),
        ],
    )
    async def test_malformed_token(self, world, token):
        """A token that was not made here is refused."""
        with pytest.raises(RequestMalformedError) as caught:
            await world.listed(page_token=token)

        assert caught.value.field == "page_token"

    @pytest.mark.attack("B6")
    async def test_page_size(self, world):
        """A negative size is refused, a huge one cut to 100, none means 50."""
        names = [f"T-{n}" for n in range(101)]
        await world.send(*(world.helpdesk.open(name, customers=["7"], assignee=ALICE) for name in names))

        with pytest.raises(RequestMalformedError):
            await world.listed(page_size=-1)
        assert len((await world.listed(page_size=2**31 - 1)).tickets) == 100
        assert len((await world.listed()).tickets) == 50


async def pages_touched(conn: asyncpg.Connection, statement: str, *args: object) -> int:
    """Counts the database pages that a statement looks at, those of functions within it included."""
    plan = json.loads(await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *args))
    top = plan[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


class TestCost:
    """P9, E1: neither the number of tickets nor that of assignments shows, nor whose a ticket is."""

    STATEMENTS = (
        ("SELECT * FROM broker.ground('T-1', $1)", ALICE),
        ("SELECT * FROM broker.ground('S-unknown', $1)", ALICE),
        ("SELECT * FROM broker.ground('S-5', $1)", BOB),
        ("SELECT * FROM broker.list_assigned($1, 51, NULL, NULL)", ALICE),
        ("SELECT * FROM broker.list_assigned($1, 51, '2030-01-01', 'S-5')", ALICE),
    )
    SEED = """
        WITH t AS (
            INSERT INTO broker.ticket
                (ticket_id, feed_id, version, content_hash, status, kind, opened_by)
            SELECT 'S-' || n, 'helpdesk', 1, '', 'open', 'billing', 'customer'
            FROM generate_series($1::int, $2::int) AS n RETURNING ticket_id
        ), c AS (
            INSERT INTO broker.ticket_customer SELECT ticket_id, ticket_id FROM t
        )
        INSERT INTO broker.assignment
            (ticket_id, agent, relation, assigned_by, version, ticket_live, start_time)
        -- half of them Alice's, the others of an agent each
        SELECT t.ticket_id, CASE WHEN random() < 0.5 THEN $3 ELSE 'i|' || t.ticket_id END, 'assignee',
            'queue', 1, true, clock_timestamp()
        FROM t
    """

    async def test_flat(self, world):
        """Lookups touch as few pages with 20,000 tickets as with 200, also by plans made when empty."""
        await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))
        async with world.access_pool.acquire() as conn:

            async def costs() -> list[int]:
                for sql, agent in self.STATEMENTS:  # what planning looks up is not counted
                    await conn.fetch(sql, agent.key)
                return [await pages_touched(conn, sql, agent.key) for sql, agent in self.STATEMENTS]

            await costs()
            await self.seed(world, 1, 200)
            few = await costs()
            await self.seed(world, 201, 20_000)
            many = await costs()
            await world.admin.execute("ANALYZE")
            known = await costs()

        for before, after, later in zip(few, many, known, strict=True):
            # One level more in an index, for each of 51 rows.
            assert max(after, later) <= before + 60, (few, many, known)
        # What is not the agent's costs what an unknown ticket costs (E1); his own costs more.
        own, unknown, others, *_ = known
        assert unknown == others < own

    async def seed(self, world: World, first: int, last: int) -> None:
        await world.admin.execute("SET session_replication_role = replica")  # no foreign keys between CTEs
        await world.admin.execute(self.SEED, first, last, ALICE.key)
        await world.admin.execute("SET session_replication_role = origin")

    async def test_plans(self, world):
        """No plan within the lookups reads a table from end to end, before and after statistics exist."""
        await self.seed(world, 1, 20_000)
        plans: list[str] = []
        world.admin.add_log_listener(lambda _conn, message: plans.append(message.message))
        await world.admin.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET client_min_messages = log;"
            "SET auto_explain.log_nested_statements = on"
        )
        for analyzed in (False, True):
            if analyzed:
                await world.admin.execute("ANALYZE")
            for sql, agent in self.STATEMENTS:
                await world.admin.fetch(sql, agent.key)
        # (control: a lookup without an index is noticed)
        await world.admin.fetch("SELECT count(*) FROM broker.ticket WHERE content_hash = 'x'")
        await asyncio.sleep(0)  # listeners are called by the loop

        *lookups, control = [plan for plan in plans if "Function Scan" not in plan and "broker" in plan]
        assert len(lookups) >= 2 * len(self.STATEMENTS)
        assert "Seq Scan" in control
        assert [plan for plan in lookups if "Seq Scan" in plan] == []
