"""What a worker remembers between calls: bounded, ended by time, and never what was not accepted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from broker.access.opened import BASIS_SECONDS, MOST_PLANS, Bases, Basis, OpenGrants

KEY = ("https://idp.test|alice", "T-1", "")


class Clock:
    """A clock that is told how late it is."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def basis(customer="7"):
    return Basis(SimpleNamespace(), customer, "c-pseudonym", "t-pseudonym")


class TestBases:
    def test_remembers_what_was_put(self):
        """A basis is found under its own key and under no other."""
        bases = Bases(Clock())
        bases.put(KEY, kept := basis())

        assert bases.get(KEY) is kept
        assert bases.get(("https://idp.test|mallory", "T-1", "")) is None
        assert bases.get((KEY[0], "T-2", "")) is None
        assert bases.get((KEY[0], "T-1", "7")) is None

    def test_ends(self):
        """A basis is forgotten when its time is over, to the second."""
        clock = Clock()
        bases = Bases(clock)
        bases.put(KEY, kept := basis())

        clock.now = BASIS_SECONDS - 0.001
        assert bases.get(KEY) is kept
        clock.now = BASIS_SECONDS
        assert bases.get(KEY) is None

    def test_dropped(self):
        """What the append did not accept is gone, and dropping twice is no error."""
        bases = Bases(Clock())
        bases.put(KEY, basis())
        bases.drop(KEY)
        bases.drop(KEY)

        assert bases.get(KEY) is None

    def test_bounded(self):
        """The least recently granted goes first."""
        bases = Bases(Clock(), capacity=2)
        for ticket in ("T-1", "T-2", "T-1", "T-3"):
            bases.put((KEY[0], ticket, ""), basis())

        assert [bases.get((KEY[0], f"T-{n}", "")) is not None for n in (1, 2, 3)] == [True, False, True]


class TestOpenGrants:
    @pytest.mark.parametrize(("seconds", "found"), [(299, True), (300, False)])
    def test_ends_with_its_grant(self, seconds, found):
        """An open grant is forgotten when the grant ends."""
        start = datetime(2026, 1, 1, tzinfo=UTC)
        clock = Clock()
        opened = OpenGrants(lambda: start + timedelta(seconds=clock.now))
        grant_id = uuid4()
        opened.put(grant_id, "alice", SimpleNamespace(expire_time=start + timedelta(seconds=300)))
        clock.now = seconds

        assert (opened.get(grant_id, "alice") is not None) is found
        assert opened.get(grant_id, "mallory") is None

    def test_bounded(self):
        """The least recently used goes first."""
        end = datetime(2100, 1, 1, tzinfo=UTC)
        opened = OpenGrants(lambda: datetime(2026, 1, 1, tzinfo=UTC), capacity=2)
        one, two, three = uuid4(), uuid4(), uuid4()
        for grant_id in (one, two):
            opened.put(grant_id, "a", SimpleNamespace(expire_time=end))
        opened.get(one, "a")
        opened.put(three, "a", SimpleNamespace(expire_time=end))

        assert [opened.get(g, "a") is not None for g in (one, two, three)] == [True, False, True]

    def test_plans_are_bounded_for_the_whole_worker(self):
        """However many grants an agent has and in however many orders it asks, the first plans go."""
        opened = OpenGrants(lambda: datetime(2026, 1, 1, tzinfo=UTC), planned=12)
        grants = [SimpleNamespace(plans={}) for _ in range(4)]
        for number in range(3):
            for grant in grants:
                opened.plan(grant, number, SimpleNamespace(steps=(1, 2, 3)))

        assert [list(grant.plans) for grant in grants] == [[2]] * 4

        opened.plan(grants[0], "long", SimpleNamespace(steps=(0,) * 12))
        assert [list(grant.plans) for grant in grants] == [["long"], [], [], []]

    def test_plans_are_bounded_for_each_grant(self):
        """A tool that asks one grant for ever new lists has them decided anew, and takes no other's."""
        opened = OpenGrants(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        greedy, other = SimpleNamespace(plans={}), SimpleNamespace(plans={})
        opened.plan(other, "its", SimpleNamespace(steps=(1,)))
        for number in range(MOST_PLANS + 1):
            opened.plan(greedy, number, SimpleNamespace(steps=(1,)))

        assert list(greedy.plans) == [MOST_PLANS]
        assert list(other.plans) == ["its"]
