"""Ledger and spans compared, and spans searched: what is missing on either side is counted and named."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest

from broker.audit.event_filter import MOST_BYTES
from broker.audit.events import EventReader
from broker.audit.reconcile import AHEAD, FIRST_PART, reconcile
from broker.audit.spans import SpanQuery, search
from broker.audit.tracing import Tracing
from broker.database import queries
from broker.errors import RequestMalformedError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
READ = "broker.v1.AccessService/ReadRecord"


async def span(audited, at, *, trace=None, event=None, reason=None, number=0):
    """Stores the trace of one read."""
    trace = trace or audited.rng.getrandbits(128).to_bytes(16)
    await audited.conn.execute(
        "INSERT INTO broker.read_trace"
        " (trace_id, span_id, start_ns, duration_ns, steps, event_id, code, reason)"
        " VALUES ($1, $2, $3, 1000, $4, $5, 0, $6)",
        trace, (number << 4).to_bytes(8), int(at.timestamp() * 10**9), [-1] * 16, event, reason,
    )  # fmt: skip
    return trace


async def traced(audited, at, *, span_too=True):
    """Stores a read, and its span."""
    event = await audited.put(at=at)
    trace = audited.rng.getrandbits(128).to_bytes(16)
    await audited.conn.execute("SET session_replication_role = replica")
    await audited.conn.execute(
        "UPDATE broker.ledger_event SET trace_id = $2 WHERE id = $1", event, trace.hex()
    )
    if span_too:
        await span(audited, at, trace=trace, event=event)
    return event


async def revoked(audited, at, event):
    """Stores the trace of a revocation, which the SDK made, naming an event; gives its id."""
    trace = audited.rng.getrandbits(128).to_bytes(16)
    await audited.conn.execute(
        "INSERT INTO broker.span_row"
        " (trace_id, span_id, name, kind, start_ns, end_ns, status, attributes, links)"
        " VALUES ($1, $2, 'broker.v1.AccessService/RevokeGrant', 'SERVER', $3, $3, 'OK', $4, '[]')",
        trace, bytes(8), int(at.timestamp() * 10**9), json.dumps({"broker.decision.id": str(event)}),
    )  # fmt: skip
    return trace


async def test_spans_of_the_sdk(audited):
    """What is stored span by span counts as what is stored in one row."""
    await audited.partition(NOW)
    at = NOW - timedelta(seconds=30)
    kept = await audited.put(at=at, kind="revoke", outcome="done")
    trace = await revoked(audited, at, kept)
    await audited.conn.execute("SET session_replication_role = replica")
    await audited.conn.execute("UPDATE broker.ledger_event SET trace_id = $1", trace.hex())
    forged = await revoked(audited, at, uuid.uuid4())
    [part] = [part async for part in reconcile(audited.pool, NOW - FIRST_PART, NOW)]

    assert (part.events, part.missing_spans) == (1, ())
    assert (part.traces, part.missing_events) == (2, (forged.hex(),))


async def test_a_span_that_names_no_event_id(audited):
    """It counts as one whose event is not there, is shown as it is, and hides no other."""
    await audited.partition(NOW)
    at = NOW - timedelta(seconds=30)
    junk = [await revoked(audited, at, name) for name in ("junk", "0" * 36, "")]
    kept = await audited.put(at=at)
    whole = await span(audited, at, event=kept)
    [part] = [part async for part in reconcile(audited.pool, NOW - FIRST_PART, NOW)]
    tracing = Tracing(audited.pool, EventReader(audited.pool))
    shown = [await tracing.of_trace(trace.hex()) for trace in (*junk, whole)]

    assert (part.traces, set(part.missing_events)) == (4, {trace.hex() for trace in junk})
    assert [len(found.spans) for found in shown] == [1] * 4
    assert [[e.event_id for e in found.events] for found in shown] == [[], [], [], [kept]]


async def test_what_is_known_of_a_grant_fits_a_message(audited):
    """Events whose leaves are large are cut off, and the answer says so."""
    grant = uuid.uuid4()
    for _ in range(20):
        await audited.put(grant=grant, leaf=b"x" * 250_000)
    found = await Tracing(audited.pool, EventReader(audited.pool)).of_grants([grant])

    assert (0 < len(found.events) < 20, found.truncated) == (True, True)
    assert sum(len(event.leaf) for event in found.events) < MOST_BYTES


@pytest.mark.parametrize(
    ("column", "value"),
    [("start_ns", 1 << 62), ("duration_ns", (1 << 63) - 1), ("steps", [0, 0, (1 << 63) - 1, 0] + [-1] * 12)],
)
async def test_a_span_whose_times_have_no_sum(audited, column, value):
    """No search could add them up: it is not stored."""
    await span(audited, NOW)
    with pytest.raises(asyncpg.CheckViolationError):
        await audited.conn.execute(f"UPDATE broker.read_trace SET {column} = $1", value)


async def test_both_sides(audited):
    """An event without a span and a span without its event are counted and named; what has both is not."""
    await audited.partition(NOW)
    for minutes in range(5):
        await traced(audited, NOW - timedelta(minutes=3 * minutes, seconds=30))
    lost = await traced(audited, NOW - timedelta(minutes=4), span_too=False)
    forged = await span(audited, NOW - timedelta(minutes=9), event=uuid.uuid4())
    await span(audited, NOW - timedelta(minutes=1))  # names no event: a call that ended before
    await audited.put(at=NOW - timedelta(minutes=2), kind="admin", outcome="done")
    parts = [part async for part in reconcile(audited.pool, NOW - timedelta(minutes=20), NOW)]

    assert sum(part.events for part in parts) == 6
    assert [event for part in parts for event in part.missing_spans] == [lost]
    assert sum(part.events_without_spans for part in parts) == 1
    assert sum(part.traces for part in parts) == 6
    assert [trace for part in parts for trace in part.missing_events] == [forged.hex()]
    assert sum(part.traces_without_events for part in parts) == 1


async def test_parts_leave_nothing_out(audited):
    """They go back in time and meet; each is longer where the one before was quick, shorter where slow."""
    ticks = iter([0.0, 0.0, 10.0, 10.0, 20.0, 25.0, 30.0, 30.0, *range(40, 4000)])
    since = NOW - timedelta(minutes=9)
    parts = [part async for part in reconcile(audited.pool, since, NOW, monotonic=lambda: next(ticks))]

    assert (parts[0].until, parts[-1].since) == (NOW, since)
    assert all(one.since == other.until for one, other in pairwise(parts))
    assert [part.until - part.since for part in parts[:4]] == [
        FIRST_PART, 2 * FIRST_PART, 4 * FIRST_PART, 2 * FIRST_PART,
    ]  # fmt: skip


async def test_a_time_to_come_is_now(audited):
    """Nothing is on record of then, so nobody waits for its parts."""
    far, since = NOW.replace(year=2126), NOW - timedelta(minutes=1)
    parts = [part async for part in reconcile(audited.pool, since, far, clock=NOW.timestamp)]

    assert (parts[0].until, parts[-1].since) == (NOW + AHEAD, since)


def query(**change):
    told = {"since": NOW - timedelta(hours=2), "until": NOW, "attributes": {}, "name": READ}
    return SpanQuery(**(told | change))


@pytest.mark.attack("E5")
async def test_search(audited):
    """By attribute, name and time, newest first; pages neither overlap nor leave out within one moment."""
    same = NOW - timedelta(minutes=50)
    for number in range(7):
        await span(audited, same, reason="FEED_STALE", number=number + 1)
        await span(audited, NOW - timedelta(minutes=10 * number, seconds=1), number=number + 1)
    found, token, pages = [], "", []
    wanted = query(attributes={"broker.error.reason": "FEED_STALE"})
    while True:
        page, token = await search(audited.pool, wanted, size=2, token=token)
        found += page
        pages.append(len(token))
        if not token:
            break
    everything, _ = await search(audited.pool, query(), size=100)
    narrow, _ = await search(audited.pool, query(since=NOW - timedelta(minutes=15)), size=100)
    other, _ = await search(audited.pool, query(name="mask fields"), size=100)

    assert [s.span_id for s in found] == [f"{number << 4:016x}" for number in range(7, 0, -1)]
    assert len(set(pages)) == 2
    assert len(everything) == 14
    assert [s.start_ns for s in everything] == sorted((s.start_ns for s in everything), reverse=True)
    assert (len(narrow), other) == (2, [])
    page, token = await search(audited.pool, wanted, size=2)
    for bad in (token[:-2], "zz" + token[2:], token + "00"):
        with pytest.raises(RequestMalformedError):
            await search(audited.pool, wanted, size=2, token=bad)
    with pytest.raises(RequestMalformedError):
        await search(audited.pool, query(), size=2, token=token)


async def test_steps_are_found_by_their_own_time(audited):
    """A step that began in the time asked for, of a request that began before it."""
    trace = await span(audited, NOW - timedelta(seconds=70), number=1)
    steps = [-1] * 16
    steps[2:6] = [55 * 10**9, 56 * 10**9, 65 * 10**9, 66 * 10**9]
    await audited.conn.execute("UPDATE broker.read_trace SET steps = $1", steps)
    asked = query(since=NOW - timedelta(seconds=20), name="")
    found, _ = await search(audited.pool, asked, size=10)

    assert [(s.trace_id, s.name) for s in found] == [(trace.hex(), "resolve ticket")]


async def test_a_window_reads_its_own_time_alone(audited):
    """Whatever is stored besides: the index on a request's begin is used for its steps, too."""
    await audited.conn.execute(
        "INSERT INTO broker.read_trace (trace_id, span_id, start_ns, duration_ns, steps, code)"
        " SELECT decode(lpad(to_hex(i), 32, '0'), 'hex'), '\\x0000000000000000', i * 10000000000, 1000,"
        " array_fill(1, ARRAY[16]), 0 FROM generate_series(1, 40000) AS i"
    )
    await audited.conn.execute("SELECT brin_summarize_new_values('broker.read_trace_start')")
    await audited.conn.execute("ANALYZE broker.read_trace")
    plan = await audited.rows(
        "EXPLAIN (ANALYZE, FORMAT JSON) " + queries("audit_traces").search_spans,
        20_000 * 10**10, 20_000 * 10**10 + 1, b"\xff" * 8, "{}", 10, None,
    )  # fmt: skip

    reads = [n for n in nodes(json.loads(plan[0][0])[0]["Plan"]) if n.get("Relation Name") == "read_trace"]
    assert [n["Node Type"] for n in reads] == ["Bitmap Heap Scan"] * 2
    assert max(n["Actual Rows"] + n["Rows Removed by Index Recheck"] for n in reads) < 10_000


def nodes(plan):
    """Gives a plan's nodes."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def test_a_search_ends_in_time(audited):
    """Time that is up ends a call with a token, and the next call goes on from there."""
    await span(audited, NOW - timedelta(seconds=100), number=1)
    ticks = iter(range(0, 100_000, 1))
    page, token = await search(audited.pool, query(), size=5, monotonic=lambda: next(ticks))
    assert (page, bool(token)) == ([], True)
    while token and not page:
        page, token = await search(audited.pool, query(), size=5, token=token, monotonic=lambda: next(ticks))

    assert [s.span_id for s in page] == [f"{1 << 4:016x}"]
