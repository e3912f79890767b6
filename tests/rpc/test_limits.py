"""One tool's flood is that tool's trouble: rates and places are counted per certificate, before tokens."""

import asyncio
import statistics
import time

import pytest
import pytest_asyncio

from broker.errors import RateLimitedError
from broker.rpc.limits import MOST_PEERS, PeerLimits
from broker.v1 import access_service_pb2 as pb
from broker.v1 import containment_service_pb2 as containment
from tests.rpc.company import creation

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, LIST = "AccessService/CreateGrant", "AccessService/ListAssignedTickets"
READ = "AccessService/ReadRecord"
RATE = 40


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worker(company):
    """A worker that lets a tool call forty times a second, and records three refusals of a kind."""
    async with company.worker(settings={"peer_rate": RATE, "denial_events_per_minute": 3}) as worker:
        yield worker


@pytest.mark.attack("X1", "K10")
async def test_flood(company, worker):
    """Hundreds of grants asked for at once: the tool gets its rate and RATE_LIMITED, others their answers."""
    tickets = [await company.ticket("goran", customers=("5",)) for _ in range(3)]
    quiet = company.peer("bob", "tool-phone", target=worker.target)
    async with company.peer("goran", target=worker.target) as flood, quiet as other:
        assert (await other.call(LIST)).code == "OK"
        calls = [asyncio.create_task(flood.call(CREATE, creation(tickets[n % 3]))) for n in range(300)]
        waited = []
        for _ in range(8):
            began = time.perf_counter()
            assert (await other.call(LIST)).code == "OK"
            waited.append(time.perf_counter() - began)
        answers = await asyncio.gather(*calls)
    refused = [answer for answer in answers if answer.code != "OK"]
    assert {(answer.code, answer.reason) for answer in refused} == {("RESOURCE_EXHAUSTED", "RATE_LIMITED")}
    assert RATE <= len(answers) - len(refused) <= RATE * 4  # a second's worth at once, then as time goes by
    assert statistics.median(waited) < 0.5
    assert len({answer.shape for answer in refused}) == 1
    # The first three are events of their own with the tool's name; the others will be one with a count.
    found = [await company.event(answer.decision_id) for answer in refused]
    assert [leaf["tool"] for leaf in found if leaf] == ["spiffe://broker.dev/tool/desk"] * 3


@pytest.mark.attack("X1")
async def test_flood_of_bad_tokens(company, worker):
    """Wrong tokens are counted, too: checking signatures is what a flood would have us do."""
    forged = company.token("alice")[:-6] + "AAAAAA"
    async with company.peer("alice", target=worker.target) as flood:
        answers = await asyncio.gather(*[flood.call(LIST, token=forged) for _ in range(150)])
    reasons = [answer.reason for answer in answers]
    assert set(reasons) == {"TOKEN_INVALID", "RATE_LIMITED"}
    assert reasons.count("TOKEN_INVALID") <= RATE * 3


@pytest.mark.attack("K10")
async def test_k10_flood_of_refused_reads(company):
    """Reads on a grant that has ended are refused each time, and beyond the rate only counted."""
    settings = {"denial_events_per_minute": 3}
    endings = {
        "kofi": ("closed", "TICKET_CLOSED", "denial"),
        "marta": ("revoked", "TOKEN_INVALID", "login_failure"),
    }
    async with company.worker(settings=settings) as worker, company.admin() as admin:
        for who, (ending, reason, kind) in endings.items():
            ticket, other = await company.ticket(who), await company.ticket(who)
            async with company.peer(who, target=worker.target) as flood:
                granted, live = await company.grant(flood, ticket), await company.grant(flood, other)
                read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
                assert (await flood.call(READ, read)).code == "OK"
                if ending == "closed":
                    await company.world.publish(company.world.helpdesk.close(ticket))
                else:
                    revoke = containment.RevokeGrantsRequest(grant_id=granted.grant.grant_id, reason="x")
                    assert (await admin.call("ContainmentService/RevokeGrants", revoke)).code == "OK"
                answers = [await flood.call(READ, read) for _ in range(12)]
                assert {answer.reason for answer in answers} == {reason}
                stored = [await company.event(answer.decision_id) for answer in answers]
                assert [leaf["kind"] for leaf in stored if leaf] == ["read", *[kind] * 3]
                read.grant_token = live.grant_token  # control: what is released is always on record
                for _ in range(6):
                    answer = await flood.call(READ, read)
                    said = pb.ReadRecordResponse.FromString(answer.data)
                    assert (await company.event(said.decision_id))["outcome"] == "released"


class TestPeerLimits:
    """The counting itself, with a clock of its own."""

    async def test_rate_comes_back(self):
        """A second's worth may burst; what is used comes back with time and never beyond it."""
        now = [0.0]
        limits = PeerLimits(rate=10, concurrency=100, clock=lambda: now[0])

        def entered():
            count = 0
            while True:
                try:
                    limits.enter(b"desk")
                except RateLimitedError:
                    return count
                limits.leave(b"desk")
                count += 1

        assert entered() == 10
        now[0] += 0.5
        assert entered() == 5
        now[0] += 3600
        assert entered() == 10

    async def test_places(self):
        """A peer's calls under way are bounded; a place is free when its call has left."""
        limits = PeerLimits(rate=1000, concurrency=2, clock=lambda: 0.0)
        for peer in (b"desk", b"desk", b"phone"):
            limits.enter(peer)
        with pytest.raises(RateLimitedError):
            limits.enter(b"desk")
        limits.enter(b"phone")

        limits.leave(b"desk")
        limits.enter(b"desk")

    async def test_memory_is_bounded(self):
        """Peers beyond the bound are forgotten, oldest first; a late goodbye does no harm."""
        limits = PeerLimits(rate=1, concurrency=1, clock=lambda: 0.0)
        for number in range(MOST_PEERS + 10):
            limits.enter(b"%d" % number)
        assert len(limits._peers) == MOST_PEERS
        limits.leave(b"0")
        limits.enter(b"0")
        limits.leave(b"0")
        limits.leave(b"0")
        assert limits._peers[b"0"].under_way == 0
