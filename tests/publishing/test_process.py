"""The real thing: two persons at consoles, a real `broker serve` with two workers, and a second broker."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest
import pytest_asyncio

from broker.client import BrokerCallError, DeniedError, PolicyText
from broker.dev.world import World
from broker.policy.bundle import Bundle
from tests.published import force
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


async def test_questions_are_about_any_version(world):
    """Why, who and the whole matrix are told of the version in force, or of the one that is named."""
    facts = {"purpose": "resolve-ticket", "relation": "assignee", "ticket_kind": "general"}
    facts |= {"provenance": "routed", "opened_by": "customer", "presence": "absent"}
    async with world.policy("anna") as anna:

        async def told(version: str) -> tuple[str, int, int]:
            why = await anna.explain(["tier1"], facts, ["customer.email"], version=version)
            who = await anna.who_can("customer.email", role_sets=["tier1"], version=version, **facts)
            matrix = await anna.matrix(role_sets=["tier1"], version=version)
            rows = [row for section in matrix["sections"] for row in section["rows"]]
            shown = [row for row in rows if "customer.email" in row["field"] and row["level"] != "withheld"]
            routed = [row for row in shown if facts["purpose"] in row["purpose"]]
            return why["fields"][0]["level"], len(who["ways"]), len(routed)

        before, now = await told("1"), await told("")
        assert (before[0], now[0]) == ("masked", "withheld")
        assert before[1] > now[1] == 0
        assert before[2] > now[2]
        assert await told("2") == now
        for call in (
            anna.explain(["tier1"], facts, ["customer.email"], version="99"),
            anna.who_can("customer.email", version="99"),
            anna.matrix(version="99"),
        ):
            with pytest.raises(BrokerCallError) as refused:
                await call
            assert refused.value.reason == "VERSION_NOT_FOUND"


@pytest.mark.attack("C15")
async def test_a_version_that_nobody_signed_is_told_to_those_who_mend_it(world):
    """Who looks for it hears what is wrong, from every call that reads it; and then two persons mend it."""
    bundle = Bundle.from_directory(world.layout.policies)
    conn = await asyncpg.connect(world.dsn("broker_admin"))
    try:
        number = str(await force(conn, dict(bundle.files.texts), bundle.files.digest))
    finally:
        await conn.close()
    async with world.policy("anna") as anna, world.policy("boris") as boris, world.policy("olga") as olga:
        status = await olga.status()
        assert (status.version, status.digest, status.tests_digest) == (number, "", "")
        assert "no good signature" in status.alert
        assert status.workers
        calls = (
            anna.version(number),
            anna.version(),
            anna.roll_back(number, reason="x"),
            anna.compare(text(world), base_version=number),
            anna.who_can("customer.email"),
        )
        for call in calls:
            with pytest.raises(BrokerCallError) as refused:
                await call
            assert (refused.value.code, refused.value.reason) == ("FAILED_PRECONDITION", "VERSION_INVALID")
            assert "no good signature" in refused.value.metadata["finding"]

        answer = await anna.roll_back("1", reason="INC-8")
        assert answer.proposal is not None, answer
        assert answer.proposal.widens  # nothing is there to compare with
        approved = await boris.approve(answer.proposal.proposal_id, digest=answer.proposal.digest)

        async def told() -> tuple[str, str, str]:
            status = await olga.status()
            return status.version, status.digest, status.alert

        await eventually(told, (approved.version, bundle.files.digest, ""))  # it looks every second


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
