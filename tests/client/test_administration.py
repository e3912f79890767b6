"""The clients of the admin port."""

from __future__ import annotations

import grpc
import pytest

from broker.client import AdminClient, AgentName, ClientError, FeedClient, UnavailableError
from tests.client.conftest import Fault

MALLORY = AgentName("https://idp.test", "mallory")


class TestAdminClient:
    async def test_suspends_and_reinstates(self, broker, tls):
        """The suspension names whom and why; no agent's token is sent."""
        async with AdminClient(broker.target, **tls) as admin:
            suspension = await admin.suspend(MALLORY, reason="sells data")
            ended = await admin.reinstate(MALLORY, reason="was a drill")

        assert (suspension.agent, suspension.reason, suspension.end_time) == (MALLORY, "sells data", None)
        assert (ended.end_time, ended.decision_id) == (None, "d-i")
        assert {token for _, token in broker.calls} == {""}

    async def test_revokes_once(self, broker, tls):
        """A revocation is not repeated by itself, because its count would be wrong."""
        broker.live = {"g1", "g2"}
        async with AdminClient(broker.target, **tls) as admin:
            revocation = await admin.revoke_grants(agent=MALLORY, reason="sells data")
            broker.faults = [Fault(grpc.StatusCode.UNAVAILABLE)]
            with pytest.raises(UnavailableError):
                await admin.revoke_grants(ticket_id="T-1", reason="sells data")

        assert revocation.revoked == 2
        assert broker.count("RevokeGrants") == 2

    @pytest.mark.parametrize("selector", [{}, {"ticket_id": "T-1", "grant_id": "g"}], ids=["none", "two"])
    async def test_needs_exactly_one_selector(self, broker, tls, selector):
        """Nothing is sent where it is unclear what would end."""
        async with AdminClient(broker.target, **tls) as admin:
            with pytest.raises(ClientError):
                await admin.revoke_grants(**selector, reason="sells data")

        assert broker.calls == []

    async def test_goes_through_all_suspensions(self, broker, tls):
        """Pages are joined."""
        async with AdminClient(broker.target, **tls) as admin:
            found = [s.reason async for s in admin.suspensions()]

        assert found == ["first", "second"]


class TestFeedClient:
    async def test_cuts_what_is_too_much_for_one_call(self, broker, tls):
        """Any number of events may be given."""
        async with FeedClient(broker.target, **tls) as feed:
            outcomes = await feed.publish(["e"] * 1200)
            resync = await feed.resync(["e"] * 501)

        assert outcomes == ["applied"] * 1200
        assert broker.batches == [500, 500, 200, 500, 1]
        assert resync.tickets == 500

    async def test_sends_heartbeats(self, broker, tls):
        """The answer says whether events are missing."""
        async with FeedClient(broker.target, **tls) as feed:
            beat = await feed.heartbeat("e")

        assert (beat.resync_needed, beat.contiguous_seq, beat.stale_time) == (False, 7, None)

    async def test_repeats_a_snapshot_whole(self, broker, tls):
        """A retried snapshot starts from its first event again."""
        broker.faults = [Fault(grpc.StatusCode.UNAVAILABLE)]
        async with FeedClient(broker.target, **tls) as feed:
            resync = await feed.resync(["e"] * 501)

        assert resync.tickets == 500
