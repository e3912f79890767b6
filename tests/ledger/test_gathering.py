"""A busy batch waits for most of those who were here lately; nobody waits alone, and nobody for ever."""

from __future__ import annotations

import asyncio

from broker.database import Batch

FOR_EVER = 3600.0
SOON = 10.0


class Flushes:
    """A batch whose flushes are noted."""

    def __init__(self, gather):
        self.sizes = []
        self.batch = Batch(self._flush, limit=8, backlog=100, refused=RuntimeError, gather=gather)

    async def _flush(self, items):
        self.sizes.append(len(items))
        return list(items)

    async def together(self, number):
        """Submits some at once and waits for all of them."""
        assert await asyncio.gather(*(self.batch.submit(n) for n in range(number))) == list(range(number))


async def test_one_caller_never_waits():
    flushes = Flushes(FOR_EVER)
    async with asyncio.timeout(SOON):
        for _ in range(5):
            await flushes.together(1)
    assert flushes.sizes == [1] * 5


async def test_most_of_the_crowd_is_enough():
    """Four were here: who comes back waits for a second one, and for no third."""
    flushes = Flushes(FOR_EVER)
    async with asyncio.timeout(SOON):
        await flushes.together(4)
        first = asyncio.create_task(flushes.batch.submit(1))
        for _ in range(10):  # turns of the loop: what does not wait is through by then
            await asyncio.sleep(0)
        assert not first.done()
        assert await flushes.batch.submit(2) == 2
        assert await first == 1
    assert flushes.sizes == [4, 2]


async def test_who_does_not_come_back_is_not_waited_for():
    """The wait is bounded, and a crowd that has gone is forgotten: the last one does not wait at all."""
    flushes = Flushes(0.001)
    async with asyncio.timeout(SOON):
        await flushes.together(8)
        for _ in range(20):
            await flushes.together(1)
        assert flushes.batch._crowd == 1
    assert flushes.sizes == [8] + [1] * 20


async def test_a_full_flush_is_not_waited_beyond():
    """A crowd of more than two flushes goes on as soon as one of them is full."""
    flushes = Flushes(FOR_EVER)
    async with asyncio.timeout(SOON):
        await flushes.together(40)
        await flushes.together(8)
    assert flushes.sizes == [8] * 6
