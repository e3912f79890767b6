"""The one embedded PostgreSQL server of a test run, and fresh databases on it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from broker.database import migrate
from broker.dev.postgres import EmbeddedPostgres
from tests import throwaway

ROLES_SQL = Path(__file__).parent.parent / "deploy" / "roles.sql"
LOGIN_ROLES = tuple(f"broker_{name}" for name in ("owner", "access", "admin", "feed", "reader", "auditor"))
TEMPLATE = "broker_template"
AS_FILES = "STRATEGY FILE_COPY"
"""Copied beside the write-ahead log, which would keep every one of these databases for a while."""


@dataclass(frozen=True)
class Database:
    """One fresh database with roles and migrations in place, empty otherwise."""

    server: EmbeddedPostgres
    name: str

    def dsn(self, role: str = "postgres") -> str:
        """Gives the DSN of a role of deploy/roles.sql, or of the superuser."""
        return self.server.dsn(self.name, role, None if role == "postgres" else f"{role}-pw")


def pytest_configure() -> None:
    """Puts throw-away files into memory, before the first is made."""
    throwaway.use_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the races first, on a machine that does nothing else yet."""
    items.sort(key=lambda item: "races" not in item.path.parts)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """Starts the server once; fsync is off here, tests of durability start their own."""
    parent = Path(tempfile.mkdtemp(prefix="broker-tests-"))
    parent.chmod(0o711)
    postgres = EmbeddedPostgres(parent / "pg", fsync=False)
    postgres.start()
    try:
        asyncio.run(_make_template(postgres))
        yield postgres
    finally:
        postgres.remove()
        shutil.rmtree(parent, ignore_errors=True)


async def _make_template(postgres: EmbeddedPostgres) -> None:
    conn = await asyncpg.connect(postgres.dsn())
    try:
        await conn.execute(f"CREATE DATABASE {TEMPLATE}")
    finally:
        await conn.close()
    conn = await asyncpg.connect(postgres.dsn(TEMPLATE))
    try:
        await conn.execute(ROLES_SQL.read_text("utf-8"))
        for role in LOGIN_ROLES:
            await conn.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{quote(role)}-pw'")
    finally:
        await conn.close()
    await migrate(postgres.dsn(TEMPLATE, "broker_owner", "broker_owner-pw"))


@pytest.fixture
async def database(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    """Gives a fresh database, dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    conn = await asyncpg.connect(server.dsn())
    try:
        await conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} {AS_FILES}")
        yield Database(server, name)
        await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await conn.close()
