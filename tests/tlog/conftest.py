"""A ledger with events, a log beside it, and hands on both."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from broker.database import connection, open_pool
from broker.keys import LogKeyFolder
from broker.ledger import ADMIN_DOOR, Event, EventKind, append_events
from broker.merkle import Edge, leaf_hash, root_of
from broker.note import sign
from broker.tlog import Checkpoint, Directory, Sequencer, TreeTable, TrustedKeys, Verifier
from broker.tlog.published import read_checkpoint
from tests.conftest import Database
from tests.ledger.conftest import IDS, TRACE

ORIGIN = "broker.test/ledger"
COUNT = 12


@dataclass
class Log:
    """One broker database with a log; `admin` is a connection as broker_admin, `root` as the superuser."""

    database: Database
    folder: Path
    admin: asyncpg.Connection
    superuser: asyncpg.Connection
    keys: LogKeyFolder
    storage: Directory
    events: list[uuid.UUID] = field(default_factory=list)

    def sequencer(self, **options) -> Sequencer:
        """Makes a sequencer, as a process that has just started."""
        options = {"storage": self.storage, "interval": 0.01} | options
        return Sequencer(self.database.dsn("broker_admin"), options.pop("storage"), self.keys, **options)

    async def append(
        self, count: int = 1, conn: asyncpg.Connection | None = None, **changes
    ) -> list[uuid.UUID]:
        """Appends events through the administrators' door; gives their ids."""
        events = [event(**changes) for _ in range(count)]
        await append_events(conn or self.admin, events, door=ADMIN_DOOR)
        self.events += [each.id for each in events]
        return [each.id for each in events]

    async def integrate(self, count: int = 0) -> None:
        """Appends some events and lets a sequencer that has just started publish everything."""
        await self.append(count)
        await self.sequencer().round(TreeTable(self.admin))

    async def sql(self, text: str, *args: object) -> None:
        """Does something behind everybody's back: as the superuser, with the triggers off."""
        async with self.superuser.transaction():
            await self.superuser.execute("SET LOCAL session_replication_role = replica")
            await self.superuser.execute(text, *args)

    async def leaves(self) -> list[uuid.UUID | None]:
        """Gives the events in the tree, in its order."""
        rows = await self.superuser.fetch("SELECT event_id FROM broker.ledger_tree ORDER BY seq")
        return [row["event_id"] for row in rows]

    async def root(self) -> bytes:
        """Computes the root over the stored leaves in the tree's order, by the definition."""
        rows = await self.superuser.fetch(
            "SELECT e.leaf FROM broker.ledger_tree AS t "
            "INNER JOIN broker.ledger_event AS e ON e.id = t.event_id ORDER BY t.seq"
        )
        return root_of([leaf_hash(row["leaf"]) for row in rows])

    async def published(self):
        """Reads the newest published checkpoint as anybody could."""
        found = await read_checkpoint(self.storage, TrustedKeys.of(self.keys.load()))
        return None if found is None else found.checkpoint


def event(**changes) -> Event:
    """Makes an administrative event."""
    fields = {
        "id": IDS.new(),
        "kind": EventKind.ADMIN,
        "outcome": "done",
        "trace_id": TRACE,
        "agent": "spiffe://test/admin/ann",
        "tool": "broker test",
        "detail": {"call": "test"},
    }
    return Event(**(fields | changes))


@asynccontextmanager
async def opened(database: Database, folder: Path) -> AsyncIterator[Log]:
    """Opens the log of a database."""
    keys = LogKeyFolder(folder / "keys", ORIGIN)
    if not (folder / "keys").exists():
        keys.create()
    admin = await asyncpg.connect(database.dsn("broker_admin"))
    superuser = await asyncpg.connect(database.dsn())
    try:
        yield Log(database, folder, admin, superuser, keys, Directory(folder / "log"))
    finally:
        await admin.close()
        await superuser.close()


@pytest.fixture
async def log(database, tmp_path) -> AsyncIterator[Log]:
    """Gives an empty log."""
    async with opened(database, tmp_path) as found:
        yield found


@asynccontextmanager
async def administrator(log: Log) -> AsyncIterator[asyncpg.Connection]:
    """Opens one more connection as broker_admin."""
    pool = await open_pool(log.database.dsn("broker_admin"), name="test", max_size=1)
    try:
        async with connection(pool) as conn:
            yield conn
    finally:
        pool.terminate()


async def verified(log, *, kept=(), keys=None, **options):
    """Verifies as an auditor."""
    conn = await asyncpg.connect(log.database.dsn("broker_auditor"))
    try:
        trusted = keys or TrustedKeys.of(log.keys.load())
        return await Verifier(conn, log.storage, trusted, kept=kept, **options).run()
    finally:
        await conn.close()


@pytest.fixture
async def full(log):
    """Gives a log of twelve events that holds: the control of every test here."""
    await log.integrate(COUNT)
    result = await verified(log)
    assert result.holds, result.findings
    assert (result.size, result.published, result.waiting) == (COUNT, COUNT, 0)
    return log


async def cut(log, size: int) -> None:
    """Cuts the database off behind a size, as a backup of that time would be."""
    rows = await log.superuser.fetch("SELECT event_id FROM broker.ledger_tree WHERE seq >= $1", size)
    await log.sql("DELETE FROM broker.ledger_event WHERE id = ANY ($1)", [row["event_id"] for row in rows])
    await log.sql("DELETE FROM broker.ledger_tree WHERE seq >= $1", size)
    await log.sql("DELETE FROM broker.tlog_checkpoint WHERE size > $1", size)
    edge = Edge()
    edge.extend([row["leaf_hash"] for row in await log.superuser.fetch(
        "SELECT leaf_hash FROM broker.ledger_tree ORDER BY seq")])  # fmt: skip
    note = str(sign(Checkpoint(log.keys.origin, size, edge.root()).text, log.keys.active_signer()))
    await log.sql("UPDATE broker.tlog_head SET size = $1, root = $2, note = $3", size, edge.root(), note)
