"""The span store: nothing in the way of a request, nothing lost without being counted."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from broker import telemetry
from broker.errors import DatabaseUnavailableError
from broker.telemetry import Metrics, Telemetry
from broker.traces import SpanStore, open_store
from broker.traces.rows import compact_row, compact_spans, span_row
from tests.traces.conftest import EVENT, GRANT, METHOD, TRACEPARENT

SPANS = """
SELECT encode(trace_id, 'hex') AS trace_id, encode(span_id, 'hex') AS span_id,
    encode(parent_span_id, 'hex') AS parent, name, kind, start_ns, end_ns, status, attributes, links
FROM broker.span ORDER BY name
"""


def flat(span):
    """Gives an SDK span in the shape of the view's row."""
    return (
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
        None if span.parent is None else f"{span.parent.span_id:016x}",
        span.name,
        span.kind.name,
        span.start_time,
        span.end_time,
        span.status.status_code.name,
        dict(span.attributes),
        [
            {"trace_id": f"{x.context.trace_id:032x}", "span_id": f"{x.context.span_id:016x}"}
            for x in span.links
        ],
    )


def stored(row):
    values = tuple(row.values())
    return (*values[:-2], json.loads(values[-2]), json.loads(values[-1]))


class TestStored:
    @pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
    @pytest.mark.parametrize(
        "outcome",
        [
            {"code": "OK"},
            {"code": "PERMISSION_DENIED", "reason": "TICKET_DENIED", "policy_version": ""},
            {"code": "UNAVAILABLE", "reason": "LEDGER_UNAVAILABLE", "event_id": None},
            {"code": "NO_SUCH_CODE"},
        ],
    )
    async def test_view_and_export_agree_on_a_read(self, world, traceparent, outcome):
        """The view makes of a read's row exactly the spans that the export makes of it."""
        steps = telemetry.READ_STEPS if outcome["code"] == "OK" else telemetry.READ_STEPS[:3]
        read = world.read(traceparent=traceparent, steps=steps, **outcome)
        await world.store.flush()
        rows = await world.query(SPANS)
        if outcome["code"] == "NO_SUCH_CODE":
            read.code = "UNKNOWN"

        expected = sorted((flat(s) for s in compact_spans(read, Resource({}))), key=lambda s: s[3])
        assert [stored(row) for row in rows] == expected
        assert len(rows) == len(steps) + 1
        assert {row["trace_id"] for row in rows} == {read.trace_id}
        assert read.span_id in {row["span_id"] for row in rows}

    async def test_view_and_export_agree_on_a_grant(self, world):
        """The same of a grant's row: its own name, and its steps, one of which was taken twice."""
        grant = world.telemetry.start_compact(telemetry.CREATE_GRANT, TRACEPARENT)
        steps = [s for s in telemetry.PLACED_STEPS if s not in (telemetry.READ, telemetry.MASK)]
        for step in (*steps, telemetry.APPEND):
            with grant.step(step):
                pass
        grant.finish(code="OK", grant_id=GRANT, event_id=EVENT, policy_version="7")
        await world.store.flush()
        rows = [stored(row) for row in await world.query(SPANS)]

        assert rows == sorted((flat(s) for s in compact_spans(grant, Resource({}))), key=lambda s: s[3])
        assert {row[3] for row in rows} == {telemetry.CREATE_GRANT, *(step.name for step in steps)}
        at = 2 * telemetry.APPEND.index
        sign = 2 * telemetry.SIGN.index
        assert (
            grant.marks[at] < grant.marks[sign] < grant.marks[at + 1]
        )  # from its first begin to its last end

    async def test_every_code_has_its_name(self, world):
        """The view names every status code as the code does, and the same ones are faults."""
        reads = [world.read(steps=(), code=code) for code in telemetry.CODES]
        await world.store.flush()
        rows = {row["trace_id"]: stored(row) for row in await world.query(SPANS)}

        for read in reads:
            (span,) = compact_spans(read, Resource({}))
            assert rows[read.trace_id] == flat(span)

    async def test_full_tree(self, world):
        """The spans of a revocation are stored as the SDK made them, joined to grant and ledger event."""
        trace = world.grant(traceparent=TRACEPARENT)
        await world.store.flush()
        rows = {row["name"]: row for row in await world.query(SPANS)}

        assert set(rows) == {METHOD, "decide fields", "resolve ticket"}
        root = rows[METHOD]
        assert (root["trace_id"], root["span_id"], root["parent"]) == (trace.trace_id, trace.span_id, None)
        assert rows["decide fields"]["parent"] == root["span_id"]
        assert rows["resolve ticket"]["parent"] == rows["decide fields"]["span_id"]
        assert json.loads(root["attributes"])["broker.grant.id"] == str(GRANT)
        assert json.loads(root["attributes"])["broker.decision.id"] == str(EVENT)
        assert json.loads(root["links"])[0]["trace_id"] == TRACEPARENT[3:35]
        assert world.counted("stored") == 3

    async def test_the_task_drains_by_itself(self, world, monkeypatch):
        """A started store stores without being asked."""
        monkeypatch.setattr("broker.traces.store.INTERVAL", 0.0)
        world.read()
        world.store.start()
        async with asyncio.timeout(10):
            while world.store.waiting:  # noqa: ASYNC110 - the store tells nobody, by design
                await asyncio.sleep(0)

        assert world.counted("stored") == 1


