"""A test passes exactly where every situation comes out as expected; what fails is said in sentences."""

from datetime import date
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import OpenedBy, Presence, Provenance, Relation
from broker.policy import load
from broker.policy.rules import CONDITIONS
from broker.policy.suite import Case, Suites, read_suites, run, runner
from broker.policy.suite.cases import Expected
from tests.policy import naive
from tests.policy.sample import RULES, edited, files, small

CATALOG = small().catalog
RULE_NAMES, INCLUDES, _ = naive.parse(RULES)
ALL = {
    "purpose": list(CATALOG.purposes),
    "relation": [str(word) for word in Relation],
    "ticket_kind": [*CATALOG.ticket_kinds, "another"],
    "provenance": [str(word) for word in Provenance],
    "opened_by": [str(word) for word in OpenedBy],
    "presence": [str(word) for word in Presence],
}


def suites_of(text):
    """Reads the body of one test file."""
    return read_suites({"tests/some.yaml": f"version: 1\ntests:\n{text}...\n"}, CATALOG)


def report(text, policy=None):
    """Runs the body of one test file against the small policy."""
    return run(policy or small(), suites_of(text))


@st.composite
def cases(draw):
    """Gives a test over the small policy: some words, some open facts, one field."""
    conditions = tuple(
        tuple(draw(st.lists(st.sampled_from(words), max_size=2, unique=True))) for words in ALL.values()
    )
    roles = draw(st.sampled_from([(), (frozenset({"tier1"}),), (frozenset({"tier2"}),)]))
    field = draw(st.sampled_from(["customer.name", "customer.email"]))
    return Case("f", 1, "n", roles, frozenset(), conditions, {field: draw(st.sampled_from(Expected))})


@settings(max_examples=150, deadline=None)
@given(cases())
def test_passes_exactly_where_a_reading_by_hand_agrees_everywhere(case):
    """`any` and `every` are all there are: the folded run says what looking at each point says."""
    (field, expected) = next(iter(case.expected.items()))
    words = [chosen or known for chosen, known in zip(case.conditions, ALL.values(), strict=True)]
    roles = case.roles or [set(some) for n in (1, 2) for some in combinations(("tier1", "tier2"), n)]
    good = {
        Expected.CLEAR: {"clear"},
        Expected.MASKED: {"masked"},
        Expected.WITHHELD: {None},
        Expected.NOT_CLEAR: {"masked", None},
    }[expected]
    by_hand = all(
        naive.decide(
            RULE_NAMES, INCLUDES, some, dict(zip(CONDITIONS, point, strict=True)), field,
            CATALOG.fields[field].field_class,
        )
        in good
        for some, point in product(roles, product(*words))
    )  # fmt: skip

    assert run(small(), Suites((case,))).ok == by_hand


SELF = """\
  Whoever took a ticket sees no address:
    roles: [tier1]
    purpose: resolve
    ticket: {relation: assignee, kind: general, provenance: self, opened_by: customer, presence: absent}
    expect: {withheld: customer.email}
"""


def test_failure_is_a_sentence_with_the_rule():
    """Who, on which ticket, would see what, what was expected, and the line that allows it."""
    assert report(SELF).ok, "the control arm"
    policy = load(edited("policy.csv", "any, routed, any, any, contact", "any, self, any, any, contact"), "1")
    (failure,) = report(SELF, policy).failures

    assert failure.text == (
        "tests/some.yaml:3: Whoever took a ticket sees no address: tier1, on a ticket of kind general that "
        "they took themselves, opened by the customer, with the customer away, for resolve, would see "
        "customer.email masked; expected withheld; allowed by policy.csv:7"
    )


def test_facts_that_make_no_difference_are_not_told():
    """An open fact is told only where another word would come out otherwise."""
    text = """\
  Nobody sees names:
    roles: every
    expect: {withheld: customer.name}
"""
    (failure,) = report(text).failures

    assert failure.sentence == (
        "tier1, on a ticket that was routed to them, for resolve, would see customer.name in clear; "
        "expected withheld; allowed by policy.csv:6"
    )


def test_withheld_is_told_with_what_was_missing():
    """A field that should be seen and is not says why."""
    (failure,) = report(SELF.replace("withheld: customer.email", "masked: customer.email")).failures

    assert "would not see customer.email; expected masked; needs provenance routed" in failure.sentence


