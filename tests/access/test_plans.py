"""What a worker decided for an open grant is used again only while the same rules are in force."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest

from broker.access.opened import OpenGrant, OpenGrants
from broker.access.reading import RecordReading
from broker.model import Level
from broker.policy import load
from tests.policy.sample import FACTS, edited

LAST_DAY = date(2027, 1, 31)
NAME = "customer.name"


def policy(today):
    ending = edited("policy.csv", "profile, clear, allow", "profile, clear, allow, until 2027-01-31")
    return load(ending, "1", today=today)


def plan(holder, opened):
    reading = RecordReading.__new__(RecordReading)
    reading._policy = holder
    reading._opened = OpenGrants(lambda: datetime(2027, 1, 31, tzinfo=UTC))
    agent = SimpleNamespace(key="https://idp.test|alice")
    caller = SimpleNamespace(
        principal=SimpleNamespace(agent=agent, groups=frozenset({"front"})),
        tool=SimpleNamespace(identity="spiffe://broker.test/tool/desk"),
    )
    claims = SimpleNamespace(grant_id=uuid4(), levels={NAME: Level.CLEAR})
    return reading._plan(caller, claims, opened, (NAME,))


@pytest.mark.parametrize(("day", "level"), [(LAST_DAY, Level.CLEAR), (date(2027, 2, 1), None)])
def test_a_rule_that_ends_ends_in_open_grants(day, level):
    """A plan made on the rule's last day still serves that day, and no later one."""
    holder = SimpleNamespace(current=policy(LAST_DAY))
    opened = OpenGrant(
        "pass", "c", "t", {NAME: Level.CLEAR}, datetime(2027, 2, 2, tzinfo=UTC), FACTS, 1, present=False
    )
    before = plan(holder, opened)
    holder.current = policy(day)

    after = plan(holder, opened)

    assert [step[2] for step in before.steps] == [Level.CLEAR]
    assert [step[2] for step in after.steps] == [level]
    assert (after is before) == (day == LAST_DAY)
