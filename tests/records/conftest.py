"""A guarded sample database per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import Database
from tests.records import crm


@pytest.fixture
async def crm_database(database: Database) -> Database:
    """Gives a database with the sample tables, not yet guarded."""
    conn = await asyncpg.connect(database.dsn())
    await conn.execute(crm.SCHEMA)
    await conn.close()
    return database


@pytest.fixture
async def guarded(crm_database: Database) -> AsyncIterator[crm.Guarded]:
    """Gives the sample database with the guard installed; broker and records share it."""
    guarded = await crm.guard(crm_database, crm_database, crm.catalog())
    yield guarded
    await crm.close(guarded)
