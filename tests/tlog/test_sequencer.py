"""Events become leaves once, in one order, whatever stops the sequencer and whoever else leads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from pathlib import Path
from uuid import UUID

import pytest

from broker.ledger import EventIds
from broker.merkle import EMPTY_ROOT
from broker.model import id_floor
from broker.tlog import Directory, Step, StorageConflictError, TreeTable
from tests.tlog.conftest import administrator


class Killed(BaseException):
    """The process died."""


def killed_after(step: Step, times: int = 1):
    """Gives a hook that kills the sequencer behind a step."""
    left = [times]

    def hook(done: Step) -> None:
        if done is step:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    return hook


class Clock:
    """A monotonic clock that stands until it is told to go."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class FullDisk(Directory):
    """A disk that is full, or mounted read-only."""

    broken: int = 0  # an errno

    async def put(self, objects):
        if self.broken:
            raise OSError(self.broken, os.strerror(self.broken))
        await super().put(objects)

    async def swap(self, name, data, *, replaces):
        if self.broken:
            raise OSError(self.broken, os.strerror(self.broken))
        return await super().swap(name, data, replaces=replaces)


class Recording(Directory):
    """A storage that remembers what it was told to forget."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.forgotten: list[str] = []

    async def forget(self, prefix):
        self.forgotten.append(prefix)
        await super().forget(prefix)


class TestRound:
    async def test_an_empty_ledger_publishes_nothing(self, log):
        """No leaf, no checkpoint, and no problem."""
        sequencer = log.sequencer()
        await sequencer.round(TreeTable(log.admin))

        assert sequencer.state.problem == ""
        assert await log.published() is None
        head = await TreeTable(log.admin).head()
        assert (head.size, head.root) == (0, EMPTY_ROOT)

    async def test_events_are_leaves_and_published(self, log):
        """Each event is one leaf; the published root is that of the stored bytes."""
        await log.integrate(3)
        await log.integrate(300)
        await log.integrate()

        assert await log.leaves() == log.events
        assert ((await log.published()).size, (await log.published()).root) == (303, await log.root())

    async def test_goes_on_in_memory(self, log):
        """A sequencer that keeps running adds to what it has, over the ends of tiles."""
        sequencer = log.sequencer()
        for count in (1, 254, 1, 1, 255, 513):
            await log.append(count)
            await sequencer.round(TreeTable(log.admin))
            assert sequencer.state.problem == ""

        assert await log.leaves() == log.events
        assert (await log.published()).root == await log.root()
        assert sequencer.state.size == len(log.events)
        assert not (log.folder / "log" / "tile" / "0" / "000.p").exists()

    async def test_a_transaction_that_commits_late_is_found(self, log):
        """An id from long before the last look is a leaf once its transaction is through; none twice."""
        clock = Clock()
        sequencer = log.sequencer(monotonic=clock)
        slow = EventIds(clock=lambda: time.time() - 50)
        await log.append(1)
        await sequencer.round(TreeTable(log.admin))
        async with administrator(log) as late:
            open_transaction = late.transaction()
            await open_transaction.start()
            early = await log.append(1, late, id=slow.new())
            await log.append(5)
            await sequencer.round(TreeTable(log.admin))
            assert set(await log.leaves()) == set(log.events) - set(early)
            await open_transaction.commit()
        await sequencer.round(TreeTable(log.admin))
        assert set(await log.leaves()) == set(log.events) - set(early)  # no look reaches back so far
        for _ in range(20):  # the sweep does, in ten seconds
            clock.now += 1
            await sequencer.round(TreeTable(log.admin))

        assert (await log.leaves())[-1] == early[0]
        assert set(await log.leaves()) == set(log.events)
        assert len(await log.leaves()) == len(log.events)

    async def test_the_horizon_stays_below_an_open_transaction(self, log):
        """What an open transaction may still bring stays in reach; afterwards the horizon moves on."""
        table = TreeTable(log.admin)
        clock = Clock()
        sequencer = log.sequencer(monotonic=clock)
        async with administrator(log) as late:
            open_transaction = late.transaction()
            await open_transaction.start()
            await log.append(1, late)
            await sequencer.round(table)
            held = (await table.head()).low_id
            await open_transaction.commit()
        for _ in range(8):  # the sweep under way, which cannot tell yet, and a whole one
            clock.now += 20
            await sequencer.round(table)
        head = await table.head()

        assert held == UUID(int=0)  # nothing is known to be over, however long ago
        assert held < head.low_id < id_floor(head.now - 119)

    async def test_a_forged_old_id_is_never_a_leaf(self, log):
        """An event below the horizon is not taken in: whoever put it there did not append it."""
        await log.integrate(2)
        head = await TreeTable(log.admin).head()
        old = id_floor(head.now - 1000)
        assert old < head.low_id
        await log.sql(
            "INSERT INTO broker.ledger_event SELECT $1, kind, record_time, agent, tool, grant_id, trace_id, "
            "customer_pseudonym, ticket_pseudonym, outcome, reason, policy_version, leaf "
            "FROM broker.ledger_event LIMIT 1",
            old,
        )
        await log.integrate(1)

        assert await log.leaves() == log.events


@pytest.mark.attack("R6")
class TestElection:
    async def test_r6_one_leads(self, log):
        """Of two sequencers one leads; the other waits, and leads when the first one's connection is gone."""
        async with administrator(log) as first:
            assert await TreeTable(first).lead()
            assert not await TreeTable(log.admin).lead()
        for _ in range(100):
            if await TreeTable(log.admin).lead():
                break
            await asyncio.sleep(0.01)  # the server takes a moment to see that the other is gone
        else:
            pytest.fail("nobody leads")

    async def test_r6_two_who_believe_they_lead_do_not_fork(self, log):
        """Both work on the same ledger at once: one order, no gap, no fork, each event once."""
        await log.integrate(3)
        async with administrator(log) as mine, administrator(log) as others:
            pair = [(log.sequencer(), TreeTable(mine)), (log.sequencer(), TreeTable(others))]
            for _ in range(10):
                await log.append(30)
                await asyncio.gather(*(sequencer.round(table) for sequencer, table in pair))
            for sequencer, table in pair:
                await sequencer.round(table)  # one that was overtaken begins anew
                await sequencer.round(table)

        assert sorted(await log.leaves()) == sorted(log.events)
        assert (await log.published()).root == await log.root()
        assert [sequencer.state.problem for sequencer, _ in pair] == ["", ""]

    @pytest.mark.parametrize("died_at", [None, Step.COMMIT])
    async def test_r6_an_overtaken_one_publishes_nothing(self, log, died_at):
        """Stopped before its commit and overtaken, it throws away what it signed, published or not."""
        await log.append(2)
        stopped = asyncio.Event()
        reached = asyncio.Event()

        async def slow_integrate(*arguments):
            reached.set()
            await stopped.wait()
            return await TreeTable(log.admin).integrate(*arguments)

        async with administrator(log) as conn:
            table = TreeTable(conn)
            table.integrate = slow_integrate
            sequencer = log.sequencer()
            slow = asyncio.create_task(sequencer.round(table))
            await reached.wait()
            async with administrator(log) as other:
                await log.append(1)
                hook = (lambda _: None) if died_at is None else killed_after(died_at)
                with contextlib.suppress(Killed):
                    await log.sequencer(at_step=hook).round(TreeTable(other))
            theirs = await log.published()
            stopped.set()
            await slow

        assert await log.published() == theirs
        assert sequencer.state.size == 0
        assert await log.leaves() == log.events


