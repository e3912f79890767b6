"""Comparing misses nothing and invents nothing, for any set of roles and of groups."""

import random
import re
from dataclasses import replace
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.model import Budget, Presence
from broker.policy.admin import AdminTable
from broker.policy.compare import Area, Direction, compare
from broker.policy.compare.admin import compare_admins
from broker.policy.limits import Limits
from broker.policy.rules import CONDITIONS
from tests.policy.differing import (
    LEVELS,
    PURPOSES,
    ROLES,
    ByHand,
    Daily,
    Stock,
    all_facts,
    as_large,
    catalog,
    every_set,
    holds,
    policy,
    seeded,
    some_rules,
    step_of,
    text,
    with_every_role,
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
    stocks = [Daily(judge, written, of) for written, of in zip(texts, catalogs, strict=True)]
    facts_list = all_facts(rng, varied)
    fields = sorted({*catalogs[0].fields, *catalogs[1].fields})
    found = truth(stocks, ROLES, lambda _stock, held: held, facts_list, fields)

    result = compare(*(policy(written, of) for written, of in zip(texts, catalogs, strict=True)))

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
    stocks = [Daily(judge, written, of) for written, of in zip(texts, catalogs, strict=True)]
    facts_list = all_facts(rng, varied[:1])
    fields = sorted({*catalogs[0].fields, *catalogs[1].fields})
    groups = stocks[0].groups.keys() | stocks[1].groups.keys()

    def roles_of(stock, held):
        return frozenset().union(*(stock.groups.get(group, ()) for group in held))

    found = truth(stocks, groups, roles_of, facts_list, fields)

    result = compare(*(policy(written, of) for written, of in zip(texts, catalogs, strict=True)))

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


class TestOtherParts:
    """The same promise for what is not rules: every set of groups, brute force."""

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def test_admin_exactly(self, seed):
        """What a set of groups may call more or less is told of one of them or of two."""
        rng = random.Random(seed)
        old, new = some_admin(rng), some_admin(rng)
        groups = old.members.keys() | new.members.keys()

        told = {}
        for change in compare_admins(old, new):
            for who in change.details["who"] if "methods" in change.details else ():
                for method in change.details["methods"]:
                    told.setdefault((change.direction, method), []).append(frozenset(who))
        for held in every_set(groups):
            names = {group.removeprefix("idp:") for group in held}
            for method in METHODS:
                before, now = (table.allows_person(names, method) for table in (old, new))
                for direction, changed in (("widening", now > before), ("narrowing", now < before)):
                    named = told.get((direction, method), [])
                    assert not changed or any(who <= held for who in named), "missed"
                    assert changed or held not in named, "invented"

    @settings(max_examples=200, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def test_limits_exactly(self, seed):
        """Whatever a person with any groups may reach more or fewer of is told, and of nobody else."""
        rng, _, catalogs, texts = seeded(seed)
        policies = [
            replace(policy(written, of), limits=some_limits(rng))
            for written, of in zip(texts, catalogs, strict=True)
        ]
        books = [each.book for each in policies]

        def step(held, key):
            """Gives both budgets; None where somebody reaches nothing before or now, which is no budget."""
            roles = [each.roles_of(held) for each in policies]
            if not all(roles):
                return None
            return tuple(getattr(p.budget(have), key) for p, have in zip(policies, roles, strict=True))

        told = {}
        for change in (c for c in compare(*policies).changes if c.area is Area.LIMITS):
            key = change.details["limit"].removeprefix("customers_")
            numbers = (change.details["old"], change.details["new"])
            assert (change.direction is Direction.WIDENING) == (numbers[1] > numbers[0])
            for who in change.details["who"]:
                if who in ROLES:
                    assert numbers == tuple(
                        getattr(each.budget(frozenset({who})), key) for each in policies
                    ), "invented"
                    told.setdefault((change.direction, key), []).append(frozenset({who}))
                else:
                    for held in groups_named(who):
                        assert step(held, key) == numbers, "invented"
                        told.setdefault((change.direction, key), []).append(held)

        for held in every_set(books[0].groups.keys() | books[1].groups.keys()):
            for key in ("per_hour", "per_day"):
                before, now = step(held, key) or (0, 0)
                direction = Direction.WIDENING if now > before else Direction.NARROWING
                names = held | (policies[0].roles_of(held) & policies[1].roles_of(held))
                named = any(some <= names for some in told.get((direction, key), ()))
                assert named or before == now, "missed"

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def test_undecidable_exactly(self, seed):
        """Where a side does not know presence, a step is decided if both values go that way."""
        rng = random.Random(seed)
        of = catalog(PURPOSES, {"name": "profile", "email": "contact"})
        known = tuple(column for column in CONDITIONS if column != "presence")
        groups = {f"g-{role}": {role} for role in ROLES}
        lines = with_every_role(some_rules(rng, of, ["provenance", "presence"], ending=0))
        older = with_every_role(some_rules(rng, of, ["provenance"], ending=0))
        old_text, new_text = text(older, groups), text(lines, groups)
        # The older file has no such column; what varies there was drawn without it, so `any` is cut out.
        cut = re.sub(r"^(p(?:, [^,]+){6}), any", r"\1", old_text, flags=re.MULTILINE)
        sides = [(policy(cut, of, known), ByHand(old_text, of)), (policy(new_text, of), ByHand(new_text, of))]
        for (before, was), (after, now) in (sides, sides[::-1]):
            told = [c for c in compare(before, after).changes if c.area is Area.RULES]
            for facts in all_facts(rng, ["provenance"]):
                for role, field in product(ROLES, of.fields):
                    held = frozenset({role})
                    steps = {
                        presence: tuple(
                            LEVELS[judge.level(held, {**facts, "presence": presence}, field)]
                            for judge in (was, now)
                        )
                        for presence in Presence
                    }
                    ways = {(n > o) - (n < o) for o, n in steps.values()}
                    for presence, (o, n) in steps.items():
                        way = "widening" if n > o else "narrowing"
                        found = [
                            c.direction
                            for c in told
                            if [[role]] in c.details["held_together"]
                            and holds(c, {**facts, "presence": presence}, field)
                        ]
                        assert found == ([way if len(ways) == 1 else "undecidable"] if o != n else [])


def groups_named(who):
    """Reads `members of idp:a together with idp:b or idp:c` as the sets of groups that it names."""
    sides = who.removeprefix("members of ").split(" together with ")
    return each_of([re.split(", | or ", side.replace("idp:", "")) for side in sides])


METHODS = [f"/broker.v1.SomeService/Call{i}" for i in range(3)]


def some_admin(rng):
    """Makes an admin table at random: roles that allow and deny, and groups that have them."""
    rules = {}
    for role, method in product("abc", METHODS):
        if rng.random() < 0.5:
            rules[role, method] = rng.choice(["allow", "allow", "deny"])
    members = [(f"idp:{group}", role) for group, role in product("wxyz", "abc") if rng.random() < 0.4]
    return AdminTable([(*key, effect) for key, effect in rules.items()], members)


def some_limits(rng):
    """Makes limits at random: a default, and budgets of some roles."""
    budgets = {role: Budget(rng.randint(1, 3), rng.randint(4, 6)) for role in ROLES if rng.random() < 0.7}
    return Limits(Budget(2, 5), budgets)
