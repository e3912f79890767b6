"""How long it takes to rank who leaked, over an index of many disclosures.

    python -m tests.bench --only attribution [--quick]

The index of the exposure benchmark: 10,000,000 disclosures of a year (quick: 200,000, which says little), 500
agents, one of whom saw 100,000 of them. Tallies are counted from its rows. The ledger holds the events of the
complainants alone, which is what a question reads of it. Asked is with 100 complaints: 80 of people whom that
agent saw, 20 of others; from the pseudonyms to the names with their evidence, bringing the index up included,
five times. Not in it: the one scan of the records database, which hangs on its size.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from rich.table import Table

from broker.audit.complaints import Complaint
from broker.audit.leak import rank
from broker.database import open_pool
from broker.dev.postgres import EmbeddedPostgres
from broker.ledger import EventKind, head, rest_of
from tests.bench import exposure
from tests.bench.exposure import END, START

GOAL = 2.0
"""Seconds that 10,000,000 disclosures and 100 complaints may take."""

OF_LEAKER, OF_OTHERS, REPEATS = 80, 20, 5
KNOWN = frozenset({"customer.email"})

WEEKS = """
INSERT INTO broker.disclosure_stratum (ticket_kind, week)
SELECT k.kind, w.week FROM (VALUES (1, 'general'), (2, '')) AS k (place, kind)
CROSS JOIN
    generate_series(date_trunc('week', $1::timestamptz), $2::timestamptz, interval '1 week') AS w (week)
ORDER BY k.place, w.week
"""
TALLY = """
INSERT INTO broker.disclosure_tally (name_id, stratum_id, fields_id, customers)
SELECT coalesce(t.agent_id, t.tool_id, 0), w.stratum_id, coalesce(t.fields_id, 0), t.reads
FROM (
    SELECT agent_id, tool_id, stratum_id, fields_id, count(*) AS reads FROM broker.disclosure
    GROUP BY GROUPING SETS ((agent_id, stratum_id, fields_id), (tool_id, stratum_id, fields_id), (stratum_id))
) AS t
INNER JOIN broker.disclosure_stratum AS s ON s.stratum_id = t.stratum_id
INNER JOIN broker.disclosure_stratum AS w ON w.week = s.week
"""
EVENTS = """
SELECT
    d.event_id, d.read_time, a.name AS agent, t.name AS tool, d.grant_id, d.customer, d.ticket, f.clear,
    f.masked
FROM broker.disclosure AS d
INNER JOIN broker.disclosure_name AS a ON a.name_id = d.agent_id
INNER JOIN broker.disclosure_name AS t ON t.name_id = d.tool_id
INNER JOIN broker.disclosure_fields AS f USING (fields_id)
WHERE d.customer = ANY ($1)
"""
INSERT = """
INSERT INTO broker.ledger_event
    (id, kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,
     outcome, reason, policy_version, leaf)
VALUES ($1, 'read', $2, $3, $4, $5, $6, $7, $8, 'released', '', 1, $9)
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fills index and ledger, and asks."""
    folder = exposure.folder()
    server = EmbeddedPostgres(folder / "pg", fsync=False)
    server.start()
    try:
        return await _measure(server, *(exposure.QUICK if quick else exposure.FULL), say)
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(
    server: EmbeddedPostgres, count: int, of_agent: int, say: Callable[[str], None]
) -> dict[str, Any]:
    conn = await exposure.fill(server, count, of_agent, say)
    say("tallies")
    await conn.execute(WEEKS, START, END)
    await conn.execute(TALLY, timeout=600)
    await conn.execute("VACUUM ANALYZE broker.disclosure_tally")
    of_leaker = (
        "SELECT customer FROM (SELECT DISTINCT customer FROM (SELECT customer FROM broker.disclosure"
        f" WHERE agent_id = 1 LIMIT 1000) AS d) AS d LIMIT {OF_LEAKER}"
    )
    of_other = "SELECT customer FROM broker.disclosure WHERE agent_id = $1 LIMIT 1"
    customers = [row["customer"] for row in await conn.fetch(of_leaker)]
    customers += [await conn.fetchval(of_other, 2 + agent) for agent in range(OF_OTHERS)]
    events = await _put_on_ledger(conn, customers)
    pool = await open_pool(
        server.dsn("postgres", "broker_auditor", exposure.PASSWORD), name="bench", statement_timeout=60
    )
    asked = [(Complaint(line, "customer", "", END, KNOWN), c) for line, c in enumerate(customers, 2)]
    times, found = [], None
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = await rank(pool, asked)
        times.append(time.perf_counter() - began)
    await pool.close()
    await conn.close()
    assert not found.tampered
    assert [s.names for s in found.suspects if s.candidate.named] == [("https://idp.example|a1",)]
    return {
        "disclosures": count, "complaints": len(asked), "reads": events,
        "seconds": statistics.median(times), "first": times[0], "slowest": max(times), "goal": GOAL,
    }  # fmt: skip


async def _put_on_ledger(conn: asyncpg.Connection, customers: list[str]) -> int:
    """Stores the events of the complainants' reads; gives how many."""
    month = START.replace(day=1)
    while month < END:
        after = (month + timedelta(days=32)).replace(day=1)
        await conn.execute(
            f"CREATE TABLE IF NOT EXISTS broker.ledger_event_{month:%Y%m} PARTITION OF broker.ledger_event"
            f" FOR VALUES FROM ('{_floor(month)}') TO ('{_floor(after)}')"
        )
        month = after
    rows = []
    for r in await conn.fetch(EVENTS, customers):
        levels = dict.fromkeys(r["clear"], "clear") | dict.fromkeys(r["masked"], "masked")
        rest = rest_of(
            EventKind.READ, agent=r["agent"], tool=r["tool"], grant_id=r["grant_id"], customer=r["customer"],
            ticket=r["ticket"], policy_version="1",
            detail={"facts": {"ticket_kind": "general", "purpose": "resolve-ticket"}, "levels": levels},
        )  # fmt: skip
        tail = json.dumps({"outcome": "released", "reason": "", "record_time": r["read_time"].isoformat()})
        leaf = head(r["event_id"], TRACE, rest) + b"," + tail[1:].encode()
        rows.append((
            r["event_id"], r["read_time"], r["agent"], r["tool"], r["grant_id"], TRACE, r["customer"],
            r["ticket"], leaf,
        ))  # fmt: skip
    await conn.executemany(INSERT, rows)
    await conn.execute("ANALYZE broker.ledger_event")
    return len(rows)


def _floor(at: datetime) -> str:
    return f"{int(at.astimezone(UTC).timestamp() * 1000) << 80:032x}"


def table(result: dict[str, Any]) -> Table:
    """Draws the figures."""
    found = Table(title="Ranking who leaked, seconds")
    for name in ("disclosures", "complaints", "their reads", "median", "first", "slowest", "goal"):
        found.add_column(name, justify="right")
    full = result["disclosures"] == exposure.FULL[0]
    found.add_row(
        f"{result['disclosures']:,}", str(result["complaints"]), f"{result['reads']:,}",
        f"{result['seconds']:.2f}", f"{result['first']:.2f}", f"{result['slowest']:.2f}",
        f"{result['goal']:.0f}" if full else "of the full size alone",
    )  # fmt: skip
    return found
