"""Policies and keys change under way: every answer belongs to one of them, none falls between."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker.client import FieldState, TokenInvalidError
from broker.keys import KeyFolder
from broker.policy import PolicyFiles
from tests.published import activate_in
from tests.races.conftest import open_ticket
from tests.replica import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIELDS = ["customer.name", "customer.email"]
RULE = "p, tier1, resolve-ticket, assignee, any, routed, any, any, contact, masked, allow"


async def more(told: list[list]) -> None:
    """Waits until every reader has had two more answers."""
    wanted = [len(each) + 2 for each in told]
    await eventually(lambda: all(len(each) >= n for each, n in zip(told, wanted, strict=True)))


@pytest.mark.attack("R4")
async def test_r4_each_answer_names_one_policy_and_is_decided_by_it(world, second):
    """Policies change while two brokers answer: masked under one, withheld under the other, never mixed."""
    files = PolicyFiles.from_directory(world.layout.policies)
    without = PolicyFiles.from_mapping(
        {**files.texts, "policy.csv": files.texts["policy.csv"].replace(RULE, "# " + RULE)}
    )
    assert without.digest != files.digest
    expected: dict[str, FieldState] = {}
    told: list[list[tuple[float, str, FieldState]]] = [[] for _ in range(6)]
    ticket = await open_ticket(world, "lucia")
    over = asyncio.Event()

    async def read(broker, heard: list) -> None:
        async with broker.client("lucia", timeout=10) as client:
            grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
            while not over.is_set():
                began = time.monotonic()
                record = await client.read_with(grant, FIELDS)
                heard.append((began, record.policy_version, record["customer.email"].state))

    async with world.client("lucia") as client:
        first = await client.read(ticket, FIELDS, purpose="resolve-ticket")
    expected[first.policy_version] = FieldState.MASKED
    tasks = [asyncio.create_task(read((world, second)[i % 2], heard)) for i, heard in enumerate(told)]
    activations: list[tuple[float, str]] = []
    try:
        for number in range(2):
            await more(told)
            wanted = files if number % 2 else without
            version = await activate_in(world, wanted, expected=max(expected, key=int))
            expected[version] = FieldState.MASKED if number % 2 else FieldState.WITHHELD
            activations.append((time.monotonic(), version))
        await more(told)
    finally:
        over.set()
        await asyncio.gather(*tasks)

    answers = [answer for heard in told for answer in heard]
    assert {(version, state) for _, version, state in answers} == set(expected.items())
    for active_since, version in activations:  # no read that began after it was decided by an older one
        assert all(int(v) >= int(version) for began, v, _ in answers if began > active_since)


class TestKeys:
    @pytest.mark.attack("R8", "J27")
    async def test_r8_a_rotation_refuses_no_valid_grant(self, world, second):
        """Keys rotate while grants are made on one broker and read on the other: none is refused."""
        ticket = await open_ticket(world, "marta")
        folder = KeyFolder(world.layout.keys, publish_lead=1.5)  # a look is at most a second away
        signed: set[str] = set()
        async with world.client("marta") as one, second.client("marta") as two:
            fresh = folder.rotate(time.time())
            while fresh.kid not in signed:
                made, read = (one, two) if len(signed) % 2 else (two, one)
                grant = await made.create_grant(ticket, FIELDS, purpose="resolve-ticket")
                await read.read_with(grant, FIELDS)
                signed.add(_kid(grant.token))
                assert time.time() < fresh.sign_time + 10
            for made, read in ((one, two), (two, one)):
                grant = await made.create_grant(ticket, FIELDS, purpose="resolve-ticket")
                await read.read_with(grant, FIELDS)

        assert len(signed) == 2  # the old one signed until the new one did

    @pytest.mark.attack("R8", "J27")
    async def test_r8_a_withdrawn_key_opens_nothing(self, world, second):
        """A grant signed by a key that was withdrawn is refused on both brokers; a new one is accepted."""
        ticket = await open_ticket(world, "nadia")
        folder = KeyFolder(world.layout.keys)
        async with world.client("nadia") as one, second.client("nadia") as two:
            grant = await one.create_grant(ticket, FIELDS, purpose="resolve-ticket")
            await two.read_with(grant, FIELDS)  # control
            folder.revoke(_kid(grant.token), time.time())
            for client in (one, two):
                await eventually_refused(client, grant)
            fresh = await one.create_grant(ticket, FIELDS, purpose="resolve-ticket")
            await two.read_with(fresh, FIELDS)


def _kid(token: str) -> str:
    import jwt  # noqa: PLC0415

    return jwt.get_unverified_header(token)["kid"]


async def eventually_refused(client, grant, seconds: float = 3.0) -> None:
    """Reads until it is refused: each process looks at its keys once a second."""
    end = time.monotonic() + seconds
    streak = 0
    while streak < 8:  # on every worker that its connection may reach
        try:
            await client.read_with(grant, FIELDS)
        except TokenInvalidError:
            streak += 1
        else:
            streak = 0
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
