"""Every ground for a refusal, one by one: an append looks at it, and without it accepts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ledger.conftest import Case, Ground


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
