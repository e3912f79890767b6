"""What is decided once for many grants is what the policy says to each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from broker.access.prepared import PreparedDecisions, said
from broker.access.refusals import decision_detail
from broker.model import Presence
from broker.policy import load
from tests.policy.sample import FACTS, edited

TODAY = date(2027, 1, 31)
GROUPS = frozenset({"front"})
FIELDS = ("customer.name", "customer.email", "customer.iban")


@pytest.fixture(scope="module")
def policies():
    """Gives a policy with a rule that ends, on its last day and on the day after."""
    ending = edited("policy.csv", "profile, clear, allow", "profile, clear, allow, until 2027-01-31")
    return [load(ending, "1", today=day) for day in (TODAY, date(2027, 2, 1))]


def test_equal_questions_share_an_entry(policies):
    decisions = PreparedDecisions()
    first = decisions.get(policies[0], GROUPS, FACTS, FIELDS)

    assert decisions.get(policies[0], frozenset(GROUPS), FACTS, tuple(FIELDS)) is first


def test_each_part_of_the_question_counts(policies):
    """Another day, another version, other groups, facts or fields: decided anew, as the policy says it."""
    decisions = PreparedDecisions()
    present = replace(FACTS, presence=Presence.PRESENT)
    other = replace(policies[0], version="2")
    questions = [
        (policies[0], GROUPS, FACTS, FIELDS),
        (policies[1], GROUPS, FACTS, FIELDS),
        (other, GROUPS, FACTS, FIELDS),
        (policies[0], frozenset({"nobody"}), FACTS, FIELDS),
        (policies[0], GROUPS, present, FIELDS),
        (policies[0], GROUPS, FACTS, FIELDS[:1]),
    ]

    found = [decisions.get(*question) for question in questions]

    assert len({id(each) for each in found}) == len(questions)
    for (policy, groups, facts, fields), each in zip(questions, found, strict=True):
        decided = policy.decide_for(groups, facts, fields)
        assert each.decided.decision == decided.decision
        assert json.loads(each.detail) == json.loads(json.dumps(decision_detail(decided)))
        assert said(each.answer("p", "a")) == decided.decision.fields
        assert dict(zip(each.fields, each.levels, strict=True)) == {
            name: level.value for name, level in decided.decision.allowed.items()
        }


def test_memory_is_bounded(policies):
    decisions = PreparedDecisions(capacity=2)
    first = decisions.get(policies[0], GROUPS, FACTS, FIELDS)
    for fields in (FIELDS[:1], FIELDS[:2]):
        decisions.get(policies[0], GROUPS, FACTS, fields)

    assert decisions.get(policies[0], GROUPS, FACTS, FIELDS) is not first
    assert len(decisions._entries) <= 2
