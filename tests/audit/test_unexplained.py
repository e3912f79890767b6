"""Reads without work: what counts as one, who is called, and how seldom an honest agent is."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from broker.audit.record import Auditor
from broker.audit.unexplained import Tally, judge, stand, unexplained_reads
from broker.ledger import EventIds

DAY = date(2026, 6, 1)
AGENTS, DAYS, VISITS = 12, 20, 14


def company(
    rng: random.Random, odds: dict[int, float], *, agents: int = AGENTS, days: int = DAYS
) -> Iterator[Tally]:
    """Simulates agents of one queue: VISITS a day on average, a share of which that changes from day to day
    (0.05 to 0.25) is left without work; `odds` multiplies an agent's.
    """
    for day in range(days):
        usual = rng.uniform(0.05, 0.25)
        for agent in range(agents):
            own = odds.get(agent, 1.0) * usual / (1 - usual)
            visits = rng.randrange(VISITS // 2, VISITS * 3 // 2)
            unexplained = sum(rng.random() < own / (1 + own) for _ in range(visits))
            yield Tally(DAY + timedelta(days=day), "general", f"a{agent}", visits, unexplained)


def called(tallies, **options) -> set[str]:
    """Gives who is called."""
    return {s.agent for s in stand(tallies, **options) if s.called_on}


def test_honest_agents_are_seldom_called():
    """Of 80 companies with two agents at the tolerated odds, alpha and its noise call anybody, on any day."""
    alpha, runs = 0.1, 80
    wrong = sum(bool(called(company(random.Random(i), {0: 2.0, 1: 2.0}), alpha=alpha)) for i in range(runs))
    assert wrong / runs <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5


def test_without_tolerance_a_way_of_working_calls():
    """Control: the same agents are called in most companies once no odds but the peers' are tolerated."""
    runs = [called(company(random.Random(i), {0: 2.0, 1: 2.0}, days=60), tolerated=1.0) for i in range(10)]
    assert sum(bool(names & {"a0", "a1"}) for names in runs) > 5


def test_who_reads_and_does_nothing_is_called():
    """An agent at sixteen times the odds is called in every company, alone, within 20 days."""
    runs = [called(company(random.Random(100 + i), {3: 16.0})) for i in range(10)]
    assert runs == [{"a3"}] * 10


def test_a_bad_day_of_all_calls_nobody():
    """Where the feed was down nobody's visits were explained, and that says nothing of anyone."""
    assert called([Tally(DAY, "general", f"a{i}", 20, 20) for i in range(10)]) == set()


def test_nobody_without_peers_is_called():
    """One agent in a queue of their own has nobody to be compared with."""
    tallies = [Tally(DAY + timedelta(days=i), "vip", "a1", 20, 20) for i in range(50)]
    assert called([*tallies, Tally(DAY, "general", "a2", 5, 0)]) == set()


def test_called_on_the_first_day_it_is_certain():
    """Later honest days do not take a call back, and the day does not move."""
    tallies = list(company(random.Random(5), {3: 16.0}))
    [first] = [s for s in stand(tallies) if s.called_on]
    quiet = list(company(random.Random(6), {}))
    later = [Tally(t.day + timedelta(days=40), t.queue, t.agent, t.visits, t.unexplained) for t in quiet]
    [again] = [s for s in stand([*tallies, *later]) if s.called_on]
    assert (again.agent, again.called_on) == (first.agent, first.called_on)