def test_names_that_the_policy_lacks_fail():
    """A test of a role or group that is gone fails; it never passes for want of anybody."""
    roles = report(SELF.replace("[tier1]", "[teir1]"))
    groups = report(SELF.replace("roles: [tier1]", "groups: [frnt]"))

    assert [f.sentence for f in roles.failures] == ["the policy has no role 'teir1'; did you mean 'tier1'?"]
    assert [f.sentence for f in groups.failures] == ["no g line maps the group 'frnt'; did you mean 'front'?"]


@pytest.mark.attack("C18")
def test_too_many_situations_fail(monkeypatch):
    """A test beyond the bound fails and says what to do; none is cut short in silence."""
    monkeypatch.setattr(runner, "MAX_SITUATIONS", 1)

    assert "too many situations" in report(SELF.replace("assignee", "any")).failures[0].sentence


class TestCoverage:
    """Which rules no test reaches."""

    CLEAR = """\
  Tier 2 sees addresses while the customer is there:
    roles: [tier2]
    purpose: resolve
    ticket: {relation: assignee, provenance: routed, opened_by: customer, presence: present}
    expect: {clear: customer.email}
"""
    DENIED = """\
  Whoever opened a ticket sees no address:
    roles: [tier2]
    purpose: resolve
    ticket: {relation: assignee, provenance: routed, opened_by: self, presence: present}
    expect: {withheld: customer.email}
"""

    def test_rule_that_decides_is_reached(self):
        """The allow that gives the level, the denial that refuses it; nothing else."""
        assert report(self.CLEAR).unreached == ("policy.csv:6", "policy.csv:7", "policy.csv:9")
        assert report(self.DENIED).unreached == ("policy.csv:6", "policy.csv:7", "policy.csv:8")
        both = report(self.CLEAR + self.DENIED)
        assert both.coverage == {"policy.csv:6": 0, "policy.csv:7": 0, "policy.csv:8": 1, "policy.csv:9": 1}

    def test_expecting_less_than_clear_reaches_no_allow(self):
        """`not_clear` does not say that anything is seen, so what is seen is not thereby tested."""
        text = self.CLEAR.replace("present}", "absent}").replace("clear:", "not_clear:")
        assert report(text).unreached == ("policy.csv:6", "policy.csv:7", "policy.csv:8", "policy.csv:9")
        assert report(text.replace("not_clear:", "masked:")).coverage["policy.csv:7"] == 1, "the control arm"

    def test_failing_test_reaches_nothing(self):
        """A rule is not tested by a test that fails."""
        failing = report(self.CLEAR.replace("clear:", "masked:"))
        assert (failing.ok, set(failing.coverage.values())) == (False, {0})


def test_every_is_each_role_alone_and_each_pair():
    """Two roles that include nothing of each other are three agents, who match three sets of rules."""
    apart = load(edited("policy.csv", "g, tier2, tier1\n", ""), "1")
    text = """\
  Nobody reads addresses while the customer is there:
    roles: every
    purpose: resolve
    ticket: {relation: assignee, kind: general, provenance: routed, opened_by: customer, presence: present}
    expect: {withheld: every}
"""

    assert report(text, apart).situations == 3
    assert report(text.replace("every\n    purpose", "[tier1, tier2]\n    purpose"), apart).situations == 1


def test_report_is_data():
    """A program reads names, sentences and rules."""
    said = report(SELF).as_mapping()

    assert (said["ok"], said["passed"]) == (True, ["Whoever took a ticket sees no address"])
    assert said["coverage"]["rules"] == 4
    assert said["coverage"]["reached"] + len(said["coverage"]["unreached"]) == 4


def test_policy_whose_rules_have_ended_is_tested_without_them():
    """What is tested is what would decide on that day."""
    profile = "profile, clear, allow"
    timed = edited("policy.csv", profile, f"{profile}, until 2026-01-31").texts["policy.csv"]
    text = """\
  Tier 1 knows whom they talk to:
    roles: [tier1]
    purpose: resolve
    ticket: {relation: assignee, provenance: routed, opened_by: customer}
    expect: {clear: customer.name}
"""
    assert report(text, load(files(policy_csv=timed), "1", today=date(2026, 1, 31))).ok
    assert not report(text, load(files(policy_csv=timed), "1", today=date(2026, 2, 1))).ok