class TestLoss:
    @pytest.mark.attack("X7")
    async def test_full_queue_is_counted_and_costs_the_request_nothing(self, world):
        """What does not fit is dropped and counted; what fits is stored; no caller notices."""
        for _ in range(1000):
            world.read()
        assert world.counted("dropped") == 0
        for _ in range(500):
            world.read()
        await world.store.flush()

        assert world.counted("dropped") == world.store.dropped == 500
        assert world.counted("stored") == 1000
        assert (await world.query("SELECT count(*) FROM broker.read_trace"))[0][0] == 1000

    async def test_outage_keeps_what_waits(self, world):
        """While the database is away spans wait; when it is back they are all stored, once."""
        world.grant()
        world.read()
        conn = await asyncpg.connect(world.database.server.dsn())
        try:
            await conn.execute(f"ALTER DATABASE {world.database.name} ALLOW_CONNECTIONS false")
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                world.database.name,
            )
            with pytest.raises(DatabaseUnavailableError):
                await world.store.flush()
            assert world.store.waiting == 4
            await conn.execute(f"ALTER DATABASE {world.database.name} ALLOW_CONNECTIONS true")
        finally:
            await conn.close()
        await world.store.flush()

        assert (world.counted("stored"), world.counted("dropped"), world.store.waiting) == (4, 0, 0)
        assert len(await world.query(SPANS)) == 10

    async def test_commit_whose_answer_was_lost(self, world, monkeypatch):
        """A COPY that was durable although it answered with an error is not stored twice."""
        copy = asyncpg.Connection.copy_records_to_table

        async def persist_but_fail(self, *args, **kwargs):
            await copy(self, *args, **kwargs)
            raise ConnectionResetError

        world.read()
        world.grant()
        monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", persist_but_fail)
        with pytest.raises(DatabaseUnavailableError):
            await world.store.flush()
        monkeypatch.undo()
        await world.store.flush()

        assert (world.counted("stored"), world.counted("dropped")) == (4, 0)
        assert len(await world.query(SPANS)) == 10

    @pytest.mark.parametrize(
        "spoil",
        [
            {"reason": "a\0b"},  # refused by the server
            {"reason": "\ud800"},  # refused by the encoder
            {"policy_version": 7.5},
            {"start_ns": 2**70},
            {"traceparent": 5},
        ],
        ids=str,
    )
    async def test_odd_item_blocks_nobody(self, world, spoil):
        """A batch that can never be stored is counted as dropped and the next one is stored."""
        odd = world.read()
        for name, value in spoil.items():
            setattr(odd, name, value)
        await world.store.flush()
        world.read()
        await world.store.flush()

        assert (world.counted("stored"), world.counted("dropped"), world.store.waiting) == (1, 1, 0)


