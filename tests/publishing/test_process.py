"""The real thing: two persons at consoles, a real `broker serve` with two workers, and a second broker."""

from __future__ import annotations

import asyncio
import time

import pytest
import pytest_asyncio

from broker.client import BrokerCallError, DeniedError, PolicyText
from broker.dev.world import World
from broker.policy.bundle import Bundle
from tests.replica import Replica, replica

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULE = "p, tier1, resolve-ticket, assignee, any, routed, any, any, contact, masked, allow\n"
FIELDS = ["customer.name", "customer.email"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world():
    """Starts the company with two workers."""
    async with World.start(None, customers=60, workers=2, fsync=False) as world:
        yield world


def text(world: World, *, without: str = "") -> PolicyText:
    """Gives the company's policy, or that without a rule, and without the tests, some of which want it."""
    bundle = Bundle.from_directory(world.layout.policies)
    rules = bundle.files.texts["policy.csv"]
    assert without in rules
    files = {**bundle.files.texts, "policy.csv": rules.replace(without, "")}
    return PolicyText(files, {} if without else bundle.tests)


async def email_of(broker: World | Replica) -> str:
    """Gives what Alice sees of an e-mail address."""
    async with broker.client("alice") as client:
        record = await client.read("T-1001", FIELDS, purpose="resolve-ticket")
    return str(record["customer.email"].state)


async def test_from_proposal_to_every_worker(world):
    """Anna proposes and cannot approve, Boris does; every worker of both brokers decides by it."""
    async with (
        replica(world, "second") as second,
        world.policy("anna") as anna,
        world.policy("boris") as boris,
    ):
        assert await email_of(world) == "masked"
        refused = await anna.propose(text(world, without=RULE), reason="INC-7")
        assert refused.proposal is None  # the tests of the version in force hold, unless it is said otherwise
        answer = await anna.propose(text(world, without=RULE), reason="INC-7", replaces_tests=True)
        proposal = answer.proposal
        assert proposal is not None, answer
        assert any("though it passes" in sentence for sentence in answer.examination.widening)
        assert answer.examination.narrowing
        with pytest.raises(DeniedError) as denied:
            await anna.approve(proposal.proposal_id, digest=proposal.digest)
        assert denied.value.reason == "SECOND_PERSON_NEEDED"
        shown, _, _ = await boris.proposal(proposal.proposal_id)
        approved = await boris.approve(proposal.proposal_id, digest=shown.digest, reason="looked at it")

        assert approved.version == "2"
        assert (await email_of(world), await email_of(second)) == ("withheld", "withheld")

        async def versions() -> list[str]:
            return [worker.version for worker in (await boris.status()).workers]

        await eventually(versions, ["2"] * 3)  # each says it within ten seconds


async def eventually(look, expected, seconds: float = 30.0) -> None:
    """Waits for what other processes are about to say."""
    end = time.monotonic() + seconds
    while (found := await look()) != expected:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)


@pytest.mark.attack("C14")
async def test_methods_by_role(world):
    """Who may look may not propose; who may propose sees what waits."""
    async with world.policy("audrey") as audrey, world.policy("rick") as rick:
        assert [version.how async for version in audrey.versions()][-1] == "first"
        with pytest.raises(BrokerCallError) as refused:
            await audrey.propose(text(world), reason="x")
        assert refused.value.reason == "ADMIN_DENIED"
        with pytest.raises(BrokerCallError) as refused:
            await rick.status()
        assert refused.value.reason == "ADMIN_DENIED"
