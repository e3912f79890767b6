"""Distinct customers per agent, over an hour and a day, on every replica together, to the last one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.access.ground import refused_by_append
from broker.ledger import Verdict
from tests.ledger.conftest import IDS, Case, Ground


async def granted(ground: Ground, ledger, agent: str, count: int, **budget: int) -> list[tuple[Case, object]]:
    """Gives an agent as many tickets of distinct customers, with grants."""
    made = []
    for _ in range(count):
        case = await ground.case(agent=agent, **budget)
        grant = case.grant()
        assert (await ledger.append(grant)).reason == ""
        made.append((case, grant))
    return made


async def used(ground: Ground, agent: str) -> int:
    return await ground.conn.fetchval("SELECT count(*) FROM broker.budget_use WHERE agent = $1", agent)


async def ago(ground: Ground, case: Case, time: timedelta) -> datetime:
    """Moves an agent's last look at a customer into the past."""
    return await ground.conn.fetchval(
        "UPDATE broker.budget_use SET last_time = clock_timestamp() - $3::interval"
        " WHERE agent = $1 AND customer_pseudonym = $2 RETURNING last_time",
        case.agent,
        case.pseudonym(),
        time,
    )


class TestParallel:
    @pytest.mark.attack("K10")
    async def test_two_replicas_never_overshoot_by_one(self, ground):
        """40 reads of 40 customers at once on two replicas, budget 10: exactly 10 are released."""
        one, two = await ground.ledger(), await ground.ledger()
        made = await granted(ground, one, "https://idp.test|hasty", 40, hour=10, day=60)
        # One at a time per ledger: each commit a group of its own, so that the replicas truly meet.
        reads = [case.read(grant) for case, grant in made]
        verdicts = await asyncio.gather(
            *((one, two)[i % 2]._flush([read]) for i, read in enumerate(reads)),
        )
        reasons = [v[0].reason for v in verdicts]

        assert reasons.count("") == 10
        assert reasons.count("BUDGET_EXCEEDED") == 30
        assert await used(ground, "https://idp.test|hasty") == 10
        stored = await ground.conn.fetch(
            "SELECT outcome, count(*) FROM broker.ledger_event WHERE id = ANY ($1) GROUP BY outcome",
            [read.id for read in reads],
        )
        assert dict(stored) == {"released": 10, "refused": 30}

    async def test_one_group_neither(self, ground):
        """The same 40 in a single commit: exactly 10, and exactly the first ones."""
        ledger = await ground.ledger()
        made = await granted(ground, ledger, "https://idp.test|grouped", 40, hour=10, day=60)
        verdicts = await ledger._commit([case.read(grant) for case, grant in made])

        assert [v.reason for v in verdicts] == [""] * 10 + ["BUDGET_EXCEEDED"] * 30

    async def test_two_agents_in_two_orders_do_not_block_each_other(self, ground):
        """Groups that name the same agents in opposite order end, none by a deadlock."""
        failures = []
        one, two = [await ground.ledger(on_failure=failures.append) for _ in range(2)]
        a = await granted(ground, one, "https://idp.test|a", 12)
        b = await granted(ground, one, "https://idp.test|b", 12)
        for i in range(0, 12, 2):
            forth = [case.read(grant) for case, grant in (a[i], b[i])]
            back = [case.read(grant) for case, grant in (b[i + 1], a[i + 1])]
            results = await asyncio.gather(one._commit(forth), two._commit(back))
            assert [v.reason for group in results for v in group] == [""] * 4
        assert failures == []

    async def test_nobody_else_holds_an_agents_lock(self, ground):
        """No lock that the housekeeping holds, whatever its number, keeps an agent of that hash waiting."""
        agent = "https://idp.test|whoever"
        holder = await asyncpg.connect(ground.database.dsn())
        try:
            for kind in (1651663207, 1651666789, 1651666795):  # of 030 to 100, 184, 140
                await holder.execute("SELECT pg_advisory_lock($1, hashtext($2))", kind, agent)
            async with asyncio.timeout(2):
                await ground.conn.execute("SELECT broker.lock_budget($1)", agent)
        finally:
            await holder.close()

    @pytest.mark.parametrize("locked", [True, False])
    async def test_control_without_the_lock_they_would(self, own_ground, locked):
        """Where a commit takes long, two replicas hold the budget; without the lock they overshoot."""
        await own_ground.conn.execute(
            "CREATE FUNCTION broker.slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;"
            "CREATE TRIGGER slow BEFORE INSERT ON broker.budget_use"
            " FOR EACH ROW EXECUTE FUNCTION broker.slow()"
        )
        if not locked:
            await own_ground.conn.execute(
                "CREATE OR REPLACE FUNCTION broker.lock_budget(p_agent text) RETURNS void"
                " LANGUAGE sql AS $$ SELECT NULL::void $$"
            )
        ledgers = [await own_ground.ledger() for _ in range(2)]
        made = await granted(own_ground, ledgers[0], "https://idp.test|hasty", 8, hour=2, day=60)
        verdicts = await asyncio.gather(
            *(ledgers[i % 2]._flush([case.read(grant)]) for i, (case, grant) in enumerate(made)),
        )
        released = [v[0].reason for v in verdicts].count("")

        assert released == 2 if locked else released > 2


