"""The databases of the sample company, made once: roles, schema, sample data, guard, keys.

Invariants:
- made whole or made anew: a marker file is written last;
- only here does anything log in as the superuser.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from broker.database import migrate
from broker.dev import sample
from broker.dev.layout import CHECKOUT, Layout
from broker.dev.postgres import EmbeddedPostgres
from broker.errors import StartupError
from broker.keys import KeyFolder
from broker.policy import PolicyFiles, load
from broker.records import apply, plan_install, rotate_guard_key

LOGIN_ROLES = (
    "broker_owner",
    "broker_access",
    "broker_admin",
    "broker_feed",
    "broker_reader",
    "broker_auditor",
    sample.CRM_OWNER,
)
BROKER_DATABASE = "broker"
RECORDS_DATABASE = "records"

ORPHAN_TIMEOUT = 20
"""Seconds for an orphaned server to write its last checkpoint."""

ORPHAN_POLL = 0.05

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Databases:
    """A running embedded server and how its roles log in."""

    server: EmbeddedPostgres
    passwords: dict[str, str]
    records_name: str

    def dsn(self, role: str = "") -> str:
        """Gives the DSN of the broker's database, as a role or as the superuser."""
        return self._dsn(BROKER_DATABASE, role)

    def records_dsn(self, role: str = "") -> str:
        """Gives the DSN of the records database, as a role or as the superuser."""
        return self._dsn(self.records_name, role)

    def settings(self) -> dict[str, str]:
        """Gives the DSNs as the settings name them."""
        return {
            "dsn": self.dsn("broker_access"),
            "reader_dsn": self.records_dsn("broker_reader"),
            "admin_dsn": self.dsn("broker_admin"),
            "feed_dsn": self.dsn("broker_feed"),
            "auditor_dsn": self.dsn("broker_auditor"),
            "auditor_records_dsn": self.records_dsn("broker_auditor"),
            "owner_dsn": self.dsn("broker_owner"),
            "records_owner_dsn": self.records_dsn(),
        }

    def _dsn(self, database: str, role: str) -> str:
        return self.server.dsn(database, role, self.passwords[role]) if role else self.server.dsn(database)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Opens one connection."""
    conn = await asyncpg.connect(dsn)
    try:
        yield conn
    finally:
        await conn.close()


async def open_databases(
    layout: Layout,
    draw: Callable[[], sample.SampleData],
    *,
    separate_records: bool,
    fsync: bool,
    progress: Progress,
) -> tuple[Databases, sample.SampleData | None]:
    """Starts the server; on the first start makes everything.

    Args:
        layout: where.
        draw: gives the sample data; called on the first start alone.
        separate_records: keep the records in a database of their own.
        fsync: off only where losing the data is fine.
        progress: told what is done now.

    Returns:
        The databases, and the data that was loaded on a first start.
    """
    server = EmbeddedPostgres(layout.postgres_folder(), fsync=fsync)
    progress("Starting PostgreSQL")
    await asyncio.to_thread(_stop_orphan, server)
    records = RECORDS_DATABASE if separate_records else BROKER_DATABASE
    databases = Databases(server, layout.passwords(LOGIN_ROLES), records)
    try:
        await _to_its_end(server.start)
        if not layout.built.exists():
            return databases, await _build(layout, databases, draw, progress)
        await migrate(databases.dsn("broker_owner"))
    except StartupError as exc:
        await asyncio.to_thread(server.stop)
        raise StartupError(f"{exc}; to begin anew, remove {str(layout.folder)!r}") from exc
    except BaseException:
        await asyncio.to_thread(server.stop)
        raise
    return databases, None


async def _to_its_end(work: Callable[[], None]) -> None:
    """Runs blocking work; a cancellation waits for its end, so that what it started can be stopped."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _stop_orphan(server: EmbeddedPostgres) -> None:
    """Stops a server that a killed start left behind; the caller holds the folder's lock."""
    try:
        pid = server.pid()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return  # none, or a pid file without a process: the server itself clears that up
    if str(server.data).encode() not in command:
        return
    os.kill(pid, signal.SIGINT)  # "fast shutdown"
    for _ in range(int(ORPHAN_TIMEOUT / ORPHAN_POLL)):
        if not (server.data / "postmaster.pid").exists():
            return
        time.sleep(ORPHAN_POLL)
    raise StartupError(f"an earlier PostgreSQL (process {pid}) does not stop; stop it and try again")


async def _build(
    layout: Layout, databases: Databases, draw: Callable[[], sample.SampleData], progress: Progress
) -> sample.SampleData:
    progress("Making databases, roles and tables")
    shutil.rmtree(layout.log, ignore_errors=True)  # of a ledger that is gone
    await _make_databases(databases)
    await migrate(databases.dsn("broker_owner"))
    progress("Drawing sample customers and tickets")
    data = await asyncio.to_thread(draw)
    progress(f"Loading {len(data.customers)} customers")
    async with connected(databases.records_dsn()) as conn:
        await sample.load(conn, data)
    progress("Installing the guard on the customer tables")
    shutil.rmtree(layout.policies, ignore_errors=True)
    shutil.copytree(_from_checkout("policies"), layout.policies)
    policy = await asyncio.to_thread(load, PolicyFiles.from_directory(layout.policies), "dev")
    async with (
        connected(databases.records_dsn()) as records,
        connected(databases.dsn("broker_owner")) as owner,
    ):
        await apply(records, await plan_install(records, policy.catalog))
        await rotate_guard_key(owner, records)
    keys = KeyFolder(layout.keys)
    if not keys.list(time.time()):
        keys.rotate(time.time(), immediately=True)
    return data


async def _make_databases(databases: Databases) -> None:
    roles = _from_checkout("deploy/roles.sql").read_text("utf-8")
    names = dict.fromkeys((BROKER_DATABASE, databases.records_name))
    async with connected(databases.server.dsn()) as conn:
        for name in names:  # ours, never anybody's text
            await conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await conn.execute(f"CREATE DATABASE {name}")
        if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", sample.CRM_OWNER):
            await conn.execute(f"CREATE ROLE {sample.CRM_OWNER} LOGIN NOSUPERUSER NOBYPASSRLS")
    async with connected(databases.dsn()) as conn:
        await conn.execute(roles)
        for role in LOGIN_ROLES:
            set_password = await conn.fetchval(
                "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)",
                role,
                databases.passwords[role],
            )
            await conn.execute(set_password)


def _from_checkout(name: str) -> Path:
    path = CHECKOUT / name
    if not path.exists():
        raise StartupError(f"{name} is not here; `broker dev` runs from a checkout of the project")
    return path
