"""Ids grow, leaves are the truth, columns say the same."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import jose
from broker.authn import SteadyClock
from broker.errors import TokenInvalidError
from broker.ledger import EventIds, EventKind
from broker.ledger.events import MOST_AHEAD, head, rest_of
from broker.ledger.skew import MOST_SKEW, clock_trouble
from broker.server import parts
from tests.ledger.conftest import TRACE, denial


def millis(event_id: uuid.UUID) -> int:
    return event_id.int >> 80


class TestEventIds:
    def test_are_uuids_of_version_7(self):
        """Version, variant and time are where RFC 9562 wants them."""
        made = EventIds(lambda: 1_700_000_000.123, lambda bits: (1 << bits) - 1).new()

        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert millis(made) == 1_700_000_000_123

    def test_random_bits_are_not_the_counter(self):
        """Two processes at the same moment make different ids: 62 bits are drawn each time."""
        clock = lambda: 1_700_000_000.0  # noqa: E731
        one, two = EventIds(clock).new(), EventIds(clock).new()

        assert one != two
        assert one.int >> 64 == two.int >> 64

    @given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, MOST_AHEAD - 3)), max_size=60))
    @settings(max_examples=60, deadline=None)
    def test_grow_though_the_clock_jitters(self, steps):
        """Ids of one process grow strictly while its clock goes forward with steps back of some seconds."""
        now = [1_700_000_000.0]
        ids = EventIds(lambda: now[0])
        latest, made = now[0], [ids.new()]
        for forward, back in steps:
            latest += forward
            now[0] = latest - back
            made.append(ids.new())

        assert made == sorted(set(made))

    def test_many_in_one_millisecond(self):
        """Beyond 4,096 in a millisecond ids go on growing, into the next one."""
        ids = EventIds(lambda: 1_700_000_000.0)
        made = [ids.new() for _ in range(10_000)]

        assert made == sorted(set(made))
        assert millis(made[-1]) - millis(made[0]) == 2

    @pytest.mark.attack("W2")
    def test_w2_follow_a_clock_that_was_put_right(self):
        """After a clock an hour fast is put right, ids are of now: they would be refused for an hour else."""
        now = [1_700_003_600.0]
        ids = EventIds(lambda: now[0])
        ids.new()
        now[0] -= MOST_AHEAD - 1
        little = ids.new()
        now[0] -= 3600
        much = ids.new()

        assert millis(little) >= 1_700_003_600_000  # control: a small step is bridged
        assert millis(much) == int(now[0] * 1000)


class TestLeaf:
    @pytest.mark.attack("A11")
    @pytest.mark.parametrize(
        "text", ["a\nb", '"}{"', "\x1b[31mred", "=cmd()|'/c calc'!A1", "ä\u202e\U0001f600", "\\u0000"]
    )
    def test_a11_encodes_whatever_a_name_holds(self, text):
        """A leaf is one line of ASCII JSON and gives back exactly what went in."""
        rest = rest_of(EventKind.DENIAL, agent=text, tool=text, ticket=text, detail={text: text})
        leaf = head(uuid.uuid4(), TRACE, rest) + b',"outcome":"refused"}'

        assert leaf.isascii()
        assert all(byte >= 0x20 for byte in leaf)  # no newline, no escape sequence of a terminal
        parsed = json.loads(leaf)
        assert parsed["agent"] == parsed["tool"] == parsed["ticket"] == text
        assert parsed["detail"] == {text: text}

    async def test_columns_are_an_index_over_the_leaf(self, ground):
        """Every column can be computed from the stored leaf: of a grant, a read, a refusal and a denial."""
        case = await ground.case()
        ledger = await ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        read = case.read(grant)
        await ledger.append(read)
        await case.revoke(grant)
        refused = case.read(grant)
        assert (await ledger.append(refused)).reason == "TOKEN_INVALID"
        late = case.grant(policy_version=case.version)
        await case.sql("UPDATE broker.ticket SET status = 'closed' WHERE ticket_id = $1", case.ticket)
        assert (await ledger.append(late)).reason == "TICKET_CLOSED"
        no = denial(agent='https://idp.test|"\n', detail={"method": "/x"}, policy_version=str(case.version))
        await ledger.append(no)

        outcomes = []
        for item in (grant, read, refused, late, no):
            row = await ground.event(item.id)
            leaf = json.loads(row["leaf"])
            assert list(leaf) == [
                "v", "id", "trace", "kind", "agent", "tool", "grant", "customer", "ticket", "policy_version",
                "detail", "outcome", "reason", "record_time",
            ]  # fmt: skip
            assert {
                "v": 1,
                "id": str(row["id"]),
                "trace": row["trace_id"],
                "kind": row["kind"],
                "agent": row["agent"],
                "tool": row["tool"],
                "grant": str(row["grant_id"] or ""),
                "customer": row["customer_pseudonym"],
                "ticket": row["ticket_pseudonym"],
                "policy_version": str(row["policy_version"] or ""),
                "detail": leaf["detail"],
                "outcome": row["outcome"],
                "reason": row["reason"],
                "record_time": row["record_time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            } == leaf
            assert bytes(row["leaf"]).startswith(item.head)
            outcomes.append((row["outcome"], row["reason"]))
        assert outcomes == [
            ("granted", ""),
            ("released", ""),
            ("refused", "TOKEN_INVALID"),
            ("refused", "TICKET_CLOSED"),
            ("refused", "TICKET_DENIED"),
        ]


class TestClock:
    @pytest.mark.attack("W1", "W5")
    @pytest.mark.parametrize(
        ("seconds", "taken"), [(0, True), (10, True), (-10, True), (90, False), (-90, False)]
    )
    async def test_w1_a_writer_far_from_the_databases_clock_is_refused(self, ground, seconds, taken):
        """Ten seconds off works, a minute and a half is UNAVAILABLE and nothing is stored."""
        event_id = EventIds(lambda: time.time() + seconds).new()
        ledger = await ground.ledger()
        event = denial(id=event_id)
        if taken:
            await ledger.append(event)
        else:
            with pytest.raises(Exception, match="UnknownPostgresError") as refused:
                await ledger.append(event)
            assert refused.value.code == "UNAVAILABLE"

        assert (await ground.event(event_id) is not None) == taken

    @pytest.mark.attack("W1")
    @pytest.mark.parametrize("place", [0, 1])
    @pytest.mark.parametrize(("seconds", "word"), [(0, ""), (4, ""), (-4, ""), (7, "clock"), (-7, "clock")])
    async def test_w1_readiness_says_so_before_that(self, ground, seconds, word, place):
        """Readiness falls where either clock, of ids or of tokens, is off."""
        clocks = [time.time, time.time]
        clocks[place] = lambda: time.time() + seconds
        ledger = await ground.ledger(clocks=clocks)
        why = await ledger.ready()

        assert word in why
        assert bool(word) == bool(why)

    @pytest.mark.attack("W1")
    def test_w1_no_worker_is_ready_that_refuses_a_fresh_grant(self):
        """Readiness falls before a grant of the database's now is "not valid yet" by the worker's clock."""
        now = 1_800_000_000.0
        jose.check_window(now - MOST_SKEW, begins=now, expires=now + 300)
        assert clock_trouble(now - MOST_SKEW, now, now - MOST_SKEW) == ""
        with pytest.raises(TokenInvalidError):
            jose.check_window(now - jose.CLOCK_SKEW - 1, begins=now, expires=now + 300)

        assert MOST_SKEW < jose.CLOCK_SKEW

    def test_a_slow_answer_is_no_skew(self):
        """The database's time may be any between the question and the answer."""
        assert clock_trouble(100.0, 104.0, 160.0) == ""
        assert "+6 s" in clock_trouble(110.0, 104.0, 160.0)
        assert "-44 s" in clock_trouble(100.0, 204.0, 160.0)

    @pytest.mark.attack("W3", "W5")
    async def test_w5_no_clock_is_anchored_while_it_is_wrong(self, ground, monkeypatch):
        """A worker that starts an hour ahead waits, says so, and once it is put right its clock is right."""
        ahead = [3600.0]
        monkeypatch.setattr(parts, "SteadyClock", lambda: SteadyClock(lambda: time.time() + ahead[0]))
        monkeypatch.setattr(parts, "RETRY", 0)
        said = []

        def report(why):
            said.append(why)
            ahead[0] = 0.0

        clock = await parts.steady_clock(await ground.pool(), report, asyncio.Event())

        assert len(said) == 1
        assert "machine: the clock is +3600 s off" in said[0]
        assert abs(clock() - time.time()) < 1
