"""Real workers whose news are lost, and a real worker that cannot ask which version is in force."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from broker.client import BrokerCallError
from broker.dev.world import World
from broker.policy import PolicyFiles
from tests.published import activate_in
from tests.replica import Replica, replica

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK = "FUNCTION broker.active_policy_version()"
SETTINGS = {"policy_confirm_seconds": 3600}
TELLS = "PERFORM pg_notify('broker_policy', p_version::text);"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world():
    """Starts the company with two workers."""
    async with World.start(None, customers=60, workers=2, fsync=False, settings=SETTINGS) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def superuser(world):
    """Gives a connection that may do everything."""
    conn = await asyncpg.connect(world.dsn())
    yield conn
    await conn.close()


@asynccontextmanager
async def lost_news(superuser: asyncpg.Connection):
    """Lets no version be announced."""
    query = "SELECT pg_get_functiondef('broker.make_policy_active(bigint)'::regprocedure)"
    function = await superuser.fetchval(query)
    assert TELLS in function
    await superuser.execute(function.replace(TELLS, ""))
    try:
        yield
    finally:
        await superuser.execute(function)


def other(world: World, comment: str) -> PolicyFiles:
    """Gives the company's policy with a comment more: another version that decides the same."""
    texts = dict(PolicyFiles.from_directory(world.layout.policies).texts)
    texts["policy.csv"] = f"# {comment}\n" + texts["policy.csv"]
    return PolicyFiles.from_mapping(texts)


async def versions(superuser: asyncpg.Connection) -> list[int]:
    """Gives the versions that the workers of this second say they have, oldest word first."""
    rows = await superuser.fetch("SELECT version FROM broker.policy_worker ORDER BY confirm_time")
    return [row["version"] for row in rows]


async def eventually(look, expected, seconds: float = 30.0) -> None:
    """Waits for what other processes are about to do."""
    end = time.monotonic() + seconds
    while (found := await look()) != expected:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.1)


async def test_lost_notifications_reach_every_worker_by_its_look(world, superuser):
    """A version that nobody announced is in force in every worker of both brokers, with nobody reading."""
    heard: list[str] = []
    await superuser.add_listener("broker_policy", lambda *news: heard.append(news[-1]))

    async def told() -> list[int]:
        return await versions(superuser)

    async with replica(world, "second"):
        await eventually(told, [1] * 3)
        async with lost_news(superuser):
            assert await activate_in(world, other(world, "unheard"), expected="1") == "2"
            await eventually(told, [2] * 3)
        assert "2" not in heard

        assert await activate_in(world, other(world, "heard"), expected="2") == "3"  # the control arm
        await eventually(told, [3] * 3)
        assert "3" in heard


async def test_a_worker_that_cannot_confirm_its_version_stops_granting(world, superuser):
    """It may not ask, and all else works: it grants within the bound, not behind it, and when it may ask."""
    async with replica(world, "unsure", policy_confirm_seconds=5) as unsure:

        async def outcome(broker: World | Replica = unsure) -> str:
            async with broker.client("alice") as tool:
                try:
                    await tool.create_grant("T-1001", ["customer.name"], purpose="resolve-ticket")
                except BrokerCallError as error:
                    return error.reason
            return "granted"

        began = time.monotonic()
        await superuser.execute(f"REVOKE EXECUTE ON {LOOK} FROM broker_access")
        try:
            assert await outcome() == "granted"
            await eventually(outcome, "POLICY_UNAVAILABLE")
            stopped = time.monotonic() - began
            assert await outcome(world) == "granted"  # the control arm: its bound is an hour
        finally:
            await superuser.execute(f"GRANT EXECUTE ON {LOOK} TO broker_access")
        await eventually(outcome, "granted")

    assert stopped > 3  # the last look that was answered was at most two seconds ago
