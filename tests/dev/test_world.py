"""The sample company around a real broker."""

from __future__ import annotations

import asyncio

import pytest

from broker.client import TicketDeniedError, UnavailableError
from broker.dev.layout import Layout
from broker.dev.world import World, agent
from broker.errors import StartupError

FIELDS = ("customer.name", "customer.email")


async def names(world: World) -> list[str | None]:
    async with world.client("alice") as client:
        record = await client.read("T-1001", FIELDS, purpose="resolve-ticket")
    return [field.value for field in record]


async def test_goes_on_where_it_stopped(folder) -> None:
    """A second start has the same people and tickets, and what happened in between; two databases do.

    The last word of the feed before the stop was lost on the way: the start brings it.
    """
    options = {"customers": 40, "separate_records": True, "fsync": False}
    async with World.start(folder, **options) as world:
        first = await names(world)
        with pytest.raises(StartupError, match="already"):
            async with World.start(folder, **options):
                pass
        world.helpdesk.reassign("T-1001", agent("bob"))  # never published
        world.helpdesk.save(world.layout.helpdesk)
        pid = world.serve.pid
    assert world.serve.returncode == 0
    async with World.start(folder, **options) as world:
        assert world.serve.pid != pid
        with pytest.raises(TicketDeniedError):
            await names(world)
        await world.publish(world.helpdesk.reassign("T-1001", agent("alice")))

        assert await names(world) == first
        await world.serve.kill()
        with pytest.raises(UnavailableError):
            await names(world)


async def test_says_why_the_broker_does_not_start(folder) -> None:
    """A broker that ends by itself is an error with its last words, and nothing keeps running."""
    bad = {"grant_seconds": -1}
    with pytest.raises(StartupError, match="GRANT_SECONDS"):
        async with World.start(folder, customers=5, fsync=False, settings=bad):
            pass
    with pytest.raises(StartupError, match="GRANT_SECONDS"):
        async with World.start(folder, customers=5, fsync=False, settings=bad):
            pass


@pytest.mark.parametrize("moment", ["Starting PostgreSQL", "Loading"])
async def test_a_cancelled_start_leaves_nothing(folder, moment) -> None:
    """Ctrl-C in the middle of a start stops what was started, also what was just starting."""
    reached = asyncio.Event()

    def progress(text: str) -> None:
        if moment in text:
            asyncio.get_running_loop().call_later(0.05, reached.set)

    async def start() -> None:
        async with World.start(folder, customers=5, fsync=False, progress=progress):
            pass

    task = asyncio.create_task(start())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not (Layout(folder).postgres_folder() / "data" / "postmaster.pid").exists()
