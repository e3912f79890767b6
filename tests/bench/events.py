"""How long the first page of events takes, over a ledger of many.

    python -m tests.bench --only events [--quick]

The ledger is filled with 10,000,000 events of a year (quick: 100,000): 500 agents, four tools, 700,000
customers, tickets and grants of a few events each; eight in ten are reads; some values are rare (an agent
with 40 events, a tool with 20, a reason with 100). Values are drawn by a hash, so each is spread over the
whole year. Then it is indexed, as the admin process does it, and asked: each filter alone and within one day,
with a frequent and a rare value, and pairs, also of two frequent values that never meet. Each is the first
page of 100 events, as broker_auditor, five times, asked in turn; `first` is the first time of all.
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

from broker.audit.event_filter import EventFilter
from broker.audit.event_index import step
from broker.audit.events import EventReader
from broker.database import migrate, open_pool
from broker.dev.postgres import EmbeddedPostgres

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
PASSWORD = "bench"

FULL, QUICK = 10_000_000, 100_000
REPEATS, PAGE, SLICE = 5, 100, 250_000
END = datetime(2026, 11, 1, tzinfo=UTC)
START = END - timedelta(days=365)
DAY = {"since": END - timedelta(days=100), "until": END - timedelta(days=99)}

FILL = """
WITH made AS (
    SELECT
        n, t.at, k.kind,
        overlay(overlay(md5(n::text) PLACING '7' FROM 13 FOR 1)
            PLACING left(replace(broker.uuid7_floor(t.at)::text, '-', ''), 12) FROM 1 FOR 12)::uuid AS id,
        'https://idp.example|a'
            || CASE WHEN n % ($3::bigint / 40) = 1 THEN 0 ELSE 1 + abs(hashint8(n / 6)) % 499 END AS agent,
        'spiffe://bench/tool/'
            || CASE WHEN n % ($3::bigint / 20) = 2 THEN 'rare' ELSE (n / 6 % 3)::text END AS tool,
        md5('c' || abs(hashint8(n / 12)) % ($3::bigint / 14)) AS customer, md5('t' || n / 12) AS ticket,
        md5('g' || n / 6)::uuid AS grant_id
    FROM generate_series($1::bigint, $2::bigint - 1) AS n
    CROSS JOIN LATERAL (
        SELECT $4::timestamptz + n / $3::bigint::float8 * ($5::timestamptz - $4::timestamptz) AS at
    ) AS t
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN abs(hashint8(n + 5)) % 20 = 0 THEN 'denial' WHEN n % 6 = 0 THEN 'grant' ELSE 'read'
        END AS kind
    ) AS k
),
stored AS (
    INSERT INTO broker.ledger_event
    SELECT
        m.id, m.kind, m.at, m.agent, m.tool, m.grant_id, md5(m.n::text), m.customer, m.ticket,
        CASE m.kind WHEN 'read' THEN 'released' WHEN 'grant' THEN 'granted' ELSE 'refused' END,
        CASE
            WHEN m.kind <> 'denial' THEN '' WHEN m.n % ($3::bigint / 2000) = 0 THEN 'FEED_STALE'
            ELSE 'TICKET_DENIED'
        END,
        1 + m.n * 40 / $3::bigint, convert_to(repeat(md5(m.n::text), 16), 'UTF8')
    FROM made AS m
)
INSERT INTO broker.ledger_tree (seq, event_id, leaf_hash)
SELECT m.n, m.id, sha256(uuid_send(m.id)) FROM made AS m
"""


async def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fills the ledger, indexes it and asks."""
    folder = _folder()
    server = EmbeddedPostgres(folder / "pg", fsync=False)
    server.start()
    try:
        return await _measure(server, QUICK if quick else FULL, say)
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """Makes a folder that the server's own user may pass through."""
    parent = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    parent.chmod(0o711)
    return parent


