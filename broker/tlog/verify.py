"""Recomputes the whole log: leaf, hash, tree, checkpoints, tiles; names what does not fit.

    (1) read what is published, then take one snapshot of the database
    (2) leaf by leaf: bytes -> hash -> the tree's row -> the published tile; columns from the bytes; time
    (3) at each kept checkpoint: the root so far, and the signature
    (4) at the published size: root and unfinished tiles; at the end: the database's head
    (5) events that are no leaves and can no longer become any

Invariants:
- the database and the storage are both read as an adversary's; what decides between them is the root that
  the log's key signed, and the checkpoint that the auditor kept;
- one finding never hides the next: where the tree's row and the tile differ, both trees are followed, and
  the signed root says which of them was changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from broker.database import Connection, queries, translated
from broker.merkle import HASH_SIZE, TILE_WIDTH, Edge, Tile, TileId, leaf_hash, width_at
from broker.model import id_floor, id_time
from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.columns import differing
from broker.tlog.published import Published, read_checkpoint, read_tile
from broker.tlog.statements import Gone, Missing, read_statement
from broker.tlog.storage import Storage

Q = queries("tlog")

CHUNK = 4096
"""Leaves that are read at once."""

MOST_FINDINGS = 1000
"""Findings that are kept; the rest is counted."""

MOST_LATE = 120.0
"""Seconds that a later leaf may have been recorded earlier: transactions commit in another order."""

MOST_SKEW = 61.0
"""Seconds between an event's id and its record time; the append refuses more."""


MOST_WAITING = 300.0
"""Seconds after which an event must be a leaf: the horizon's two minutes, its sweep's one, and as much again
for clocks that differ."""