class TestCrash:
    @pytest.mark.parametrize("step", list(Step))
    @pytest.mark.attack("O5")
    async def test_o5_killed_behind_each_step(self, log, step):
        """Whichever step it dies behind, the next one neither loses, doubles nor reorders anything."""
        await log.integrate(250)
        await log.append(20)
        before = await log.published()
        with pytest.raises(Killed):
            await log.sequencer(at_step=killed_after(step)).round(TreeTable(log.admin))
        after = await log.published()
        order = await log.leaves()
        await log.append(5)
        await log.integrate()

        assert (after.size > before.size) == (step >= Step.PUBLISH)
        assert (await log.leaves())[: len(order)] == order
        assert await log.leaves() == log.events
        assert (await log.published()).root == await log.root()

    async def test_killed_again_and_again(self, log):
        """Killed at every step in turn while events keep coming."""
        for turn in range(18):
            await log.append(40)
            step = Step(turn % len(Step) + 1)
            with pytest.raises(Killed):
                await log.sequencer(at_step=killed_after(step)).round(TreeTable(log.admin))
        await log.integrate()

        assert await log.leaves() == log.events
        assert (await log.published()).root == await log.root()


class TestStorage:
    @pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EROFS])
    @pytest.mark.attack("A16")
    async def test_a16_full_or_read_only(self, log, failure):
        """Appends go on, leaves too; lag is told, and the backlog is caught up when there is room."""
        storage = FullDisk(log.folder / "log")
        clock = iter(float(n) for n in range(10_000))
        sequencer = log.sequencer(storage=storage, monotonic=clock.__next__)
        await log.append(10)
        await sequencer.round(TreeTable(log.admin))
        assert (sequencer.state.problem, sequencer.state.lag) == ("", 0.0)
        storage.broken = failure
        for _ in range(3):
            await log.append(300)
            await sequencer.round(TreeTable(log.admin))

        assert os.strerror(failure) in sequencer.state.problem
        assert (sequencer.state.size, sequencer.state.unpublished) == (910, 900)
        assert sequencer.state.lag > 0
        assert (await log.published()).size == 10

        storage.broken = 0
        await sequencer.round(TreeTable(log.admin))

        assert (sequencer.state.problem, sequencer.state.unpublished, sequencer.state.lag) == ("", 0, 0.0)
        assert (await log.published()).root == await log.root()

    @pytest.mark.attack("A17")
    async def test_a17_a_failed_fsync_is_not_believed(self, log, monkeypatch):
        """EIO from fsync: the tile is not there, and is written anew from its bytes, not synced again."""
        tile = ("tile/0/000.p/1", b"x" * 32)
        synced = []

        def fails_once(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            if len(synced) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fails_once)
        with pytest.raises(OSError, match="Input/output"):
            await log.storage.put([tile])
        assert await log.storage.read(tile[0]) is None
        await log.storage.put([tile])

        assert await log.storage.read(tile[0]) == tile[1]
        assert synced[0] != synced[1]

    async def test_a_tile_is_never_replaced(self, log):
        """The same content again is fine, another one is refused, by whoever writes."""
        await log.storage.put([("tile/0/000.p/1", b"x" * 32)])
        await log.storage.put([("tile/0/000.p/1", b"x" * 32)])
        with pytest.raises(StorageConflictError):
            await log.storage.put([("tile/0/000.p/1", b"y" * 32)])

        assert await log.storage.read("tile/0/000.p/1") == b"x" * 32

    async def test_a_checkpoint_is_never_taken_back(self, log):
        """Who was overtaken cannot replace what it does not know."""
        assert await log.storage.swap("checkpoint", b"1", replaces=None)
        assert await log.storage.swap("checkpoint", b"2", replaces=b"1")
        assert not await log.storage.swap("checkpoint", b"1", replaces=b"1")
        assert not await log.storage.swap("checkpoint", b"0", replaces=None)

        assert await log.storage.read("checkpoint") == b"2"
        assert sorted(path.name for path in (log.folder / "log").iterdir()) == [".lock", "checkpoint"]

    async def test_only_what_was_unfinished_is_tidied(self, log):
        """However much is published at once, what was finished at once leaves nothing to remove."""
        storage = Recording(log.folder / "log")
        await log.append(300)
        await log.sequencer(storage=storage).round(TreeTable(log.admin))
        assert storage.forgotten == []
        await log.append(600)
        await log.sequencer(storage=storage).round(TreeTable(log.admin))

        assert storage.forgotten == ["tile/0/001.p"]
        assert sorted(path.name for path in (log.folder / "log" / "tile" / "0").iterdir()) == [
            "000",
            "001",
            "002",
            "003.p",
        ]

    async def test_a_foreign_tile_is_a_problem_not_an_outage(self, log):
        """A tile with other content stops the publication, which is told; appends and leaves go on."""
        await log.integrate(3)
        foreign = log.folder / "log" / "tile" / "0" / "000.p" / "5"
        foreign.write_bytes(b"x" * 160)
        await log.append(2)
        sequencer = log.sequencer()
        await sequencer.round(TreeTable(log.admin))

        assert "tile/0/000.p/5" in sequencer.state.problem
        assert await log.leaves() == log.events
        assert (await log.published()).size == 3
        assert not (await TreeTable(log.admin).head()).stopped