async def _measure(server: EmbeddedPostgres, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    conn = await asyncpg.connect(server.dsn())
    await conn.execute(ROLES.read_text("utf-8"))
    for role in ("broker_owner", "broker_auditor", "broker_admin"):
        await conn.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await migrate(server.dsn("postgres", "broker_owner", PASSWORD))
    await _partitions(conn)
    await conn.execute(
        "DROP INDEX broker.ledger_event_agent, broker.ledger_event_grant"
    )  # nobody here uses them
    for start in range(0, count, SLICE):
        say(f"{start:,} of {count:,} events")
        await conn.execute(FILL, start, min(start + SLICE, count), count, START, END, timeout=900)
    await conn.execute("UPDATE broker.tlog_head SET size = $1", count)
    await conn.execute("VACUUM ANALYZE broker.ledger_event, broker.ledger_tree", timeout=900)
    indexing = await _index(server, say)
    await conn.execute("VACUUM ANALYZE broker.event_posting", timeout=900)
    size = await conn.fetchval("SELECT pg_total_relation_size('broker.event_posting')")
    rows = await _ask(server, await _questions(conn))
    await conn.close()
    return {"events": count, "index_seconds": indexing, "index_bytes": size, "rows": rows}


async def _partitions(conn: asyncpg.Connection) -> None:
    start = START.replace(day=1)
    while start < END:
        end = (start + timedelta(days=32)).replace(day=1)
        await conn.execute(
            f"CREATE TABLE IF NOT EXISTS broker.ledger_event_{start:%Y%m} PARTITION OF broker.ledger_event"
            f" FOR VALUES FROM ('{await conn.fetchval('SELECT broker.uuid7_floor($1)', start)}')"
            f" TO ('{await conn.fetchval('SELECT broker.uuid7_floor($1)', end)}')"
        )
        start = end


async def _index(server: EmbeddedPostgres, say: Callable[[str], None]) -> float:
    pool = await open_pool(
        server.dsn("postgres", "broker_admin", PASSWORD), name="bench", max_size=1, statement_timeout=60
    )
    began, remaining = time.perf_counter(), 1
    while remaining:
        _, remaining = await step(pool, most=20)
        if remaining % 200 < 20:
            say(f"{remaining:,} chunks to index")
    await pool.close()
    return time.perf_counter() - began


async def _questions(conn: asyncpg.Connection) -> dict[str, EventFilter]:
    some = await conn.fetchrow(
        "SELECT e.* FROM broker.ledger_tree AS t INNER JOIN broker.ledger_event AS e ON e.id = t.event_id"
        " WHERE e.kind = 'read' AND t.seq >= (SELECT size / 2 FROM broker.tlog_head) ORDER BY t.seq LIMIT 1"
    )
    frequent: dict[str, Any] = {
        "agent": "https://idp.example|a7", "tool": "spiffe://bench/tool/1", "kind": "read",
        "outcome": "released",
        "reason": "TICKET_DENIED", "policy_version": 20,
    }  # fmt: skip
    rare: dict[str, Any] = {
        "agent": "https://idp.example|a0", "tool": "spiffe://bench/tool/rare", "reason": "FEED_STALE",
        "customer": some["customer_pseudonym"], "ticket": some["ticket_pseudonym"],
        "grant_id": some["grant_id"],
        "kind": "policy",
    }  # fmt: skip
    asked = {"everything": EventFilter(), "everything, one day": EventFilter(**DAY)}
    for name, values in (("frequent", frequent), ("rare", rare)):
        for column, value in values.items():
            asked[f"{column}, {name}"] = EventFilter(**{column: value})
            asked[f"{column}, {name}, one day"] = EventFilter(**{column: value}, **DAY)
    pairs = {
        "two frequent that never meet": {"kind": "read", "outcome": "granted"},
        "two frequent": {"kind": "denial", "tool": frequent["tool"]},
        "agent and kind": {"agent": frequent["agent"], "kind": "grant"},
        "agent and reason, both rare": {"agent": rare["agent"], "reason": "FEED_STALE"},
        "rare agent, frequent kind": {"agent": rare["agent"], "kind": "read"},
        "customer and agent": {"customer": rare["customer"], "agent": frequent["agent"]},
        "old version, frequent tool": {"policy_version": 1, "tool": frequent["tool"]},
    }
    return asked | {name: EventFilter(**values) for name, values in pairs.items()}


async def _ask(server: EmbeddedPostgres, asked: dict[str, EventFilter]) -> list[dict[str, Any]]:
    pool = await open_pool(
        server.dsn("postgres", "broker_auditor", PASSWORD), name="bench", max_size=3, statement_timeout=60
    )
    reader = EventReader(pool)
    times: dict[str, list[float]] = {name: [] for name in asked}
    found, calls = {}, {}
    for _ in range(REPEATS):
        for name, wanted in asked.items():
            began = time.perf_counter()
            page = await reader.page(wanted, size=PAGE)
            times[name].append(time.perf_counter() - began)
            found[name], calls[name] = len(page.events), bool(page.next_token)
    await pool.close()
    return [
        {
            "what": name, "found": found[name], "more": calls[name],
            "ms": statistics.median(times[name]) * 1000, "first": times[name][0] * 1000,
            "slowest": max(times[name]) * 1000,
        }
        for name in asked
    ]  # fmt: skip


def table(result: dict[str, Any]) -> Table:
    """Draws the figures."""
    made = Table(
        title=f"First page of {PAGE} among {result['events']:,} events, ms; indexed in"
        f" {result['index_seconds']:.0f} s, {result['index_bytes'] / 2**20:,.0f} MiB"
    )
    for name in ("filter", "found", "more", "median", "first", "slowest"):
        made.add_column(name, justify="left" if name == "filter" else "right")
    for row in result["rows"]:
        made.add_row(
            row["what"], str(row["found"]), "yes" if row["more"] else "", f"{row['ms']:.1f}",
            f"{row['first']:.1f}", f"{row['slowest']:.1f}",
        )  # fmt: skip
    return made
