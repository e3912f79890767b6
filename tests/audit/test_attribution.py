"""Who explains the complaints: worked by hand where it can be, simulated where it cannot."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.audit.attribution import ALPHA, Case, Chance, Read, Verdict, attribute, monday
from tests.bench import attribution as bench

CONTACT = datetime(2026, 11, 20, tzinfo=UTC)
BEFORE = CONTACT - timedelta(days=3)
WEEK = monday(BEFORE)
EMAIL = frozenset({"customer.email"})
TOOL = 99


def read(agent: int, stratum: int = 1, clear: frozenset[str] = EMAIL, **changes: object) -> Read:
    """Makes a read before the contact."""
    return replace(Read(UUID(int=agent), BEFORE, agent, TOOL, stratum, clear), **changes)


def case(line: int, *reads: Read, fields: frozenset[str] = EMAIL) -> Case:
    """Makes a complaint."""
    return Case(line, CONTACT, fields, reads)


def chance(seen: dict[int, int], *, size: int = 1000, strata: tuple[int, ...] = (1,)) -> Chance:
    """Says how many of each stratum's customers each agent had seen with an e-mail address; the tool: all."""
    counts = {**seen, TOOL: size}
    return Chance(
        size=dict.fromkeys(strata, size),
        seen={(a, s, name): n for a, n in counts.items() for s in strata for name in ("customer.email", "")},
        size_by_week={WEEK: size * len(strata)},
        seen_by_week={
            (a, WEEK, name): n * len(strata) for a, n in counts.items() for name in ("customer.email", "")
        },
        totals={a: n * len(strata) for a, n in counts.items()},
        tools=frozenset({TOOL}),
    )


def test_one_agent_by_hand():
    """Four of four complainants of one stratum: C(10,4)/C(1000,4), over the weight that the agent has."""
    found = attribute([case(i, read(1)) for i in range(4)], chance({1: 10, 2: 10}))
    first = found.candidates[0]
    p = 10 * 9 * 8 * 7 / (1000 * 999 * 998 * 997)
    assert first.subjects == (1,)
    assert first.p_value == pytest.approx(p, rel=1e-6)
    assert first.corrected == pytest.approx(p / (0.8 * 0.5), rel=1e-6)
    assert first.expected == pytest.approx(0.04)
    assert found.verdict is Verdict.NAMED


def test_strata_convolve_and_several_of_one_person_are_one_draw():
    """Two strata add up; a complainant of both is covered with the chance of either."""
    cases = [case(1, read(1)), case(2, read(1, stratum=2)), case(3, read(1), read(2, stratum=2))]
    found = attribute(cases, chance({1: 100, 2: 50}, strata=(1, 2)))
    [mine] = [c for c in found.candidates if c.subjects == (1,)]
    assert mine.p_value == pytest.approx(0.1 * 0.1 * (1 - 0.9 * 0.9))


def test_what_the_caller_knew_must_have_been_seen():
    """Reads that showed less in clear explain nothing; several reads together may; an unreadable one may."""
    both = EMAIL | {"customer.phone"}
    known = {"fields": both}
    assert case(1, read(1), **known).evidence(1) == ()
    phone = read(1, clear=frozenset({"customer.phone"}))
    assert case(1, read(1), phone, **known).evidence(1) == (read(1), phone)
    assert case(1, read(1), replace(phone, agent=2), **known).evidence(1) == ()
    assert len(case(1, read(1, unreadable=True, clear=frozenset()), **known).evidence(1)) == 1
    assert case(1, read(1, clear=frozenset()), fields=frozenset()).evidence(1) == ()


def test_fields_count_as_often_as_the_rarest_of_them():
    """Of two known fields the rarer one bounds what chance gives."""
    both = EMAIL | {"customer.phone"}
    world = chance({1: 100})
    world = replace(
        world, seen={**world.seen, (1, 1, "customer.phone"): 20, (TOOL, 1, "customer.phone"): 500}
    )
    found = attribute([case(1, read(1, clear=both), fields=both)], world)
    assert [c.p_value for c in found.candidates if c.subjects == (1,)] == [pytest.approx(0.02)]


