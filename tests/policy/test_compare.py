"""Comparing misses nothing and invents nothing, for any set of roles and of groups."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.policy.compare import Area, Direction, compare
from tests.policy.differing import (
    LEVELS,
    ROLES,
    ByHand,
    Daily,
    Stock,
    all_facts,
    as_large,
    every_set,
    holds,
    policy,
    seeded,
    step_of,
)

WAYS = {Direction.WIDENING, Direction.NARROWING}


def truth(stocks, members, roles_of, facts_list, fields):
    """Asks stock Casbin everything: what differs, by who, facts and field."""
    found = {}
    for held in every_set(members):
        before, now = (roles_of(stock, held) for stock in stocks)
        for i, facts in enumerate(facts_list):
            for field in fields:
                step = (stocks[0].level(before, facts, field), stocks[1].level(now, facts, field))
                if step[0] != step[1]:
                    found[held, i, field] = step
    return found


class TestAgainstCasbin:
    """What is reported is exactly what stock Casbin answers differently."""

    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**32))
    def test_rules_exactly_by_casbin(self, seed):
        """Sentences about roles are what stock Casbin answers differently."""
        rules_exactly(seed, Stock)

    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**32))
    def test_groups_exactly_by_casbin(self, seed):
        """Sentences about groups are what stock Casbin answers differently for their members."""
        groups_exactly(seed, Stock)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**32))
    def test_rules_exactly(self, seed):
        """The same for more policies, by a reading that is held against Casbin elsewhere."""
        rules_exactly(seed, ByHand)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**32))
    def test_groups_exactly(self, seed):
        """The same for the members of groups."""
        groups_exactly(seed, ByHand)


def rules_exactly(seed, judge):
    """Holds every sentence about roles at each of its points, and every difference against the sentences."""
    rng, varied, catalogs, texts = seeded(seed)
    stocks = [Daily(judge, text, of) for text, of in zip(texts, catalogs, strict=True)]
    facts_list = all_facts(rng, varied)
    fields = sorted({*catalogs[0].fields, *catalogs[1].fields})
    found = truth(stocks, ROLES, lambda _stock, held: held, facts_list, fields)

    result = compare(*(policy(text, of) for text, of in zip(texts, catalogs, strict=True)))

    reported = {}
    for change in (c for c in result.changes if c.area is Area.RULES):
        for asker in change.details["held_together"]:
            held = frozenset(name for unit in asker for name in unit)
            for i, facts in enumerate(facts_list):
                for field in fields:
                    if holds(change, facts, field):
                        assert (held, i, field) not in reported, "told twice"
                        reported[held, i, field] = step_of(change)
                        way = LEVELS[step_of(change)[1]] - LEVELS[step_of(change)[0]]
                        assert change.direction is (Direction.WIDENING if way > 0 else Direction.NARROWING)
    for point, step in reported.items():
        assert step == found.get(point), "invented"
    for (held, i, field), step in found.items():
        told = [reported[few, i, field] for few in every_set(held) if (few, i, field) in reported]
        assert any(as_large(each, step) for each in told), "missed"
        if len(held) == 1:
            assert reported[held, i, field] == step


def groups_exactly(seed, judge):
    """Holds what is said of groups against what their members gain or lose, whatever groups they have."""
    rng, varied, catalogs, texts = seeded(seed)
    stocks = [Daily(judge, text, of) for text, of in zip(texts, catalogs, strict=True)]
    facts_list = all_facts(rng, varied[:1])
    fields = sorted({*catalogs[0].fields, *catalogs[1].fields})
    groups = stocks[0].groups.keys() | stocks[1].groups.keys()

    def roles_of(stock, held):
        return frozenset().union(*(stock.groups.get(group, ()) for group in held))

    found = truth(stocks, groups, roles_of, facts_list, fields)

    result = compare(*(policy(text, of) for text, of in zip(texts, catalogs, strict=True)))

    told = [c for c in result.changes if c.area in {Area.RULES, Area.GROUPS} and c.direction in WAYS]
    for change in (c for c in told if c.area is Area.GROUPS):
        for asker in change.details["held_together"]:
            for held in each_of(asker):
                for i, facts in enumerate(facts_list):
                    for field in fields:
                        if holds(change, facts, field):
                            assert found[held, i, field] == step_of(change), "invented"
    for (held, i, field), step in found.items():
        both = roles_of(stocks[0], held) & roles_of(stocks[1], held)
        assert any(
            holds(change, facts_list[i], field)
            and as_large(step_of(change), step)
            and any(
                some <= (held if change.area is Area.GROUPS else both)
                for asker in change.details["held_together"]
                for some in each_of(asker)
            )
            for change in told
        ), "missed"


def each_of(asker):
    """Gives the sets of names that an asker stands for: one name of each of its units."""
    sets = [frozenset()]
    for names in asker:
        sets = [held | {name} for held in sets for name in names]
    return sets