class TestWindows:
    @pytest.mark.parametrize(
        ("budget", "width"),
        [({"hour": 2, "day": 60}, timedelta(minutes=61)), ({"hour": 60, "day": 2}, timedelta(minutes=1441))],
        ids=["hour", "day"],
    )
    async def test_a_slot_frees_when_the_oldest_leaves(self, ground, budget, width):
        """Over the budget: refused until the oldest look leaves the window, and told exactly when."""
        ledger = await ground.ledger()
        agent = f"https://idp.test|{width}"
        (first, one), (second, two), (third, three) = await granted(ground, ledger, agent, 3, **budget)
        for case, grant in ((first, one), (second, two)):
            assert (await ledger.append(case.read(grant))).reason == ""
        oldest = await ago(ground, first, timedelta(minutes=30))
        refused = await ledger.append(third.read(three))

        assert refused.reason == "BUDGET_EXCEEDED"
        assert refused.free_time == oldest + width
        assert await ago(ground, first, width - timedelta(seconds=5))
        assert (await ledger.append(third.read(three))).reason == "BUDGET_EXCEEDED"  # seconds before
        await ago(ground, first, width + timedelta(seconds=1))
        assert (await ledger.append(third.read(three))).reason == ""  # and a second after

    async def test_known_customers_cost_nothing(self, ground):
        """With the budget used up, everybody already seen may be seen again; a new one may not."""
        ledger = await ground.ledger()
        agent = "https://idp.test|regular"
        made = await granted(ground, ledger, agent, 3, hour=2, day=2)
        for case, grant in made[:2]:
            assert (await ledger.append(case.read(grant))).reason == ""
        for case, grant in made[:2]:
            await ago(ground, case, timedelta(minutes=20))  # older than what is not even counted anew
            assert (await ledger.append(case.read(grant))).reason == ""
        assert (await ledger.append(made[2][0].read(made[2][1]))).reason == "BUDGET_EXCEEDED"
        assert await used(ground, agent) == 2

    async def test_a_second_ticket_of_the_same_customer(self, ground):
        """It is people that count, not tickets: a known customer's next ticket costs nothing."""
        ledger = await ground.ledger()
        [(case, grant)] = await granted(ground, ledger, "https://idp.test|loyal", 1, hour=1, day=1)
        other = await ground.case(agent=case.agent, hour=1, day=1)
        await other.sql(
            "UPDATE broker.ticket_customer SET customer_id = $2 WHERE ticket_id = $1",
            other.ticket,
            case.customer,
        )
        await ledger.append(case.read(grant))
        same = replace(other, customer=case.customer)
        next_grant = same.grant()
        assert (await ledger.append(next_grant)).reason == ""
        assert (await ledger.append(same.read(next_grant))).reason == ""

    async def test_seen_within_the_day_but_not_the_hour_counts_in_the_hour(self, ground):
        """Each window asks for itself whom it knows."""
        ledger = await ground.ledger()
        (early, e), (now, n) = await granted(ground, ledger, "https://idp.test|long-day", 2, hour=1, day=9)
        assert (await ledger.append(early.read(e))).reason == ""
        await ago(ground, early, timedelta(hours=5))
        assert (await ledger.append(now.read(n))).reason == ""

        assert (await ledger.append(early.read(e))).reason == "BUDGET_EXCEEDED"

    async def test_grants_ask_and_cost_nothing(self, ground):
        """A grant beyond the budget is refused already; one within it uses nothing up until it is read."""
        ledger = await ground.ledger()
        agent = "https://idp.test|collector"
        made = await granted(ground, ledger, agent, 5, hour=1, day=1)
        assert await used(ground, agent) == 0
        await ledger.append(made[0][0].read(made[0][1]))
        late = await ground.case(agent=agent, hour=1, day=1)
        refused = await ledger.append(late.grant())

        assert refused.reason == "BUDGET_EXCEEDED"
        assert refused.free_time > datetime.now(UTC) + timedelta(minutes=1439)

    @pytest.mark.parametrize("budget", [(0, 5), (5, 0)])
    async def test_nought_frees_never_and_at_once(self, ground, budget):
        """A budget set to nought ends the next read, even of somebody just seen, and never frees."""
        ledger = await ground.ledger()
        [(case, grant)] = await granted(ground, ledger, f"https://idp.test|nought{budget}", 1)
        assert (await ledger.append(case.read(grant))).reason == ""
        hour, day = budget
        refused = await ledger.append(case.read(grant, per_hour=hour, per_day=day))

        assert refused.reason == "BUDGET_EXCEEDED"
        assert refused_by_append(IDS.new(), refused).metadata == {"free_time": "never"}

    def test_the_refusal_says_when(self):
        """RESOURCE_EXHAUSTED with the time when it frees up, as a caller sees it."""
        free = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        error = refused_by_append(IDS.new(), Verdict("BUDGET_EXCEEDED", None, free))

        assert error.code == "RESOURCE_EXHAUSTED"
        assert error.metadata == {"free_time": "2026-01-02T03:04:05Z"}
