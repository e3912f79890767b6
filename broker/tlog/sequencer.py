"""The one sequencer: events become leaves, the head is signed and swapped, tiles are published.

    (1) look       the head, and the events that are no leaves yet
    (2) sign       the root over the old leaves and the new ones
    (3) commit     swap the head in the database, the new leaves with it: now they are in the log
    (4) tiles      write the tiles that are new or longer
    (5) publish    swap the published checkpoint: now everybody can see it
    (6) tidy       remove the unfinished tiles of what is finished

Invariants:
- an advisory lock elects, and only saves work; what fences is (3): of two who believe they lead, one finds
  another head than it built on, throws its signature away and begins anew from what is published;
- whatever dies between two steps is found again: before (3) nothing happened, after it the database knows
  what is to be published, and publishing the same twice is nothing;
- an event is looked for until no transaction can bring one of its time any more (`Horizon`), so none is lost
  because it committed late, and never after: what turns up then was forged, and `verify` names it;
- appends never wait for this: storage that fails costs lag, and lag is an alert;
- a database that does not go on from what was published (continuity.py) stops appends until somebody accepts
  the loss (`broker audit accept-loss`): it was restored, and nobody may go on as if nothing were missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from uuid import UUID

import asyncpg

from broker.database import connection, open_pool
from broker.errors import BrokerError, StartupError
from broker.keys import LogKeyFolder
from broker.merkle import Edge, Tile
from broker.model import LAST_ID, id_floor, id_time
from broker.note import sign
from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.continuity import LossError, Memory, read_past
from broker.tlog.database import Head, TreeTable
from broker.tlog.horizon import Horizon, Sweep
from broker.tlog.published import rotation_name
from broker.tlog.storage import CHECKPOINT, Storage, StorageConflictError

log = logging.getLogger(__name__)

MOST = 4096
"""Events of one commit of the sequencer's: some tens of milliseconds of work for the database."""

REACH = 3.0
"""Seconds back that every look covers. Clocks are a few milliseconds apart and a commit takes as long;
what comes later is found by the sweep over the whole horizon."""

RETRY = 1.0
"""Seconds until a sequencer that does not lead, or that failed, looks again."""


LEAST_PAUSE = 0.01
"""Seconds that the loop is left to others, however long a round took."""


class Step(IntEnum):
    """Where a round is; a test stops it behind any of them."""

    LOOK = 1
    SIGN = 2
    COMMIT = 3
    TILES = 4
    PUBLISH = 5
    TIDY = 6


class _OvertakenError(Exception):
    """Somebody else moved the head or the checkpoint; begin anew from there."""


@dataclass(frozen=True, slots=True)
class LogState:
    """What metrics and readiness tell of the log."""

    size: int = 0
    unpublished: int = 0  # leaves
    lag: float = 0.0  # seconds since everything that was there was published
    stopped: bool = False  # appends are refused
    problem: str = ""  # a sentence, '' while all is well


@dataclass(slots=True)
class _Tree:
    """What this sequencer knows; thrown away whole when something does not fit."""

    edge: Edge  # at the head
    root: bytes
    note: str
    published: Edge
    published_note: str | None
    rotations: int = 0  # published
    sweep: Sweep | None = None  # None: everything is to be looked at once


