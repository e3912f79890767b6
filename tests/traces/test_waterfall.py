"""Reading traces back: the tree of a grant, its picture, and what the ledger knows to be missing."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from broker import telemetry
from broker.database import open_pool
from broker.traces import Row, Span, Trace, as_json, grants_without_spans, load, waterfall
from broker.traces.render import render
from tests.traces.conftest import EVENT, GRANT, METHOD, TRACEPARENT

OTHER = UUID("019ab2f0-7c1e-7000-8000-0000000000ff")


def span(name, start, end, span_id, parent=None, trace_id="a" * 32, **kwargs):
    return Span(trace_id, span_id, parent, name, "INTERNAL", start, end, "UNSET", **kwargs)


@pytest.fixture
async def pool(database):
    """A pool of the role that audits."""
    pool = await open_pool(database.dsn("broker_auditor"), name="test")
    yield pool
    await pool.close()


class TestLoad:
    async def test_grant_and_its_reads(self, world, pool):
        """A grant's traces are its creation and its reads, in time's order, and nobody else's."""
        created = world.grant(traceparent=TRACEPARENT)
        reads = [world.read() for _ in range(3)]
        world.grant(OTHER)
        world.read(OTHER)
        await world.store.flush()
        trace = await load(pool, GRANT)
        roots = [s for s in trace.spans if s.parent_span_id is None]

        assert [s.trace_id for s in roots] == [created.trace_id, *[r.trace_id for r in reads]]
        assert [s.name for s in roots] == [METHOD, *[telemetry.READ_RECORD] * 3]
        assert len(trace.spans) == 3 + 3 * 7
        assert not trace.truncated
        assert roots[0].links[0]["trace_id"] == TRACEPARENT[3:35]
        assert {s.attributes["broker.decision.id"] for s in roots} == {str(EVENT)}

    async def test_unknown_grant(self, world, pool):
        """A grant that nothing is stored about has no spans."""
        assert await load(pool, OTHER) == Trace(OTHER, (), truncated=False)

    async def test_limit(self, world, pool):
        """Of many traces the oldest are given, and that there are more is said."""
        world.grant()
        for _ in range(5):
            world.read()
        await world.store.flush()
        trace = await load(pool, GRANT, limit=3)

        assert len({s.trace_id for s in trace.spans}) == 3
        assert trace.spans[0].name == METHOD
        assert trace.truncated

    async def test_json(self, world, pool):
        """The JSON form holds every span."""
        world.grant()
        await world.store.flush()
        document = json.loads(json.dumps(as_json(await load(pool, GRANT))))

        assert document["grant_id"] == str(GRANT)
        assert {s["name"] for s in document["spans"]} == {METHOD, "decide fields", "resolve ticket"}