class TestVisits:
    """What the database judges, on a day three days ago."""

    AT = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=3)

    async def _visit(self, audited, agent: str, ticket: str, *minutes: int, known: bool = True) -> None:
        """Has an agent read on a ticket; `known`: its grants are still there."""
        for minute in minutes:
            grant = uuid.uuid4()
            at = self.AT + timedelta(minutes=minute)
            await audited.put(at=at, agent=agent, ticket=f"p-{ticket}", grant=grant)
            if known:
                await audited.conn.execute(
                    "INSERT INTO broker.access_grant VALUES ($1, $1, $1, '', $2, 't', 'x', $3, 'C', 'c1', $4,"
                    " 'resolve-ticket', 'broker', '{}', '{}', '{}', 1, '', '', $5, $5, NULL)",
                    grant, agent, ticket, f"p-{ticket}", at,
                )  # fmt: skip

    async def _work(self, audited, agent: str | None, ticket: str, minutes: int, version: int = 1) -> None:
        actor = "agent" if agent else "customer"
        await audited.conn.execute(
            "INSERT INTO broker.work_event (ticket_id, version, kind, actor, actor_agent, state, event_time)"
            " VALUES ($1, $2, 'note', $3, $4, '', $5)",
            ticket, version, actor, agent, self.AT + timedelta(minutes=minutes),
        )  # fmt: skip

    @pytest.fixture
    async def served(self, audited):
        """Gives a database with tickets T1 to T9."""
        await audited.partition(self.AT)
        await audited.conn.execute("INSERT INTO broker.feed (feed_id) VALUES ('f')")
        await audited.conn.execute(
            "INSERT INTO broker.ticket"
            " (ticket_id, feed_id, version, content_hash, status, kind, opened_by)"
            " SELECT 'T' || i, 'f', 1, '', 'open', 'general', 'customer' FROM generate_series(1, 9) AS i"
        )
        await audited.conn.execute(
            "INSERT INTO broker.ticket_customer SELECT ticket_id, 'C' FROM broker.ticket"
        )
        return audited

    async def _judge_all(self, audited):
        await audited.catch_up()
        days = []
        while (day := await judge(audited.pool)) is not None:
            days.append(day)
        return days

    async def test_what_explains_a_visit(self, served):
        """Work of that agent on that ticket, from the first read to a day after the last; nothing else."""
        await self._visit(served, "i|a", "T1", 0, 5)
        await self._work(served, "i|a", "T1", 5 + 24 * 60 - 1)
        await self._visit(served, "i|a", "T2", 0)
        await self._work(served, "i|a", "T2", 24 * 60 + 1)  # too late
        await self._visit(served, "i|a", "T3", 10)
        await self._work(served, "i|a", "T3", 5)  # before
        await self._visit(served, "i|a", "T4", 0)
        await self._work(served, "i|b", "T4", 1)  # somebody else's
        await self._work(served, None, "T4", 2, version=2)
        await self._visit(served, "i|a", "T5", 0, known=False)
        await self._visit(served, "i|b", "T6", 0)
        await self._work(served, "i|b", "T6", 1)
        await self._judge_all(served)

        rows = await served.rows(
            "SELECT visits, unexplained, unjudged FROM broker.visit_tally ORDER BY agent_id"
        )
        assert [tuple(r) for r in rows] == [(5, 3, 1), (1, 0, 0)]
        visits = await served.rows("SELECT ticket, reads FROM broker.unexplained_visit ORDER BY ticket")
        assert [tuple(r) for r in visits] == [("p-T2", 1), ("p-T3", 1), ("p-T4", 1)]

    async def test_each_day_once_and_only_when_it_is_due(self, served):
        """A day is judged once, a day and an hour after its end; later walks change nothing of it."""
        await self._visit(served, "i|a", "T1", 0)
        days = await self._judge_all(served)
        assert self.AT.date() in days
        assert max(days) < datetime.now(UTC).date() - timedelta(days=1)
        assert await self._judge_all(served) == []

    async def test_the_answer_names_the_visits_of_who_is_called(self, served):
        """The report is the tallies' standing with the events behind it, and is on record itself."""
        await self._visit(served, "i|idle", "T1", 0)
        await self._judge_all(served)
        await served.conn.execute(
            "INSERT INTO broker.disclosure_name (kind, name)"
            " SELECT 'agent', 'i|busy-' || i FROM generate_series(1, 9) AS i"
        )
        await served.conn.execute("DELETE FROM broker.visit_tally")
        await served.conn.execute(
            "INSERT INTO broker.visit_tally"
            " SELECT $1::date + d, name_id, 'general', 20, CASE WHEN name = 'i|idle' THEN 18 ELSE 1 END, 0"
            " FROM broker.disclosure_name, generate_series(0, 9) AS d WHERE kind = 'agent'",
            self.AT.date(),
        )
        report = await unexplained_reads(served.pool, self.AT.date(), by=Auditor("t"), ids=EventIds())

        assert [s.agent for s in report.standings if s.called_on] == ["i|idle"]
        assert [v.ticket for v in report.visits["i|idle"]] == ["p-T1"]
        [asked] = await served.queries()
        assert (asked["query"], asked["since"]) == ("unexplained", self.AT.date().isoformat())
