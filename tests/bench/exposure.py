"""How long an exposure report takes, over an index of many disclosures.

    python -m tests.bench --only exposure [--quick]

The index over released reads is filled with 10,000,000 disclosures of a year (quick: 200,000): agents and
customers evenly drawn by a hash, except for one agent with 100,000 of them (quick: 10,000), spread over the
year. Asked is for that agent, for a tool and a day, and for one customer; each from the question to the last
customer of the answer, bringing the index up to the ledger included, five times.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from rich.table import Table

from broker.audit.exposed import Totals
from broker.audit.exposure import Selection, exposed
from broker.database import migrate, open_pool
from broker.dev.postgres import EmbeddedPostgres

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
PASSWORD = "bench"

FULL, QUICK = (10_000_000, 100_000), (200_000, 10_000)
AGENTS, REPEATS = 500, 5
END = datetime(2026, 11, 1, tzinfo=UTC)
START = END - timedelta(days=365)

WORDS = """
INSERT INTO broker.disclosure_name (kind, name) SELECT 'agent', 'https://idp.example|a' || i
FROM generate_series(1, 500) AS i;
INSERT INTO broker.disclosure_name (kind, name) SELECT 'tool', 'tool' || i FROM generate_series(1, 3) AS i;
INSERT INTO broker.disclosure_fields (digest, clear, masked, unreadable)
SELECT sha256(i::text::bytea), (ARRAY['customer.email', 'customer.name', 'customer.phone'])[1:1 + i % 3],
    (ARRAY['customer.card_number', 'customer.birth_date'])[1:i % 3], false FROM generate_series(1, 12) AS i;
INSERT INTO broker.disclosure_ground
    (digest, purpose, relation, ticket_kind, provenance, opened_by, presence)
SELECT sha256(i::text::bytea), 'resolve-ticket', 'assignee', 'general', 'routed', 'customer', 'absent'
FROM generate_series(1, 40) AS i;
"""
FILL = """
INSERT INTO broker.disclosure
    (event_id, read_time, agent_id, tool_id, fields_id, ground_id, stratum_id, grant_id, customer, ticket)
SELECT
    overlay(overlay(md5(n::text) PLACING '7' FROM 13 FOR 1)
        PLACING left(replace(broker.uuid7_floor(t.at)::text, '-', ''), 12) FROM 1 FOR 12)::uuid,
    t.at, CASE WHEN n % $4::bigint = 0 THEN 1 ELSE 2 + abs(hashint8(n)) % 499 END,
    501 + abs(hashint8(n + 7)) % 3, 1 + abs(hashint8(n + 11)) % 12, 1 + abs(hashint8(n + 13)) % 40,
    1 + (date_trunc('week', t.at)::date - date_trunc('week', $5::timestamptz)::date) / 7,
    md5('g' || n / 5)::uuid, md5('c' || abs(hashint8(n + 17)) % ($3::bigint / 5)), md5('t' || n / 5)
FROM generate_series($1::bigint, $2::bigint - 1) AS n
CROSS JOIN LATERAL (
    SELECT $5::timestamptz + n / $3::bigint::float8 * ($6::timestamptz - $5::timestamptz) AS at
) AS t
"""
INDEXES = ("customer", "agent", "tool", "grant")
SLICE = 500_000


async def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fills the index and asks."""
    parent = folder()
    server = EmbeddedPostgres(parent / "pg", fsync=False)
    server.start()
    try:
        return await _measure(server, *(QUICK if quick else FULL), say)
    finally:
        server.remove()
        shutil.rmtree(parent, ignore_errors=True)


def folder() -> Path:
    """Makes a folder that the server's own user may pass through."""
    parent = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    parent.chmod(0o711)
    return parent


async def fill(
    server: EmbeddedPostgres, count: int, of_agent: int, say: Callable[[str], None]
) -> asyncpg.Connection:
    """Fills the index; gives a superuser's connection. Strata are numbered by week, from the first on."""
    conn = await asyncpg.connect(server.dsn())
    await conn.execute(ROLES.read_text("utf-8"))
    for role in ("broker_owner", "broker_auditor"):
        await conn.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await migrate(server.dsn("postgres", "broker_owner", PASSWORD))
    await conn.execute(WORDS)
    made = [
        await conn.fetchval("SELECT pg_get_indexdef($1::regclass)", f"broker.disclosure_{name}")
        for name in INDEXES
    ]
    for name in INDEXES:
        await conn.execute(f"DROP INDEX broker.disclosure_{name}")
    for start in range(0, count, SLICE):
        say(f"{start:,} of {count:,} disclosures")
        end = min(start + SLICE, count)
        await conn.execute(FILL, start, end, count, count // of_agent, START, END, timeout=600)
    for definition in made:
        await conn.execute(definition, timeout=600)
    await conn.execute("VACUUM ANALYZE broker.disclosure", timeout=600)
    return conn


async def _measure(
    server: EmbeddedPostgres, count: int, of_agent: int, say: Callable[[str], None]
) -> dict[str, Any]:
    conn = await fill(server, count, of_agent, say)
    customer = await conn.fetchval("SELECT customer FROM broker.disclosure WHERE agent_id = 1 LIMIT 1")
    day = END - timedelta(days=100)
    pool = await open_pool(
        server.dsn("postgres", "broker_auditor", PASSWORD), name="bench", statement_timeout=60
    )
    asked = {
        "an agent, the whole time": Selection(agent="https://idp.example|a1"),
        "a tool, one day": Selection(tool="tool1", since=day, until=day + timedelta(days=1)),
        "a customer": Selection(customer=customer),
    }
    rows = [{"what": what, **await _asked(pool, selection)} for what, selection in asked.items()]
    await pool.close()
    await conn.close()
    return {"disclosures": count, "rows": rows}


async def _asked(pool: asyncpg.Pool, selection: Selection) -> dict[str, Any]:
    times, totals = [], Totals()
    for _ in range(REPEATS):
        totals = Totals()
        began = time.perf_counter()
        async for _batch in exposed(pool, selection, totals):
            pass
        times.append(time.perf_counter() - began)
    return {
        "reads": totals.reads,
        "customers": totals.customers,
        "seconds": statistics.median(times),
        "first": times[0],
        "slowest": max(times),
    }


def table(result: dict[str, Any]) -> Table:
    """Draws the figures."""
    found = Table(title=f"Exposure reports over {result['disclosures']:,} disclosures, seconds")
    for name in ("asked for", "disclosures", "customers", "median", "first", "slowest"):
        found.add_column(name, justify="left" if name == "asked for" else "right")
    for row in result["rows"]:
        found.add_row(
            row["what"], f"{row['reads']:,}", f"{row['customers']:,}", f"{row['seconds']:.3f}",
            f"{row['first']:.3f}", f"{row['slowest']:.3f}",
        )  # fmt: skip
    return found
