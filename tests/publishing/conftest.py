"""A fresh database with version 1 in force, and both roles' pools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from broker.database import open_pool
from broker.policy.bundle import Bundle
from broker.publishing import Draft, Publisher
from tests.conftest import Database
from tests.policy.sample import ADMIN, edited, files
from tests.published import activate, publisher

OPEN = edited("policy.csv", "contact, masked, allow", "contact, clear, allow")
SHUT = edited(
    "policy.csv", "p, tier1, resolve, assignee, any, routed, any, any, contact, masked, allow\n", ""
)

GOVERNED = ADMIN.replace(
    "# end",
    "g, spiffe://broker.dev/admin/console, console\n"
    "p, console, /broker.v1.PolicyService/Propose, allow\n"
    "p, console, /broker.v1.PolicyService/Approve, allow\n"
    "g, idp:security-admins, security-admin\n"
    "p, security-admin, /broker.v1.PolicyService/Propose, allow\n"
    "g, idp:approvers, approver\n"
    "p, approver, /broker.v1.PolicyService/Approve, allow\n"
    "# end",
)
"""An admin table under which somebody can change the policy."""


@dataclass(frozen=True)
class Desk:
    """A database with version 1, and a publisher on it."""

    database: Database
    admin: asyncpg.Pool
    access: asyncpg.Pool
    publisher: Publisher


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    """Gives the desk."""
    admin = await open_pool(database.dsn("broker_admin"), name="test", max_size=6)
    access = await open_pool(database.dsn("broker_access"), name="test", max_size=2)
    await activate(admin, files())
    yield Desk(database, admin, access, publisher(admin))
    await admin.close()
    await access.close()


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Pool]:
    """Gives a pool of the role that breaks the glass."""
    pool = await open_pool(database.dsn("broker_owner"), name="test", max_size=2)
    yield pool
    await pool.close()


def draft(policy=OPEN, **more) -> Draft:
    """Makes a draft."""
    return Draft(**({"bundle": Bundle.of(policy, {}), "reason": "a test", "base": 0} | more))


async def leaves(database: Database, kind: str = "policy") -> list[dict]:
    """Gives the ledger's events of a kind, oldest first."""
    conn = await asyncpg.connect(database.dsn("broker_auditor"))
    try:
        rows = await conn.fetch("SELECT leaf FROM broker.ledger_event WHERE kind = $1 ORDER BY id", kind)
    finally:
        await conn.close()
    return [json.loads(row["leaf"]) for row in rows]
