"""Who could have read a customer at a time: what the broker knew then, and nothing that it learnt later."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from broker.audit import access_at as access_module
from broker.audit.access_at import BEFORE_HISTORY, access_at
from broker.audit.matching import IdentifiersUsedUpError
from broker.audit.record import put_on_record
from tests.audit.privacy import ANNA, BEN, BY, CARL, CUSTOMER, desk_of, routed


@pytest.fixture
async def desk(audited):
    """Gives a helpdesk that is connected."""
    async with desk_of(audited) as desk:
        yield desk


async def seen(desk, agent, groups, at):
    """Puts a decision on record in which the agent's token named groups."""
    await desk.audited.put(
        kind="denial", outcome="refused", agent=agent, at=at, detail={"groups": groups, "roles": []}
    )


async def ask(desk, at, customer=CUSTOMER):
    """Asks as an auditor."""
    return await access_at(desk.audited.pool, desk.audited.pool, desk.ids, BY, customer, at)


def agents(answer):
    """Gives who could, is not known, and could not."""
    return {(one.agent, one.ticket_id): one.could for one in answer.could}


async def test_follows_links_states_and_assignments_through_time(desk):
    """Opened, given to another, closed, opened again, customer taken off: each time as it was then."""
    await desk.pseudonym()
    await seen(desk, ANNA, ["support-tier1"], await desk.now() - timedelta(seconds=2))
    await seen(desk, BEN, ["support-tier1"], await desk.now() - timedelta(seconds=2))
    times = [await desk.now()]
    await desk.open("T-1", ANNA)
    times.append(await desk.now())
    await desk.tell("T-1", 2, assignments=[routed(BEN)])
    times.append(await desk.now())
    await desk.tell("T-1", 3, status="closed")
    times.append(await desk.now())
    await desk.tell("T-1", 4, status="open", assignments=[routed(BEN), routed(CARL, "supervisor")])
    times.append(await desk.now())
    await desk.tell("T-1", 5, kind="general", opened_by="customer", opened_by_agent=None, customers=["K-2"])
    times.append(await desk.now())

    found = [agents(await ask(desk, at)) for at in times]
    assert found == [
        {},
        {(ANNA, "T-1"): True},
        {(BEN, "T-1"): True},
        {},
        {(BEN, "T-1"): True, (CARL, "T-1"): None},
        {},
    ]


async def test_decides_by_the_policy_and_the_roles_of_then(desk):
    """Roles come from the last token before, with its date; present or absent is said both ways."""
    await desk.pseudonym()
    early = await desk.now() - timedelta(seconds=30)
    await seen(desk, ANNA, ["support-tier1"], early)
    await desk.open("T-1", ANNA)
    at = await desk.now()
    await seen(desk, ANNA, [], await desk.now() + timedelta(seconds=5))

    [one] = (await ask(desk, at)).could
    assert one.groups_time == early
    assert one.roles == ("tier1",)
    assert (one.relation, one.provenance, one.opened_by) == ("assignee", "routed", "customer")
    assert "clear" in one.present["resolve-ticket"].values()
    assert one.absent["resolve-ticket"].keys() <= one.present["resolve-ticket"].keys()
    [later] = (await ask(desk, at + timedelta(seconds=30))).could
    assert later.could is False


async def test_words_that_are_no_groups_are_passed_over(desk):
    """A leaf says what a worker wrote: the token before it tells the roles, and no answer fails."""
    await desk.pseudonym()
    early = await desk.now() - timedelta(seconds=50)
    await seen(desk, ANNA, ["support-tier1"], early)
    for second, groups in enumerate((5, "support-tier1", {"a": 1}, [1], [["x"]], [None], None)):
        await seen(desk, ANNA, groups, early + timedelta(seconds=second + 1))
    await seen(desk, BEN, 5, early)
    await desk.open("T-1", ANNA, BEN)

    one, other = (await ask(desk, await desk.now())).could
    assert (one.groups_time, one.roles, one.could) == (early, ("tier1",), True)
    assert (other.groups_time, other.could) == (None, None)


async def test_a_token_is_looked_for_among_the_last_events(desk, monkeypatch):
    """However long an agent's history without groups: what lies behind so many events is not known."""
    monkeypatch.setattr("broker.audit.access_at.LOOKED_BACK", 5)
    await desk.pseudonym()
    early = await desk.now() - timedelta(seconds=50)
    await seen(desk, ANNA, ["support-tier1"], early)
    for second in range(1, 5):
        await desk.audited.put(
            kind="outcome", outcome="done", agent=ANNA, at=early + timedelta(seconds=second)
        )
    await desk.open("T-1", ANNA)
    known = [one.could for one in (await ask(desk, await desk.now())).could]
    await desk.audited.put(kind="outcome", outcome="done", agent=ANNA, at=early + timedelta(seconds=6))

    assert known == [True]
    assert [one.could for one in (await ask(desk, await desk.now())).could] == [None]


