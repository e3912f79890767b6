"""A ledger of some thousand events with their leaves, and what a filter means in plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import asyncpg

from broker.audit.event_filter import INDEXED, EventFilter, StoredEvent

BEGIN = datetime(2026, 3, 10, tzinfo=UTC)
STEP = timedelta(seconds=20)

FILL = """
INSERT INTO broker.ledger_event
SELECT
    e.id, e.kind, e.time, 'https://idp.test|a' || e.n % 7,
    'spiffe://test/tool/' || CASE WHEN e.n % 3 = 0 THEN 'desk' ELSE 'phone' END,
    CASE WHEN e.kind IN ('read', 'grant') THEN md5('g' || e.n / 6)::uuid END, md5(e.n::text),
    md5('c' || e.n * 7 % 900), md5('t' || e.n / 12),
    CASE e.kind WHEN 'read' THEN 'released' WHEN 'grant' THEN 'granted' ELSE 'refused' END,
    CASE WHEN e.n % 1201 = 0 THEN 'FEED_STALE' WHEN e.kind = 'denial' THEN 'TICKET_DENIED' ELSE '' END,
    1 + e.n / 5000, convert_to('{"n":' || e.n || '}', 'UTF8')
FROM (
    SELECT
        n, $3::timestamptz + n * $4::interval AS time,
        CASE
            WHEN n % 1201 = 0 OR n % 10 = 9 THEN 'denial' WHEN n % 6 = 0 THEN 'grant' ELSE 'read'
        END AS kind,
        overlay(
            overlay(md5(n::text) PLACING '7' FROM 13 FOR 1)
            PLACING left(replace(broker.uuid7_floor($3::timestamptz + n * $4::interval)::text, '-', ''), 12)
            FROM 1 FOR 12
        )::uuid AS id
    FROM generate_series($1::bigint, $2::bigint - 1) AS n
) AS e
"""


async def fill(conn: asyncpg.Connection, low: int, high: int) -> None:
    """Stores events number `low` to `high`, without it, as a superuser."""
    await conn.execute(FILL, low, high, BEGIN, STEP)


async def sequence(conn: asyncpg.Connection, size: int) -> None:
    """Makes the first events leaves, as the sequencer would, up to a tree of that size."""
    await conn.execute(
        "INSERT INTO broker.ledger_tree (seq, event_id, leaf_hash)"
        " SELECT row_number() OVER (ORDER BY e.id) - 1, e.id, sha256('\\x00'::bytea || e.leaf)"
        " FROM (SELECT * FROM broker.ledger_event ORDER BY id LIMIT $1) AS e ON CONFLICT (seq) DO NOTHING",
        size,
    )
    await conn.execute("UPDATE broker.tlog_head SET size = $1", size)


async def enlarge(conn: asyncpg.Connection, size: int, *, every: int) -> None:
    """Makes every so manieth event's leaf that large, as an older release would have stored it."""
    await conn.execute("ALTER TABLE broker.ledger_event DROP CONSTRAINT IF EXISTS ledger_event_sizes")
    await conn.execute("SET session_replication_role = replica")
    await conn.execute(
        "UPDATE broker.ledger_event AS e SET leaf = convert_to(repeat('x', $1), 'UTF8') FROM"
        " (SELECT id, row_number() OVER (ORDER BY id) AS n FROM broker.ledger_event) AS u"
        " WHERE u.id = e.id AND u.n % $2 = 0",
        size, every,
    )  # fmt: skip
    await conn.execute("SET session_replication_role = origin")


def meant(event: StoredEvent, wanted: EventFilter) -> bool:
    """Says whether a filter means an event, plainly."""
    columns = {field.name: getattr(wanted, field.name) for field in fields(wanted)[:INDEXED]}
    return (
        all(value is None or getattr(event, name) == value for name, value in columns.items())
        and (wanted.since is None or event.record_time >= wanted.since)
        and (wanted.until is None or event.record_time < wanted.until)
    )


def chosen(events: Iterable[StoredEvent], wanted: EventFilter) -> list[StoredEvent]:
    """Gives those that are meant."""
    return [event for event in events if meant(event, wanted)]
