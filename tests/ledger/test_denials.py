"""Denials are on record, and are no weapon: beyond a rate they are counted, exactly."""

from __future__ import annotations

import asyncio
import json

import pytest

from broker.access.refusals import Refusals
from broker.errors import LedgerUnavailableError, TicketDeniedError, TokenInvalidError, ToolIdentityError
from broker.ledger import DenialRate
from broker.ledger.denials import MOST_KEYS, WINDOW
from tests.ledger.conftest import IDS, TRACE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestDenialRate:
    def test_counts_to_the_last_one(self):
        """However denials spread over windows, admitted and counted add up to all of them."""
        clock = Clock()
        rate = DenialRate(3, clock)
        admitted = counted = 0
        for number in range(500):
            clock.now += number % 7
            admitted += rate.admit("peer", "R")
            if number % 5 == 0:
                counted += sum(count for _, _, count in rate.due())
        counted += sum(count for _, _, count in rate.due(everything=True))

        assert admitted + counted == 500
        assert 3 <= admitted < 250

    def test_apart_by_peer_and_reason(self):
        """One peer's flood uses up nobody else's share, nor that of its other reasons."""
        rate = DenialRate(1, Clock())

        assert [rate.admit(*key) for key in (("a", "R"), ("a", "R"), ("b", "R"), ("a", "S"))] == [
            True, False, True, True,
        ]  # fmt: skip

    @pytest.mark.attack("X6")
    def test_x6_memory_is_bounded(self):
        """Beyond so many peers they share a counter; nobody is lost from the sum."""
        rate = DenialRate(1, Clock())
        total = MOST_KEYS + 5_000
        admitted = sum(rate.admit(f"peer {n}", "R") for n in range(total))
        held = sum(count for _, _, count in rate.due(everything=True))

        assert admitted + held == total
        assert admitted == MOST_KEYS + 1

    def test_given_back_counts_are_due_again(self):
        """What could not be recorded is told later, together with what came meanwhile."""
        clock = Clock()
        rate = DenialRate(1, clock)
        for _ in range(5):
            rate.admit("peer", "R")
        clock.now += WINDOW
        [due] = rate.due()
        rate.give_back(*due)
        rate.admit("peer", "R")
        rate.admit("peer", "R")
        clock.now += WINDOW

        assert due == ("peer", "R", 4)
        assert rate.due() == [("peer", "R", 5)]


async def events(ground, tool: str) -> list[dict]:
    rows = await ground.conn.fetch("SELECT leaf FROM broker.ledger_event WHERE tool = $1 ORDER BY id", tool)
    return [json.loads(row["leaf"]) for row in rows]


class TestRefusals:
    @pytest.mark.attack("X6")
    async def test_x6_a_flood_becomes_one_event_with_a_count(self, ground):
        """100 denials, 5 allowed by themselves: 5 events and one that says 95, at shutdown at the latest."""
        clock = Clock()
        refusals = Refusals(await ground.ledger(), IDS, DenialRate(5, clock))

        async def deny() -> None:
            await refusals.record(
                TicketDeniedError(), trace_id=TRACE, tool="spiffe://test/flood", method="/m"
            )

        await asyncio.gather(*(deny() for _ in range(100)))
        await refusals.record_counts()
        assert len(await events(ground, "spiffe://test/flood")) == 5  # its minute still runs
        await refusals.record_counts(everything=True)
        await refusals.record_counts(everything=True)
        told = await events(ground, "spiffe://test/flood")

        assert [e["kind"] for e in told] == ["denial"] * 5 + ["denials"]
        assert told[-1]["detail"] == {"count": 95}
        assert told[-1]["reason"] == "TICKET_DENIED"

    async def test_counts_survive_an_outage(self, own_ground):
        """Counts that the ledger did not take are told once it is back, none lost and none twice."""
        clock = Clock()
        refusals = Refusals(await own_ground.ledger(), IDS, DenialRate(1, clock))
        for tool, times in (("a", 4), ("b", 6)):
            for _ in range(times):
                await refusals.record(TicketDeniedError(), trace_id=TRACE, tool=tool)
        name = await own_ground.conn.fetchval("SELECT broker.partition_name(now())")
        await own_ground.conn.execute(f"ALTER TABLE broker.ledger_event DETACH PARTITION broker.{name}")
        clock.now += WINDOW
        for _ in range(2):
            with pytest.raises(LedgerUnavailableError):
                await refusals.record_counts()
            clock.now += WINDOW
        await own_ground.conn.execute(f"ALTER TABLE broker.{name} RENAME TO put_aside")
        await own_ground.conn.execute("SELECT broker.ensure_partitions()")
        await refusals.record_counts()
        told = {tool: await events(own_ground, tool) for tool in ("a", "b")}

        assert {tool: [e["detail"]["count"] for e in each] for tool, each in told.items()} == {
            "a": [3],
            "b": [5],
        }

    async def test_once_and_with_its_id(self, ground):
        """A refusal's decision id is its event's; recorded a second time it is neither twice nor another."""
        refusals = Refusals(await ground.ledger(), IDS, DenialRate(5, Clock()))
        error = await refusals.record(
            TokenInvalidError(cause="expired"), trace_id=TRACE, tool="spiffe://test/x1"
        )
        again = await refusals.record(error, trace_id=TRACE, tool="spiffe://test/x1")
        [event] = await events(ground, "spiffe://test/x1")

        assert again is error
        assert event["id"] == str(error.decision_id)
        assert (event["kind"], event["detail"]["cause"]) == ("login_failure", "expired")

    async def test_without_a_record_there_is_no_no(self, own_ground):
        """A refusal that cannot be put on record is UNAVAILABLE, whatever it would have been."""
        refusals = Refusals(await own_ground.ledger(), IDS, DenialRate(5, Clock()))
        await refusals.record(ToolIdentityError(), trace_id=TRACE, tool="t")  # control
        await own_ground.conn.execute("DROP FUNCTION broker.append_events CASCADE")
        with pytest.raises(LedgerUnavailableError):
            await refusals.record(ToolIdentityError(), trace_id=TRACE, tool="t")
