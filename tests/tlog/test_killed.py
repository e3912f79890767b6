"""A sequencer in a process of its own is killed, wherever it is, while events keep coming."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from broker.keys import LogKeyFolder
from broker.tlog import Directory, Sequencer, Step, TreeTable
from tests.tlog.conftest import verified

KILLS = 12
LONGEST = 0.25
"""Seconds from its first look on that a sequencer lives at most: some ten rounds."""

HURRY = 0.005
"""Seconds between its rounds, so that it is hardly ever at rest."""


def sequence(dsn: str, folder: Path, keys: Path, origin: str, begun: Connection) -> None:
    """Runs a sequencer for as long as it is let; tells when it has looked for the first time."""
    told: list[Step] = []

    def at_step(step: Step) -> None:
        if not told:
            begun.send_bytes(b"looked")
        told.append(step)

    sequencer = Sequencer(dsn, Directory(folder), LogKeyFolder(keys, origin), interval=HURRY, at_step=at_step)
    asyncio.run(sequencer.run(asyncio.Event()))


async def gone(log) -> None:
    """Waits until the database has noticed that the sequencer is dead: what it had sent is done or undone."""
    for _ in range(1000):
        if not await log.superuser.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'broker-sequencer' AND datname = current_database()"
        ):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the dead sequencer's session stays")


@pytest.mark.attack("O5")
@pytest.mark.parametrize("seed", [1])
async def test_o5_killed_anywhere_while_events_keep_coming(log, seed):
    """SIGKILL at a random moment, again and again: nothing is lost, doubled, reordered or signed twice."""
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    seen, order, unfinished = [], [], 0
    for _ in range(KILLS):
        begun, child = context.Pipe(duplex=False)
        process = context.Process(
            target=sequence,
            args=(
                log.database.dsn("broker_admin"),
                log.storage.folder,
                log.keys.folder,
                log.keys.origin,
                child,
            ),
        )
        process.start()
        child.close()
        try:
            assert await asyncio.to_thread(begun.poll, 20)
            loop = asyncio.get_running_loop()
            until = loop.time() + chance.uniform(0, LONGEST)
            while loop.time() < until:
                await log.append(chance.randrange(1, 60))
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
            begun.close()
        await gone(log)

        now, published = await log.leaves(), await log.published()
        assert now[: len(order)] == order
        order = now
        seen += [published] if published is not None else []
        unfinished += (0 if published is None else published.size) < len(log.events)
    await log.sequencer().round(TreeTable(log.admin))
    result = await verified(log, kept=seen)

    assert await log.leaves() == log.events
    assert (await log.published()).root == await log.root()
    assert (result.holds, result.size) == (True, len(log.events)), result.findings
    assert unfinished > KILLS // 3  # most of them were killed with work in hand