class TestWaterfall:
    def test_rows(self):
        """Rows follow the tree; offsets, durations and bars are relative to the RPC."""
        trace = Trace(
            GRANT,
            (
                span("append", 6_000_000, 10_000_000, "3", "1"),
                span("rpc", 0, 10_000_000, "1"),
                span("decide", 1_000_000, 1_500_000, "2", "1"),
                span("look up", 1_100_000, 1_200_000, "4", "2"),
            ),
            truncated=False,
        )
        rows = waterfall(trace, width=20)

        assert [(r.name, r.depth, r.offset_ms, r.duration_ms, r.bar) for r in rows] == [
            ("rpc", 0, 0.0, 10.0, (0, 20)),
            ("decide", 1, 1.0, 0.5, (2, 1)),
            ("look up", 2, 1.1, 0.1, (2, 1)),
            ("append", 1, 6.0, 4.0, (12, 8)),
        ]

    def test_lost_parent(self):
        """A span whose parent was lost is shown as a root, not left out."""
        rows = waterfall(Trace(GRANT, (span("orphan", 5, 9, "2", "lost"),), truncated=False))

        assert [(r.name, r.depth) for r in rows] == [("orphan", 0)]

    @pytest.mark.parametrize(
        "spans",
        [
            [],
            [span("nothing", 5, 5, "1")],
            [span("backwards", 9, 5, "1")],
            [span("own parent", 5, 9, "1", "1")],
            [span("a", 5, 9, "1", "2"), span("b", 5, 9, "2", "1")],
            [span("rpc", 0, 10, "1"), span("later than its parent", 10, 12, "2", "1")],
        ],
    )
    def test_odd_spans(self, spans):
        """Whatever is stored, the picture ends and every bar lies within it."""
        for row in waterfall(Trace(GRANT, tuple(spans), truncated=False), width=10):
            first, cells = row.bar
            assert 0 <= first < 10
            assert 1 <= cells <= 10 - first

    def test_each_trace_begins_at_zero(self):
        """Traces of one grant are drawn one below the other, each on its own scale."""
        spans = (span("b", 500, 600, "1", trace_id="b" * 32), span("a", 0, 10, "1"))
        rows = waterfall(Trace(GRANT, spans, truncated=False), width=10)

        assert [(r.name, r.offset_ms, r.bar) for r in rows] == [("a", 0.0, (0, 10)), ("b", 0.0, (0, 10))]
        assert isinstance(rows[0], Row)

    def test_render(self):
        """The terminal's table shows names, times, bars and outcomes, and says when there is more."""
        attributes = {"rpc.response.status_code": "UNAVAILABLE", "broker.error.reason": "FEED_STALE"}
        spans = (span("rpc", 0, 10**7, "1", attributes=attributes), span("[b]decide[/b]", 0, 10**6, "2", "1"))
        out = io.StringIO()
        Console(file=out, width=80).print(render(Trace(GRANT, spans, truncated=True)))
        text = out.getvalue()

        assert str(GRANT) in text
        assert "a" * 32 in text
        assert "━" * 22 in text
        assert "10.000" in text
        assert "UNAVAILABLE FEED_STALE" in text
        assert "  [b]decide[/b]" in text
        assert "more traces" in text
        assert "…" not in text

    def test_render_nothing(self):
        """A grant without spans is said to have none."""
        out = io.StringIO()
        Console(file=out, width=80).print(render(Trace(GRANT, (), truncated=False)))

        assert "No spans are stored" in out.getvalue()


class TestGrantsWithoutSpans:
    async def event(self, world, kind, trace_id, grant_id=GRANT):
        await world.query(
            """
            INSERT INTO broker.ledger_event VALUES (
                $1, $2, now(), 'issuer|alice', 'tool', $3, $4, '', '', 'done', '', 7, ''
            )
            """,
            event := UUID(
                int=(int(datetime.now(UTC).timestamp() * 1000) << 80) | 7 << 76 | uuid4().int >> 60
            ),
            kind,
            grant_id,
            trace_id,
        )
        return event

    @pytest.mark.attack("X7")
    async def test_the_ledger_names_what_is_missing(self, world, pool):
        """Events whose spans were lost are listed; those with spans, and other kinds, are not (P7)."""
        created, read = world.grant(), world.read()
        await world.store.flush()
        for kind, trace in (("grant", created), ("read", read)):
            await self.event(world, kind, trace.trace_id)
        lost_read = await self.event(world, "read", "c" * 32)
        lost_grant = await self.event(world, "grant", "", OTHER)
        await self.event(world, "denials", "d" * 32)
        now = datetime.now(UTC)
        missing = await grants_without_spans(
            pool, now - timedelta(minutes=5), until=now + timedelta(minutes=1)
        )

        assert {(m.event_id, m.kind, m.grant_id) for m in missing} == {
            (lost_read, "read", GRANT),
            (lost_grant, "grant", OTHER),
        }

    async def test_younger_than_the_grace_is_not_missing_yet(self, world, pool):
        """Spans follow their event within seconds; until then they are not called missing."""
        await self.event(world, "read", "c" * 32)

        assert await grants_without_spans(pool, datetime.now(UTC) - timedelta(minutes=5)) == []