class TestClose:
    async def test_stores_the_rest(self, database):
        """A closed store has stored what waited, and counts what comes later as dropped."""
        store = await open_store(database.dsn("broker_access"), Metrics(registry=CollectorRegistry()))
        telemetry_ = Telemetry([store])
        store.start()
        telemetry_.start_compact(telemetry.READ_RECORD).finish(code="OK")
        await store.close()
        telemetry_.start_compact(telemetry.READ_RECORD).finish(code="OK")

        assert (store.waiting, store.dropped) == (0, 1)

    @pytest.mark.attack("X8")
    async def test_hanging_database_does_not_hold_the_shutdown(self, caplog):
        """A database that accepts and never answers delays the shutdown by the time given, no more."""

        class Hanging:
            def acquire(self, *, timeout):
                return self

            async def __aenter__(self):
                await asyncio.Event().wait()

            async def __aexit__(self, *args):
                pass

            def terminate(self):
                pass

        store = SpanStore(Hanging(), Metrics(registry=CollectorRegistry()))
        store.start()
        Telemetry([store]).start_compact(telemetry.READ_RECORD).finish(code="OK")
        begin = time.monotonic()
        await store.close(0.1)

        assert time.monotonic() - begin < 2
        assert store.dropped == 1
        assert "spans lost at shutdown" in caplog.text


class TestRights:
    @pytest.mark.parametrize("role", ["broker_access", "broker_admin", "broker_feed"])
    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT trace_id FROM broker.read_trace",
            "SELECT trace_id FROM broker.span_row",
            "SELECT name FROM broker.span",
            "UPDATE broker.read_trace SET code = 0",
            "DELETE FROM broker.span_row",
            "TRUNCATE broker.read_trace",
            "SELECT broker.drop_spans_before(now())",
        ],
    )
    async def test_writers_only_write(self, world, role, statement):
        """A process that stores spans can neither read, change nor remove any."""
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.query(statement, role=role)

    @pytest.mark.parametrize("role", ["broker_access", "broker_admin", "broker_feed"])
    async def test_every_process_may_store(self, database, role):
        """Each process that traces stores under its own role."""
        store = await open_store(database.dsn(role), Metrics(registry=CollectorRegistry()))
        Telemetry([store]).start_trace(METHOD).finish(code="OK")
        Telemetry([store]).start_compact(telemetry.READ_RECORD).finish(code="OK")
        await store.close()

        assert store.dropped == 0

    @pytest.mark.parametrize(
        "statement", ["INSERT INTO broker.span_row DEFAULT VALUES", "DELETE FROM broker.read_trace"]
    )
    async def test_auditors_only_read(self, world, statement):
        """An auditor reads spans and writes none."""
        world.read()
        await world.store.flush()

        assert len(await world.query(SPANS, role="broker_auditor")) == 7
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.query(statement, role="broker_auditor")

    async def test_readers_see_nothing(self, world):
        """The role that reads records has no business here."""
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.query(SPANS, role="broker_reader")


async def test_retention(world):
    """The owner forgets what is older than a time, and nothing younger."""
    world.grant()
    old = world.read()
    old.start_ns = 1_000_000_000
    world.read()
    await world.store.flush()
    (row,) = await world.query(
        "SELECT broker.drop_spans_before(now() - interval '1 day')", role="broker_owner"
    )

    assert row[0] == 1
    assert len(await world.query(SPANS)) == 10


def test_rows_carry_no_unknown_attribute():
    """Even an attribute that went around the trace's own door is not stored."""
    taken = []

    class Sink:
        put = taken.append

    trace = Telemetry([Sink()]).start_trace(METHOD)
    trace._root.set_attribute("customer.email", "jane@example.org")
    trace.finish(code="OK")

    assert "jane" not in str(span_row(taken[0]))
    assert compact_row(Telemetry([Sink()]).start_compact(telemetry.READ_RECORD))[4] == [-1] * 12