class Sequencer:
    """Runs rounds over one connection of its own for as long as it may."""

    def __init__(
        self,
        dsn: str,
        storage: Storage,
        keys: LogKeyFolder,
        *,
        interval: float,
        on_state: Callable[[LogState], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
        at_step: Callable[[Step], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes everything it uses.

        Args:
            dsn: the broker's database as broker_admin.
            storage: where tiles and checkpoints are published.
            keys: of the log.
            interval: seconds between rounds.
            on_state: told the state after each round.
            on_failure: told of each round that failed.
            at_step: told of each step that is done; what it raises ends the round there.
            monotonic: a clock in seconds.
        """
        self._dsn = dsn
        self._storage = storage
        self._keys = keys
        self._memory = Memory(keys)
        self._interval = interval
        self._on_state = on_state
        self._on_failure = on_failure
        self._at_step = at_step
        self._monotonic = monotonic
        self._tree: _Tree | None = None
        self._horizon = Horizon()
        self._caught_up_at = monotonic()
        self.state = LogState()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until told to stop; no failure ends it, each is told and tried again."""
        while not stop.is_set():
            try:
                pool = await open_pool(self._dsn, name="broker-sequencer", max_size=1, statement_timeout=30)
                try:
                    async with connection(pool) as conn:
                        await self._serve(TreeTable(conn), stop)
                finally:
                    pool.terminate()  # the lock goes with the connection
            except (BrokerError, asyncpg.PostgresError, OSError) as exc:
                self._failed(f"The database does not answer: {type(exc).__name__}.")
            except Exception:  # a fault of ours must not end the process that containment needs
                log.exception("sequencer failed")
                self._failed("The sequencer failed; the log says how.")
            await _wait(stop, RETRY)

    async def _serve(self, table: TreeTable, stop: asyncio.Event) -> None:
        leads = False
        while not stop.is_set():
            began = self._monotonic()
            leads = leads or await table.lead()
            if leads:
                await self.round(table)
            else:
                self._tree = None
                self._caught_up_at = self._monotonic()
                head = await table.head()
                self._tell(LogState(size=head.size, stopped=head.stopped))
            pause = self._interval if leads and not self.state.problem else RETRY
            await _wait(stop, max(LEAST_PAUSE, pause - (self._monotonic() - began)))

    async def round(self, table: TreeTable) -> None:
        """Does steps (1) to (6) once.

        Raises:
            DatabaseUnavailableError: the connection is of no more use.
        """
        problem, stopped = "", self.state.stopped
        try:
            head = await table.head()
            stopped = head.stopped
            tree = await self._at_head(table, head)
            if stopped:
                problem = "Appends are stopped; run `broker audit verify`, then `broker audit accept-loss`."
            else:
                await self._integrate(table, head, tree)
            await self._publish(table, tree)
            self._caught_up_at = self._monotonic()
        except _OvertakenError:
            self._tree = None
        except LossError as exc:
            self._tree = None
            problem = str(exc)
            if not stopped:
                await table.stop()
                stopped = True
        except (LogInvalidError, StartupError, StorageConflictError) as exc:
            self._tree = None
            problem = str(exc)
        except OSError as exc:
            problem = f"The log's storage fails: {type(exc).__name__}, {exc.strerror}."
        if problem:
            self._failed(problem, stopped=stopped)
        else:
            self._tell(self._described(stopped=stopped))

    # --- (1) look ----------------------------------------------------------------------------------
    async def _at_head(self, table: TreeTable, head: Head) -> _Tree:
        """Gives the tree at the head, from memory where it is still that."""
        if self._tree is None or (self._tree.edge.size, self._tree.root) != (head.size, head.root):
            self._tree = await self._load(table, head)
        return self._tree

    async def _load(self, table: TreeTable, head: Head) -> _Tree:
        """Makes the tree anew.

        Raises:
            LossError: the database does not continue what is published.
        """
        keys = TrustedKeys.of(self._keys.load())
        try:
            past = await read_past(table, self._storage, keys, self._memory, head)
        except LossError:
            now = await table.head()
            if (now.size, now.root) != (head.size, head.root):  # another one published meanwhile
                raise _OvertakenError from None
            raise
        await self._memory.keep(past.published_note)
        return _Tree(past.edge, head.root, head.note, past.published, past.published_note)

    # --- (1) to (3) --------------------------------------------------------------------------------
    async def _integrate(self, table: TreeTable, head: Head, tree: _Tree) -> None:
        """Makes leaves of what is there: the last seconds on every look, the whole horizon in slices."""
        reach, now = id_floor(head.now - REACH), self._monotonic()
        if tree.sweep is None:
            tree.sweep, end = await self._begin_sweep(table, head.low_id, now), reach
        else:
            end = tree.sweep.slice_end(now, reach)
        if tree.sweep.at < end:
            await self._look(table, tree, tree.sweep.at, end)
            tree.sweep.at, tree.sweep.looked_at = end, now
        await self._look(table, tree, max(reach, head.low_id), LAST_ID)
        if end == reach:  # slices and this look together have covered everything since the sweep began
            low_id = self._horizon.low_id(tree.sweep.xmin) or head.low_id
            await table.settle(replace(head, size=tree.edge.size, root=tree.root), low_id)
            tree.sweep = await self._begin_sweep(table, max(low_id, head.low_id), now)

    async def _begin_sweep(self, table: TreeTable, low_id: UUID, now: float) -> Sweep:
        self._horizon.mark(*await table.mark())
        head = await table.head()
        return Sweep(low_id, now, head.now - id_time(low_id), head.xmin)

    async def _look(self, table: TreeTable, tree: _Tree, after: UUID, before: UUID) -> None:
        while True:
            found = await table.pending(after, before, most=MOST)
            self._at_step(Step.LOOK)  # (1)
            if found:
                await self._commit(table, tree, [(event.id, event.leaf_hash) for event in found])
            if len(found) < MOST:
                return
            after = found[-1].id

    async def _commit(self, table: TreeTable, tree: _Tree, leaves: list[tuple[UUID | None, bytes]]) -> None:
        edge = tree.edge.copy()
        edge.extend(digest for _, digest in leaves)
        root = edge.root()
        signer = self._keys.signer(tree.edge.size)
        note = str(sign(Checkpoint(self._keys.origin, edge.size, root).text, signer))
        self._at_step(Step.SIGN)  # (2)
        # If we die here, the signature dies with us: nobody has seen it.
        if not await table.integrate(tree.edge.size, tree.root, leaves, root, note):
            raise _OvertakenError
        tree.edge, tree.root, tree.note = edge, root, note
        self._at_step(Step.COMMIT)  # (3)

    # --- (4) to (6) --------------------------------------------------------------------------------
    async def _publish(self, table: TreeTable, tree: _Tree) -> None:
        """Brings the published log up to the head."""
        await self._publish_rotations(tree)
        if tree.published.size == tree.edge.size:
            return
        edge = tree.published.copy()
        async for hashes in table.hashes(edge.size, tree.edge.size):
            await self._put(edge.extend(hashes))
        if edge.root() != tree.root:
            raise LossError("The leaves in the database do not give the root that was signed.")
        await self._put(edge.partial())
        self._at_step(Step.TILES)  # (4)
        before = None if tree.published_note is None else tree.published_note.encode()
        if not await self._storage.swap(CHECKPOINT, tree.note.encode(), replaces=before):
            raise _OvertakenError
        unfinished = {tile.id.whole for tile in edge.partial()}
        outgrown = [tile.id.whole for tile in tree.published.partial() if tile.id.whole not in unfinished]
        tree.published, tree.published_note = edge, tree.note
        await self._memory.keep(tree.note)
        self._at_step(Step.PUBLISH)  # (5)
        # If we die here, they stay and harm nobody.
        for tile in outgrown:
            await self._storage.forget(f"{tile.path}.p")
        self._at_step(Step.TIDY)  # (6)

    async def _put(self, tiles: Sequence[Tile]) -> None:
        await self._storage.put([(tile.id.path, tile.data) for tile in tiles])

    async def _publish_rotations(self, tree: _Tree) -> None:
        """Publishes the records of rotation before the first checkpoint that needs them."""
        rotations = self._keys.load().rotations
        fresh = [
            (rotation_name(n), str(rotations[n]).encode()) for n in range(tree.rotations, len(rotations))
        ]
        if fresh:
            await self._storage.put(fresh)
        tree.rotations = len(rotations)

    # --- telling -----------------------------------------------------------------------------------
    def _described(self, *, stopped: bool, problem: str = "") -> LogState:
        tree = self._tree
        return LogState(
            size=tree.edge.size if tree else self.state.size,
            unpublished=tree.edge.size - tree.published.size if tree else self.state.unpublished,
            lag=self._monotonic() - self._caught_up_at if problem else 0.0,
            stopped=stopped,
            problem=problem,
        )

    def _failed(self, problem: str, *, stopped: bool | None = None) -> None:
        self._on_failure()
        stopped = self.state.stopped if stopped is None else stopped  # nobody knows of a change
        self._tell(self._described(stopped=stopped, problem=problem))

    def _tell(self, state: LogState) -> None:
        if state.problem != self.state.problem:
            log.log(
                logging.WARNING if state.problem else logging.INFO,
                "the log's state changed",
                extra={"reason": state.problem or "published"},
            )
        self.state = state
        self._on_state(state)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