async def test_an_index_that_takes_its_time_outlives_no_question(desk, monkeypatch):
    """A question stands for ten minutes; the first walk over a large ledger takes longer."""
    pseudonym = await desk.pseudonym()
    await desk.open("T-1", ANNA)
    await desk.audited.put(agent=ANNA, customer=pseudonym)
    real = access_module.catch_up

    async def outlasting(pool):
        await desk.audited.conn.execute("SET session_replication_role = replica")
        await desk.audited.conn.execute("DELETE FROM broker.ledger_event WHERE kind = 'auditor_query'")
        await real(pool)

    monkeypatch.setattr(access_module, "catch_up", outlasting)
    answer = await ask(desk, await desk.now())
    assert [one.agent for one in answer.could] == [one.agent for one in answer.did] == [ANNA]


async def test_a_suspended_agent_could_not(desk):
    """Only while the suspension stood."""
    await desk.pseudonym()
    await seen(desk, ANNA, ["support-tier1"], await desk.now() - timedelta(seconds=2))
    await desk.open("T-1", ANNA)
    before = await desk.now()
    async with desk.admin.acquire() as conn:
        await conn.fetch("SELECT broker.suspend_agent($1, 'x', 'y')", ANNA)
        during = await desk.now()
        await conn.fetch("SELECT broker.reinstate_agent($1)", ANNA)
    after = await desk.now()
    answers = [(await ask(desk, at)).could[0] for at in (before, during, after)]
    assert [one.could for one in answers] == [True, False, True]


async def test_stands_beside_who_did(desk):
    """Every agent with disclosures is named, also those who could not at that time."""
    pseudonym = await desk.pseudonym()
    await desk.open("T-1", ANNA)
    at = await desk.now()
    await desk.audited.put(agent=ANNA, customer=pseudonym, at=at - timedelta(seconds=1))
    await desk.audited.put(agent=BEN, customer=pseudonym, at=at + timedelta(seconds=1))
    await desk.audited.put(agent=CARL, customer="another")
    answer = await ask(desk, at)
    assert [(one.agent, one.reads, one.last_before is not None) for one in answer.did] == [
        (ANNA, 1, True),
        (BEN, 1, False),
    ]


async def test_says_what_it_cannot_know(desk):
    """Before the history began, tickets are taken for open, and the answer says so."""
    await desk.pseudonym()
    await desk.open("T-1", ANNA)
    answer = await ask(desk, await desk.now())
    assert BEFORE_HISTORY not in answer.not_knowable
    begun = await desk.audited.conn.fetchval("SELECT start_time FROM broker.history_start")
    answer = await ask(desk, begun - timedelta(days=1))
    assert BEFORE_HISTORY in answer.not_knowable


async def test_the_key_is_in_no_event_and_a_question_off_the_record_is_not_answered(desk):
    """The ledger names the pseudonym; the function wants the event of this very question."""
    pseudonym = await desk.pseudonym()
    await desk.open("T-1", ANNA)
    await ask(desk, await desk.now())
    asked = await desk.audited.queries()
    assert asked[-1]["customer"] == pseudonym
    leaves = await desk.audited.conn.fetch("SELECT leaf FROM broker.ledger_event")
    assert not [row for row in leaves if CUSTOMER.encode() in row["leaf"]]
    other = await put_on_record(desk.audited.pool, desk.ids, BY, {"query": "events"})
    call = "SELECT * FROM broker.standing_at($1, $2, now())"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await desk.audited.rows(call, other, CUSTOMER)
    mine = await put_on_record(desk.audited.pool, desk.ids, BY, {"query": "access"})
    assert await desk.audited.rows(call, mine, CUSTOMER)


@pytest.mark.attack("A21")
async def test_one_question_does_not_open_every_customer(desk):
    """With the auditor's DSN and one event, keys cannot be tried without end, nor by whoever rolls back."""
    await desk.open("T-1", ANNA)
    mine = await put_on_record(desk.audited.pool, desk.ids, BY, {"query": "access"})
    call = "SELECT count(*) FROM broker.standing_at($1, $2, now())"
    today = "SELECT (extract(EPOCH FROM now())::bigint / 86400) * 1000000"
    used = await desk.audited.conn.fetchval(today) + 1998
    await desk.audited.conn.execute("SELECT setval('broker.standing_quota', $1)", used)
    async with desk.audited.pool.acquire() as conn:
        rolled_back = conn.transaction()
        await rolled_back.start()
        assert await conn.fetchval(call, mine, CUSTOMER) == 1  # the control arm
        await rolled_back.rollback()
        await conn.fetchval(call, mine, "K-2")
        with pytest.raises(asyncpg.PostgresError, match="used up"):
            await conn.fetchval(call, mine, "K-3")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetchval(call.replace("standing_at", "standing_then"), mine, CUSTOMER)
    with pytest.raises(IdentifiersUsedUpError):
        await ask(desk, await desk.now())


async def test_work_on_a_ticket_leaves_no_history(desk):
    """Only what changes state or customers is kept: notes and replies cost nothing more."""
    await desk.open("T-1", ANNA)
    work = {
        "kind": "note",
        "actor": "agent",
        "actor_agent": ANNA,
        "state": "",
        "time": "2026-11-25T12:00:00Z",
    }
    await desk.tell("T-1", 2, work=work)
    await desk.tell("T-1", 3, status="open")
    assert await desk.audited.conn.fetchval("SELECT count(*) FROM broker.ticket_past") == 0
    await desk.tell("T-1", 4, status="closed")
    assert await desk.audited.conn.fetchval("SELECT count(*) FROM broker.ticket_past") == 1
