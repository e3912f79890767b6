"""Processes and the database die under load: no answer without its record, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack

import pytest

from broker.client import BrokerCallError
from tests.outages.conftest import FIELDS, open_ticket, unledgered
from tests.replica import eventually, workers

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 4.0


class Load:
    """Tools that read all the time, and what each call came to."""

    def __init__(self) -> None:
        self.decisions: list[str] = []
        self.refused: list[tuple[float, str, str]] = []  # seconds it took, code, reason
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task] = []

    async def start(self, world, stack: AsyncExitStack, subject: str, readers: int = 6) -> None:
        """Begins."""
        ticket = await open_ticket(world, subject)
        for _ in range(readers):
            client = await stack.enter_async_context(world.client(subject, timeout=DEADLINE))
            grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
            self._tasks.append(asyncio.create_task(self._read(client, grant)))

    async def _read(self, client, grant) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                record = await client.read_with(grant, FIELDS)
            except BrokerCallError as error:
                self.refused.append((time.monotonic() - began, error.code, error.reason))
                await asyncio.sleep(0.02)
            else:
                self.decisions.append(record.decision_id)

    async def more(self, count: int = 20) -> None:
        """Waits for further answers."""
        wanted = len(self.decisions) + count
        await eventually(lambda: len(self.decisions) >= wanted)

    async def end(self) -> None:
        """Stops."""
        self._over.set()
        await asyncio.gather(*self._tasks)


@pytest.mark.attack("O1", "A18")
async def test_a18_killed_workers_leave_no_answer_unrecorded(world):
    """Workers are killed at random moments: each answer is on record, each worker comes back."""
    chance = random.Random(18)
    load = Load()
    parent = world.serve.pid
    async with AsyncExitStack() as stack:
        await load.start(world, stack, "amir")
        await load.more()
        for number in range(6):
            index = number % 2
            pid = await eventually(lambda index=index: workers(parent).get(index))
            await load.more(chance.randrange(1, 30))
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda index=index, pid=pid: workers(parent).get(index, pid) != pid)
        await world.serve.wait_until("/readyz")
        await load.more()
        await load.end()

    assert world.serve.returncode is None
    assert load.refused  # control: the kills did hit calls
    assert {code for _, code, _ in load.refused} <= {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
    assert await unledgered(world, load.decisions) == set()
    assert await unledgered(world, ["00000000-0000-7000-8000-000000000000"])  # control of the search


@pytest.mark.attack("O3", "O4", "O5", "A18")
async def test_o4_the_database_dies_and_comes_back(world):
    """The database stops as if the power went: UNAVAILABLE in time, nothing unrecorded, no restart."""
    load = Load()
    pids = workers(world.serve.pid)
    server = world.databases.server
    async with AsyncExitStack() as stack:
        await load.start(world, stack, "chen")
        await load.more(100)
        assert not load.refused
        await asyncio.to_thread(server.stop, "immediate")
        await eventually(lambda: len(load.refused) >= 12)
        assert await world.serve.status("/healthz") == 200
        await eventually_status(world.serve, 503)
        back = time.monotonic()
        await asyncio.to_thread(server.start)
        await load.more()
        assert time.monotonic() - back < 10
        await load.end()
    await world.serve.wait_until("/readyz")

    assert {code for _, code, _ in load.refused} <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert sum(code == "UNAVAILABLE" for _, code, _ in load.refused) > len(load.refused) / 2
    assert max(took for took, _, _ in load.refused) < DEADLINE + 0.5
    assert await unledgered(world, load.decisions) == set()
    assert workers(world.serve.pid) == pids


async def eventually_status(serve, status: int, seconds: float = 10.0) -> None:
    """Waits until readiness answers so."""
    end = time.monotonic() + seconds
    while await serve.status("/readyz") != status:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


@pytest.mark.attack("W7")
async def test_w7_a_worker_that_slept_checks_before_it_answers(world):
    """Workers are stopped, a grant is revoked, they go on: what waited is refused."""
    ticket = await open_ticket(world, "dana")
    async with world.client("dana", timeout=1.0) as client, world.client("dana", timeout=8.0) as patient:
        grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
        await client.read_with(grant, FIELDS)
        await patient.read_with(grant, FIELDS)  # control
        pids = workers(world.serve.pid).values()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(patient.read_with(grant, FIELDS))
            with pytest.raises(BrokerCallError) as slept:
                await client.read_with(grant, FIELDS)
            async with world.admin() as admin:
                await admin.revoke_grants(grant_id=grant.grant_id, reason="while it slept")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        with pytest.raises(BrokerCallError) as woke:
            await waiting

    assert slept.value.code == "DEADLINE_EXCEEDED"
    assert woke.value.reason == "TOKEN_INVALID"
