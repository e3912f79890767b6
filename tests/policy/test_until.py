"""A rule may end: from the day after, it is as if its line were not there."""

from datetime import date, timedelta

import pytest

from broker.model import Level
from broker.policy import load
from broker.policy.verify import Domain
from tests.policy.sample import FACTS, RULES, edited, files, findings

LAST = date(2027, 1, 31)
PROFILE = "p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow"
TIMED = edited("policy.csv", PROFILE, f"{PROFILE}, until 2027-01-31")
TIER1 = frozenset({"tier1"})


def name_level(policy):
    """Gives what tier 1 sees of a name."""
    return policy.decide(TIER1, FACTS, ["customer.name"]).fields[0].level


def test_rule_is_in_force_to_the_end_of_its_last_day():
    """On the last day it allows, on the next it does not; nothing else changes."""
    before = load(TIMED, "1", today=LAST)
    after = load(TIMED, "1", today=LAST + timedelta(days=1))
    never = load(files(policy_csv=RULES.replace(PROFILE + "\n", "")), "1", today=LAST)

    assert (name_level(before), name_level(after), name_level(never)) == (Level.CLEAR, None, None)
    assert (before.is_over(LAST), before.is_over(LAST + timedelta(days=1))) == (False, True)
    assert not after.is_over(date(2100, 1, 1))
    domain = Domain(after.book, after.catalog, after.table)
    for question in domain.all():
        ground = (question.roles, question.conditions)
        assert [
            policy.table.outcome(policy.table.ground(*ground), question.field)[0] for policy in (after, never)
        ] == [never.table.outcome(never.table.ground(*ground), question.field)[0]] * 2


def test_casbin_sees_the_rule_while_it_is_in_force_and_never_its_end():
    """The table is held against Casbin over the rules of the day."""
    assert load(TIMED, "1", today=LAST).verification == load(files(), "1").verification
    assert "equals Casbin" in load(TIMED, "1", today=LAST + timedelta(days=1)).verification


def test_when_every_rule_has_ended_nothing_is_allowed():
    """A book whose last rule ended withholds everything; Casbin is never asked with no rule at all."""
    rules = f"g, idp:front, tier1\n{PROFILE}, until 2027-01-31\n# end\n"
    limits = "version: 1\nbudgets:\n  default: {per_hour: 1, per_day: 1}\n...\n"
    timed = files(policy_csv=rules, limits_yaml=limits)

    assert name_level(load(timed, "1", today=LAST)) is Level.CLEAR
    ended = load(timed, "1", today=LAST + timedelta(days=1))
    assert name_level(ended) is None
    assert "no rule is in force" in ended.verification


SPOILT = {
    "no date": ("until", "until"),
    "a day that does not exist": ("until 2027-02-30", "until"),
    "another order": ("until 31-01-2027", "until"),
    "without dashes": ("until 20270131", "until"),
    "a week": ("until 2027-W04-7", "until"),
    "two spaces": ("until  2027-01-31", "until"),
    "an hour": ("until 2027-01-31T10:00", "until"),
    "a capital": ("Until 2027-01-31", "field-count"),
    "a beginning": ("from 2027-01-31", "field-count"),
    "two ends": ("until 2027-01-31, until 2027-01-31", "field-count"),
}


@pytest.mark.parametrize(("end", "name"), SPOILT.values(), ids=SPOILT)
def test_spoilt_end_is_refused(end, name):
    """An end is `until` and a day, written one way; the control arm is every test above."""
    assert [
        f for f in findings(edited("policy.csv", PROFILE, f"{PROFILE}, {end}")) if f.endswith(f"[{name}]")
    ]


def test_denial_has_no_end():
    """A denial that ended would widen what is allowed, overnight and unseen."""
    deny = "p, any, any, any, any, any, self, any, contact, any, deny"

    assert findings(edited("policy.csv", deny, deny + ", until 2027-01-31"))[0].endswith("[deny-until]")


def test_line_that_differs_in_its_end_alone_is_refused():
    """Two ends for one rule: whoever wrote the second forgot the first."""
    twice = edited("policy.csv", PROFILE, f"{PROFILE}\n{PROFILE}, until 2027-01-31")

    assert findings(twice)[0].endswith("[duplicate]")
