"""The span store: a bounded queue, drained by a task into PostgreSQL with COPY.

Invariants:
- `put` is an append to a queue; full, it drops the newest and counts it (X7), so memory stays bounded;
- one COPY at a time, of at most `CHUNK` rows, encoded `SLICE` at a time: no request waits for more of them;
- a COPY that broke is repeated; had it been durable after all, its primary keys refuse the second one as
  a whole. A batch that the database refuses for its content is dropped and counted, never in the way;
- the session commits asynchronously: if the server dies, up to half a second of spans goes with it, which
  the ledger shows; in return no span waits for a disk that the ledger needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence

import asyncpg

from broker.database import UNREACHABLE, connection, open_pool
from broker.errors import BrokerError, DatabaseUnavailableError
from broker.telemetry import CompactTrace, Item, Metrics
from broker.traces.rows import COMPACT_COLUMNS, SPAN_COLUMNS, compact_row, span_row

log = logging.getLogger(__name__)

LIMIT = 20_000
"""Most items waiting, about 15 MB: ten seconds of a worker's reads while the database is away."""

CHUNK = 256
"""Most items of one COPY."""

SLICE = 8
"""Rows encoded before requests have their turn: a row takes 10 microseconds, a COPY of them all took 3 ms,
which was the latency of the slowest in a hundred reads."""

INTERVAL = 0.5
"""Seconds between drains; how far the store lags behind the answers. A lone caller meets each of them, at
0.2 s with more than one read in a hundred."""

RETRY_INTERVAL = 1.0
"""Seconds before a broken COPY is repeated."""

CLOSE_TIMEOUT = 3.0
"""Seconds that a shutdown waits for the rest of the queue."""

REPEATABLE: tuple[type[BaseException], ...] = (*UNREACHABLE, asyncpg.QueryCanceledError)
"""What says nothing about the rows: the same COPY may succeed later."""


async def open_store(dsn: str, metrics: Metrics, *, limit: int = LIMIT) -> SpanStore:
    """Opens a store with a connection of its own.

    Raises:
        DatabaseUnavailableError: no connection could be made.
    """
    pool = await open_pool(
        dsn, name="broker-spans", min_size=1, max_size=1, settings={"synchronous_commit": "off"}
    )
    return SpanStore(pool, metrics, limit=limit)


class SpanStore:
    """A sink for ended spans and reads; `start` it in the event loop, `close` it at the end."""

    def __init__(self, pool: asyncpg.Pool, metrics: Metrics, *, limit: int = LIMIT) -> None:
        """Takes a pool of its own, which it closes, and the most items that may wait."""
        self._pool = pool
        self._limit = limit
        self._stored = metrics.spans_stored["store"]
        self._dropped = metrics.spans_dropped["store"]
        self._queue: deque[Item] = deque()
        # The two halves of the batch under way; owned by whoever holds the lock, kept while COPY fails.
        self._reads: list[tuple[object, ...]] = []
        self._spans: list[tuple[object, ...]] = []
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: Item) -> None:
        """Takes an item, or counts it as dropped where the queue is full."""
        if len(self._queue) >= self._limit or self._closed:
            self._drop(1)
        else:
            self._queue.append(item)

    @property
    def waiting(self) -> int:
        """Gives the number of items that are not stored yet."""
        return len(self._queue) + len(self._reads) + len(self._spans)

    def start(self) -> None:
        """Starts draining."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="span-store")

    async def flush(self) -> None:
        """Stores everything that waits now.

        Raises:
            DatabaseUnavailableError: the database does not answer; what is left stays queued.
        """
        async with self._lock:
            while self.waiting:
                self._next_batch()
                await self._store_batch()

    async def close(self, seconds: float = CLOSE_TIMEOUT) -> None:
        """Stores what it can in the time given, counts the rest as dropped and closes the pool."""
        if self._closed:
            return
        with contextlib.suppress(DatabaseUnavailableError, TimeoutError):
            async with asyncio.timeout(seconds):
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.wait({self._task})
                await self.flush()
                await self._pool.close()
        self._pool.terminate()  # what did not close in time
        self._closed = True
        if lost := self.waiting:
            log.warning("spans lost at shutdown", extra={"count": lost})
            self._drop(lost)
            self._queue.clear()
            self._reads, self._spans = [], []

    async def _run(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(RETRY_INTERVAL if failing else INTERVAL)
            try:
                await self.flush()
            except BrokerError as exc:
                if not failing:  # once per outage; the counter tells the rest
                    log.warning("spans cannot be stored", exc_info=exc, extra={"count": self.waiting})
                failing = True
            except Exception:  # the task must outlive whatever it meets
                log.exception("span store failed")
                failing = True
            else:
                failing = False

    def _next_batch(self) -> None:
        """Moves items into the batch under way; a broken one is finished first."""
        if self._reads or self._spans:
            return
        for _ in range(min(CHUNK, len(self._queue))):
            item = self._queue.popleft()
            try:
                if isinstance(item, CompactTrace):
                    self._reads.append(compact_row(item))
                else:
                    self._spans.append(span_row(item))
            except Exception:  # one odd item must not stop the others
                log.exception("span cannot be stored")
                self._drop(1)

    async def _store_batch(self) -> None:
        """COPYs the batch; each half is forgotten as soon as it is durable or hopeless."""
        if not (self._reads or self._spans):
            return
        async with connection(self._pool) as conn:
            if self._reads:
                await self._copy(conn, "read_trace", COMPACT_COLUMNS, self._reads)
                self._reads = []
            if self._spans:
                await self._copy(conn, "span_row", SPAN_COLUMNS, self._spans)
                self._spans = []

    async def _copy(
        self,
        conn: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy,
        table: str,
        columns: Sequence[str],
        rows: list[tuple[object, ...]],
    ) -> None:
        try:
            await conn.copy_records_to_table(
                table, records=_in_slices(rows), columns=columns, schema_name="broker"
            )
        except asyncpg.UniqueViolationError:
            pass  # the COPY before, whose answer was lost, had been durable
        except REPEATABLE:
            raise
        except Exception:  # whatever it is, repeating it would block the rest
            log.exception("spans refused by the database", extra={"count": len(rows)})
            self._drop(len(rows))
            return
        self._stored.inc(len(rows))

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._dropped.inc(count)


async def _in_slices(rows: Sequence[tuple[object, ...]]) -> AsyncIterator[tuple[object, ...]]:
    """Gives rows to COPY, and between the slices the event loop to others."""
    for number, row in enumerate(rows, 1):
        yield row
        if number % SLICE == 0:
            await asyncio.sleep(0)