class TestRun:
    async def test_leads_and_stops(self, log):
        """The loop publishes what comes, tells its state and ends when told to."""
        states, stop = [], asyncio.Event()
        published = asyncio.Event()

        def told(state):
            states.append(state)
            if state.size == 4 and not state.problem:
                published.set()

        task = asyncio.create_task(log.sequencer(on_state=told).run(stop))
        await log.append(4)
        await asyncio.wait_for(published.wait(), 10)
        stop.set()
        await task

        assert (await log.published()).root == await log.root()
        assert (states[-1].size, states[-1].unpublished) == (4, 0)

    async def test_no_database_is_told(self, log):
        """Without a database it says so and keeps trying."""
        stop, failures = asyncio.Event(), []
        sequencer = log.sequencer(on_state=lambda _: stop.set(), on_failure=lambda: failures.append(1))
        sequencer._dsn = "postgresql://nobody:x@127.0.0.1:1/x"
        await asyncio.wait_for(sequencer.run(stop), 10)

        assert sequencer.state.problem.startswith("The database does not answer")
        assert failures == [1]

    async def test_a_lost_database_does_not_end_what_it_had_stopped(self, log):
        """Appends that are stopped are stopped while nobody can ask, too, and on brokers that do not lead."""
        await log.integrate(3)
        await TreeTable(log.admin).stop()
        sequencer = log.sequencer()
        await sequencer.round(TreeTable(log.admin))
        assert sequencer.state.stopped
        stop = asyncio.Event()
        lost = log.sequencer(on_state=lambda _: stop.set())
        lost.state, lost._dsn = sequencer.state, "postgresql://nobody:x@127.0.0.1:1/x"
        await asyncio.wait_for(lost.run(stop), 10)
        assert lost.state.problem.startswith("The database does not answer")
        assert lost.state.stopped

        stop.clear()
        async with administrator(log) as leader:
            assert await TreeTable(leader).lead()
            waiting = log.sequencer(on_state=lambda _: stop.set())
            await asyncio.wait_for(waiting.run(stop), 10)
        assert (waiting.state.size, waiting.state.stopped) == (3, True)