class Kind(StrEnum):
    """What is wrong, as programs read it."""

    BACKDATED = "backdated"
    BEHIND = "behind"
    CHANGED = "changed"
    CHECKPOINT = "checkpoint"
    COLUMN = "column"
    FORKED = "forked"
    INSERTED = "inserted"
    MISSING = "missing"
    REORDERED = "reordered"
    SIGNATURE = "signature"
    TILE = "tile"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit."""

    kind: Kind
    sentence: str
    seq: int | None = None
    event_id: UUID | None = None


@dataclass(slots=True)
class Verification:
    """What was verified, and what does not fit, in the order of the tree."""

    size: int = 0
    published: int = 0
    checkpoints: int = 0  # kept ones, besides head and published
    lost: int = 0
    pruned: int = 0
    waiting: int = 0  # events that are no leaves yet
    findings: list[Finding] = field(default_factory=list)
    more: int = 0  # findings beyond those that are kept

    @property
    def holds(self) -> bool:
        """Tells whether everything fits."""
        return not self.findings


class Verifier:
    """Verifies one log against one database; used once."""

    def __init__(
        self,
        conn: Connection,
        storage: Storage,
        keys: TrustedKeys,
        *,
        kept: Sequence[Checkpoint] = (),
        progress: Callable[[int, int], None] = lambda _done, _of: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Takes what it reads.

        Args:
            conn: as broker_auditor, used by nobody else.
            storage: what is published.
            keys: what the auditor trusts.
            kept: checkpoints that the auditor kept, verified: the log must continue each.
            progress: told leaves done, of how many.
            now: the auditor's clock, POSIX seconds.
        """
        self._conn = conn
        self._storage = storage
        self._keys = keys
        self._kept = kept
        self._progress = progress
        self._old = id_floor(now() - MOST_WAITING)
        self._result = Verification()
        self._edge = Edge()  # over the tree's rows
        self._shown = Edge()  # over the published leaf hashes
        self._apart: list[Finding] = []  # rows and tiles that differ, until the root says who is right
        self._roots: dict[int, list[tuple[str, bytes, Kind]]] = {}
        self._published: Checkpoint | None = None
        self._nothing = False  # not even a checkpoint that does not hold
        self._tile: tuple[TileId, bytes] | None = None
        self._latest = 0.0
        self._missing = Missing(())

    async def run(self) -> Verification:
        """Does everything; takes a minute or three for a million events."""
        published = await self._read_published()  # (1) before the snapshot, so that it cannot be ahead
        with translated():
            async with self._conn.transaction(isolation="repeatable_read", readonly=True):
                await self._verify(published)
        return self._result

    async def _verify(self, published: Published | None) -> None:
        head = await self._conn.fetchrow(Q.verify_head)
        if head is None:
            self._found(Kind.MISSING, "The row of the log's head was deleted from the database.")
            return
        self._result.size = head["size"]
        self._missing = await self._read_statements(head["size"])
        await self._collect_roots(head, published)
        last = await self._conn.fetchval(Q.verify_last)
        end = max(head["size"], 0 if last is None else last + 1)
        await self._walk(end)
        if last is not None and last + 1 > head["size"]:
            self._found(Kind.INSERTED, "The tree has rows behind its head.", head["size"])
        await self._find_inserted(head["low_id"])
        self._result.findings.sort(key=lambda each: (each.seq is None, each.seq or 0))

    # --- what is to be met -------------------------------------------------------------------------
    async def _read_published(self) -> Published | None:
        try:
            found = await read_checkpoint(self._storage, self._keys)
        except LogInvalidError as exc:
            self._found(Kind.SIGNATURE, str(exc))
            return None
        self._nothing = found is None
        if found is not None:
            self._published = found.checkpoint
            self._result.published = found.checkpoint.size
        return found

    async def _read_statements(self, size: int) -> Missing:
        statements = []
        for row in await self._conn.fetch(Q.verify_statements):
            seq, leaf = row["seq"], row["leaf"] or b""
            if seq is None:
                seq = size  # its event is about to become the next leaf, and will be looked at again there
            elif leaf_hash(leaf) != row["leaf_hash"]:
                leaf = b""
            try:
                statements.append(read_statement(row["note"], leaf, seq, self._keys))
            except LogInvalidError as exc:
                self._found(Kind.SIGNATURE, str(exc), event_id=row["event_id"])
        return Missing(statements)

    async def _collect_roots(self, head: asyncpg.Record, published: Published | None) -> None:
        """Notes which root the tree must have at which size, and on whose word."""
        for row in await self._conn.fetch(Q.verify_checkpoints):
            self._expect("A kept checkpoint", row)
            self._result.checkpoints += 1
        if head["size"]:
            self._expect("The head", head)
        if self._nothing and head["size"]:
            self._found(Kind.MISSING, f"Nothing is published of the {head['size']} leaves.")
        if published is not None:
            found = published.checkpoint
            self._roots.setdefault(found.size, []).append(("published", found.root, Kind.FORKED))
        for kept in self._kept:
            self._roots.setdefault(kept.size, []).append(("your", kept.root, Kind.FORKED))
        for size in sorted(self._roots):
            if size > head["size"]:
                for whose, _, _ in self._roots[size]:
                    self._found(
                        Kind.BEHIND,
                        f"The database has {head['size']} leaves, {whose} checkpoint has {size}: "
                        "the last ones are gone. Was the database restored from a backup?",
                        head["size"],
                    )

    def _expect(self, what: str, row: asyncpg.Record) -> None:
        try:
            signed = self._keys.open(row["note"])
        except LogInvalidError as exc:
            self._found(Kind.SIGNATURE, f"{what} in the database: {exc}", row["size"])
            return
        if (signed.size, signed.root) != (row["size"], row["root"]):
            self._found(
                Kind.CHECKPOINT, f"{what} in the database is not what its signature covers.", row["size"]
            )
        self._roots.setdefault(signed.size, []).append(("stored", signed.root, Kind.CHECKPOINT))

    # --- the tree ----------------------------------------------------------------------------------
    async def _walk(self, end: int) -> None:
        """Goes over all leaves, stopping at each size that has a root to be met."""
        stops = sorted({size for size in self._roots if 0 < size <= end} | {end})
        at = 0
        for stop in stops:
            while at < stop:
                upto = min(stop, at + CHUNK)
                rows = {row["seq"]: row for row in await self._conn.fetch(Q.verify_leaves, at, upto)}
                full: list[Tile] = []
                for seq in range(at, upto):
                    full += await self._leaf(seq, rows.get(seq))
                await self._check_tiles(full)
                at = upto
                self._progress(at, end)
            self._check_roots(stop)
            if self._published is not None and stop == self._published.size:
                await self._check_tiles(self._shown.partial())
                self._decide(rows_are_right=self._edge.root() == self._published.root)
        self._decide(rows_are_right=False)  # the tree ends before the published size

    async def _leaf(self, seq: int, row: asyncpg.Record | None) -> list[Tile]:
        """Takes one leaf in; gives the tiles that became full."""
        shown = await self._published_hash(seq)
        if row is None:
            self._found(Kind.MISSING, f"Leaf {seq} is missing from the tree.", seq)
        else:
            self._check_event(seq, row)
        digest = row["leaf_hash"] if row is not None else shown or bytes(HASH_SIZE)
        if row is not None and shown is not None and shown != digest:
            self._apart.append(
                Finding(
                    Kind.REORDERED,
                    f"Leaf {seq} is not the one that was published: event {row['event_id']} was put in "
                    "another's place, or the tree was rewritten.",
                    seq,
                    row["event_id"],
                )
            )
        self._edge.extend([digest])
        return self._shown.extend([shown or digest])

    def _check_event(self, seq: int, row: asyncpg.Record) -> None:
        event_id, leaf = row["event_id"], row["leaf"]
        if leaf is None:
            match self._missing.why(seq):
                case Gone.LOST:
                    self._result.lost += 1
                case Gone.PRUNED:
                    self._result.pruned += 1
                case None:
                    said = (
                        "names no event" if event_id is None else f"(event {event_id}) has no event any more"
                    )
                    self._found(
                        Kind.MISSING, f"Leaf {seq} {said}, and nothing signed says why.", seq, event_id
                    )
            return
        if leaf_hash(leaf) != row["leaf_hash"]:
            self._found(Kind.CHANGED, f"Event {event_id} (leaf {seq}) was changed.", seq, event_id)
        if column := differing(leaf, dict(row)):
            self._found(
                Kind.COLUMN,
                f"Event {event_id} (leaf {seq}): column {column} is not what the leaf says.",
                seq,
                event_id,
            )
        self._check_time(seq, event_id, row["record_time"])

    def _check_time(self, seq: int, event_id: UUID, recorded: datetime | None) -> None:
        at = math.nan if recorded is None else recorded.timestamp()
        # No comparison holds for one that is none. A time that does not fit blames none of the later events.
        if at >= self._latest - MOST_LATE and abs(at - id_time(event_id)) <= MOST_SKEW:
            self._latest = max(self._latest, at)
            return
        self._found(
            Kind.BACKDATED,
            f"Event {event_id} (leaf {seq}) says it was recorded at another time than its place tells.",
            seq,
            event_id,
        )

    # --- what is published -------------------------------------------------------------------------
    async def _published_hash(self, seq: int) -> bytes | None:
        size = self._published.size if self._published is not None else 0
        if seq >= size:
            return None
        index, place = divmod(seq, TILE_WIDTH)
        if self._tile is None or self._tile[0].index != index:
            tile = TileId(0, index, width_at(0, index, size))
            try:
                data = await read_tile(self._storage, tile)
            except LogInvalidError as exc:
                self._found(Kind.TILE, str(exc), seq)
                data = b""
            self._tile = (tile, data)
        return self._tile[1][place * HASH_SIZE : (place + 1) * HASH_SIZE] or None

    async def _check_tiles(self, tiles: Sequence[Tile]) -> None:
        """Compares tiles above the leaves' with those that are published."""
        size = self._published.size if self._published is not None else 0
        for tile in tiles:
            if tile.id.level == 0 or width_at(tile.id.level, tile.id.index, size) < tile.id.width:
                continue
            try:
                shown = await read_tile(self._storage, tile.id)
            except LogInvalidError as exc:
                self._found(Kind.TILE, str(exc))
                continue
            if shown != tile.data:
                self._found(Kind.TILE, f"{tile.id.path} does not hold the hashes of the tiles below it.")

    def _decide(self, *, rows_are_right: bool) -> None:
        """Says of rows and tiles that differ which of the two was changed."""
        for finding in self._apart:
            if rows_are_right:
                self._found(
                    Kind.TILE, f"The published tiles have another hash for leaf {finding.seq}.", finding.seq
                )
            else:
                self._add(finding)
        self._apart = []

    def _check_roots(self, size: int) -> None:
        for whose, root, kind in self._roots.get(size, ()):
            if self._edge.root() != root:
                self._found(
                    kind,
                    f"At size {size} the tree has another root than the {whose} checkpoint: "
                    "the log was rewritten before that, or there are two of it.",
                    size,
                )

    # --- what is no leaf ---------------------------------------------------------------------------
    async def _find_inserted(self, low_id: UUID) -> None:
        # The database's word for what is closed counts only where it is the stricter one.
        low_id = max(low_id, self._old)
        (counts,) = await self._conn.fetch(Q.verify_loose, low_id)
        rows = await self._conn.fetch(Q.verify_inserted, low_id, MOST_FINDINGS) if counts["inserted"] else []
        for row in rows:
            self._found(
                Kind.INSERTED,
                f"Event {row['id']} is no leaf: it was inserted after its time had been closed, or the "
                "sequencer has stood still.",
                event_id=row["id"],
            )
        self._result.more += counts["inserted"] - len(rows)
        self._result.waiting = counts["waiting"]

    def _found(self, kind: Kind, sentence: str, seq: int | None = None, event_id: UUID | None = None) -> None:
        self._add(Finding(kind, sentence, seq, event_id))

    def _add(self, finding: Finding) -> None:
        if len(self._result.findings) < MOST_FINDINGS:
            self._result.findings.append(finding)
        else:
            self._result.more += 1