def test_a_queue_that_somebody_saw_whole_says_nothing():
    """Who saw every customer of the queue is not in excess; among all customers they would be."""
    cases = [case(i, read(1)) for i in range(30)]
    world = replace(chance({1: 1000, 2: 10}), size_by_week={WEEK: 100_000})
    assert attribute(cases, world).candidates[0].p_value == 1.0
    assert attribute(cases, world).verdict is Verdict.NONE
    assert attribute(cases, world, conditioned=False).verdict is Verdict.NAMED


def test_two_together_and_neither_alone():
    """Complaints of which each of two agents explains a part name the pair before either."""
    seen = dict.fromkeys(range(1, 60), 30)
    cases = (
        [case(i, read(1)) for i in range(3)] + [case(i, read(2)) for i in range(3, 6)] + [case(6, read(3))]
    )
    found = attribute(cases, chance(seen))
    assert found.candidates[0].subjects == (1, 2)
    assert found.candidates[0].named
    assert all(c.corrected > ALPHA for c in found.candidates if c.kind == "agent")


def test_who_shares_customers_with_the_first_name_is_not_named_for_them():
    """A colleague who saw the same people explains nothing that is left, so only the first is named."""
    seen = {1: 40, 2: 60, **dict.fromkeys(range(3, 60), 40)}
    cases = [case(i, read(1), read(2)) for i in range(8)] + [case(9, read(1))]
    found = attribute(cases, chance(seen))
    assert [c.subjects for c in found.candidates if c.named] == [(1,)]
    excess = [c.subjects for c in found.candidates if c.corrected <= ALPHA]
    assert (2,) in excess, "control: by themselves both are in excess"


def test_a_tool_answers_for_what_its_agents_do_not_explain():
    """A tool is not named beside the one agent who read through it; where many did, it is."""
    seen = {TOOL: 300, **dict.fromkeys(range(1, 60), 40)}
    world = chance(seen)
    world = replace(
        world, seen={**world.seen, (TOOL, 1, "customer.email"): 300}, totals={**world.totals, TOOL: 300}
    )
    by_one = attribute([case(i, read(1)) for i in range(8)], world)
    by_many = attribute([case(i, read(i + 1)) for i in range(20)], world)
    assert [c.subjects for c in by_one.candidates if c.named] == [(1,)]
    assert [c.subjects for c in by_many.candidates if c.named] == [(TOOL,)]


def test_nothing_to_test():
    """Complaints of customers whom nobody saw before cannot be used."""
    assert attribute([case(1)], chance({1: 10})).verdict is Verdict.NOTHING_TO_TEST


def test_the_order_of_lines_does_not_matter():
    """The same complaints in another order give the same answer but for the order of lines."""
    rng = random.Random(3)
    cases = [case(i, read(rng.randrange(1, 9))) for i in range(20)]
    world = chance(dict.fromkeys(range(1, 9), 100))
    one, other = attribute(cases, world), attribute(cases[::-1], world)
    assert [(c.subjects, c.p_value) for c in one.candidates] == [
        (c.subjects, c.p_value) for c in other.candidates
    ]


class TestSimulated:
    """Small companies of the benchmark's kind, seeds of their own."""

    def test_the_leaker_is_found_and_nobody_else(self):
        """Twelve complaints, some unrelated: the one who leaked is named, in each of ten draws."""
        made = bench.company(11, 15_000, "bulk")
        answers = [attribute(bench.complaints(made, random.Random(i), 12), made.chance) for i in range(10)]
        assert all(bench.right(a, made.leakers) for a in answers)
        assert not any(bench.wrong(a, made.leakers) for a in answers)

    def test_nobody_is_named_for_a_leak_elsewhere(self):
        """Complaints of one queue in eight weeks name nobody, in twenty draws."""
        made = bench.company(12, 15_000, "queue")
        draws = [bench.complaints(made, random.Random(i), 25) for i in range(20)]
        assert not any(bench.wrong(attribute(d, made.chance), ()) for d in draws)
