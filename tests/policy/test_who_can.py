"""Who can see a field: every way there is, and no other."""

import json
import random
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.cli import run
from broker.model import Level
from broker.policy import PolicyFiles, load
from broker.policy.boxes import covered
from broker.policy.everywhere import RANK, default_role_sets, space_of
from broker.policy.who_can import who_can
from tests.policy.random_policies import CATALOG, FIELDS, nestings, policy_of, rules
from tests.policy.sample import POLICIES

STARTING = load(PolicyFiles.from_directory(POLICIES), "1")


def level_at(policy, point):
    """Decides a point of roles, facts and field."""
    roles, *facts, field = point
    return policy.table.outcome(policy.table.ground(roles.split("+"), facts), field)[0]


def points(ways, level):
    """Gives the points of the ways at a level."""
    return {point for way in ways if way.level is level for point in way.space.points(way.box)}


class TestExact:
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_ways_are_what_trying_everything_finds(self, lines, nesting, seed):
        """For any policy and any facts given: the ways are the points of each level, none less or more."""
        policy = policy_of(lines, nesting)
        rng = random.Random(seed)
        space = space_of(CATALOG, default_role_sets(policy))
        field = rng.choice(list(FIELDS))
        names = rng.sample(space.names[1:-1], rng.randint(0, 2))
        fixed = {name: rng.choice(space.dimensions[name]) for name in names}
        ways = who_can(policy, field, **fixed)
        everything = [
            point
            for point in product(*space.words)
            if point[-1] == field
            and all(point[space.names.index(name)] == word for name, word in fixed.items())
        ]

        for least in Level:
            expected = {p for p in everything if RANK[level_at(policy, p)] >= RANK[least]}
            assert points(ways, least) == expected
            some = [way.box for way in ways if way.level is least]
            for box in some:
                assert not covered(box, [other for other in some if other is not box])
            assert who_can(policy, field, level=least, **fixed) == tuple(w for w in ways if w.level is least)

    def test_rules_are_those_that_decide(self):
        """Each way names every rule that decides in it, and no other."""
        for way in who_can(STARTING, "customer.phone"):
            deciding = set()
            for point in way.space.points(way.box):
                roles, *facts, field = point
                deciding.add(STARTING.table.outcome(STARTING.table.ground(roles.split("+"), facts), field)[1])
            assert set(way.rules) == deciding

    @pytest.mark.parametrize("field", ["customer.phone", "customer.card_number", "customer.id_document"])
    def test_sentences_of_one_answer_differ(self, field):
        """No two ways of a level read the same."""
        told = [(way.level, way.sentence) for way in who_can(STARTING, field)]

        assert len(told) == len(set(told)) > 0


class TestSentences:
    def test_phone_of_a_billing_ticket_in_clear(self):
        """The question of the manual has an answer of three sentences."""
        ways = who_can(STARTING, "customer.phone", level=Level.CLEAR, ticket_kind="billing")
        there = "opened by the customer, a system or an import, while the customer is present"

        assert [way.sentence for way in ways] == [
            (
                "agents with billing, to billing-dispute, on a ticket of kind billing, as its assignee, "
                f"where it was routed to the agent, {there}"
            ),
            (
                "agents with tier1 or tier2, to call-back, on a ticket of kind billing, as its assignee, "
                f"where it was routed to the agent, {there}"
            ),
            (
                "agents with tier2, to resolve-ticket, on a ticket of kind billing, as its assignee, "
                f"where it was routed to the agent or handed over by a colleague, {there}"
            ),
        ]

    def test_nobody(self):
        """What nobody sees has no way."""
        assert who_can(STARTING, "customer.id_document", level=Level.CLEAR) == ()

    def test_wrong_words(self):
        """A field, fact or word that does not exist is refused."""
        for wrong in ({"field": "customer.fone"}, {"ticket_kind": "biling"}, {"kind": "billing"}):
            with pytest.raises(ValueError, match=r"no such dimension|has a word"):
                who_can(STARTING, **({"field": "customer.phone"} | wrong))


def test_command(capsys):
    """The command prints the ways under a head for each level, and the same as JSON."""
    command = ["policy", "who-can", str(POLICIES), "customer.card_number"]

    assert run(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("customer.card_number is seen in clear by nobody\n")
    assert "seen, masked at least, by\n  - agents with billing, to resolve-ticket or billing-dispute" in out
    assert run([*command, "--kind", "billing", "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["ways"]
    assert {tuple(way["ticket_kind"]) for way in ways} == {("billing",)}
    assert run([*command, "--kind", "biling"]) == 2
    assert "did you mean 'billing'?" in capsys.readouterr().err
