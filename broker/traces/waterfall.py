"""Reading traces back: a grant's spans, and the rows of the picture that render.py draws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from broker.database import connection, queries

MAX_TRACES = 100
"""Most traces of one grant that are shown; a grant lives minutes."""

GRACE = timedelta(seconds=10)
"""How long spans may lag behind their ledger event before they count as missing."""

BAR_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it was stored; ids in hex."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    links: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is stored about one grant (the trace that created it, those of its reads) or other traces."""

    grant_id: UUID | None
    spans: tuple[Span, ...]
    truncated: bool  # there are more than MAX_TRACES


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the waterfall."""

    trace_id: str
    name: str
    depth: int  # 0 is the RPC
    start: datetime
    offset_ms: float  # since the RPC began
    duration_ms: float
    bar: tuple[int, int]  # first cell and number of cells, of BAR_WIDTH
    status: str
    attributes: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class MissingSpans:
    """A ledger event whose trace was lost."""

    event_id: UUID
    kind: str
    grant_id: UUID | None
    trace_id: str
    record_time: datetime


async def load(pool: asyncpg.Pool, grant_id: UUID, *, limit: int = MAX_TRACES) -> Trace:
    """Reads the traces of a grant; empty where nothing is stored about it.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    async with connection(pool) as conn:
        rows = await conn.fetch(queries("traces").spans_of_grant, grant_id, limit + 1)
    spans = [span_of(row) for row in rows]
    traces = list(dict.fromkeys(span.trace_id for span in spans))
    kept = set(traces[:limit])
    return Trace(grant_id, tuple(s for s in spans if s.trace_id in kept), truncated=len(traces) > limit)


async def grants_without_spans(
    pool: asyncpg.Pool, since: datetime, *, until: datetime | None = None, limit: int = 1000
) -> list[MissingSpans]:
    """Lists ledger events of grants, reads and revocations whose spans are not stored (P7).

    Args:
        pool: of a role that may read ledger and spans.
        since: from when on.
        until: until when; some seconds ago where not given, because spans follow their event.
        limit: most events.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    end = until or datetime.now(UTC) - GRACE
    async with connection(pool) as conn:
        rows = await conn.fetch(queries("traces").grants_without_spans, since, end, limit)
    return [MissingSpans(*row.values()) for row in rows]


def waterfall(trace: Trace, width: int = BAR_WIDTH) -> list[Row]:
    """Orders the spans as a tree for each trace, oldest trace first; a span without its parent is a root."""
    rows: list[Row] = []
    for spans in _by_trace(trace):
        known = {s.span_id for s in spans}
        children: dict[str | None, list[Span]] = {}
        for span in spans:
            parent = span.parent_span_id if span.parent_span_id in known else None
            children.setdefault(parent, []).append(span)
        begin = min(s.start_ns for s in spans)
        length = max(max(s.end_ns for s in spans) - begin, 1)
        for span, depth in _walk(children, None, 0):
            first = (span.start_ns - begin) * width // length
            cells = max(1, round((span.end_ns - span.start_ns) * width / length))
            first = min(first, width - 1)
            rows.append(
                Row(
                    trace_id=span.trace_id,
                    name=span.name,
                    depth=depth,
                    start=datetime.fromtimestamp(span.start_ns / 1e9, UTC),
                    offset_ms=(span.start_ns - begin) / 1e6,
                    duration_ms=(span.end_ns - span.start_ns) / 1e6,
                    bar=(first, min(cells, width - first)),
                    status=span.status,
                    attributes=span.attributes,
                )
            )
    return rows


def as_json(trace: Trace) -> dict[str, object]:
    """Gives the trace for `--json`."""
    return {
        "grant_id": str(trace.grant_id) if trace.grant_id else None,
        "truncated": trace.truncated,
        "spans": [
            {
                "trace_id": s.trace_id,
                "span_id": s.span_id,
                "parent_span_id": s.parent_span_id,
                "name": s.name,
                "kind": s.kind,
                "start_ns": s.start_ns,
                "end_ns": s.end_ns,
                "status": s.status,
                "attributes": dict(s.attributes),
                "links": [dict(link) for link in s.links],
            }
            for s in trace.spans
        ],
    }


def span_of(row: asyncpg.Record) -> Span:
    """Makes a span of a row of `broker.span`."""
    values = dict(row)
    values["attributes"] = json.loads(values["attributes"])
    values["links"] = tuple(json.loads(values["links"]))
    return Span(**values)


def _by_trace(trace: Trace) -> Iterator[list[Span]]:
    traces: dict[str, list[Span]] = {}
    for span in sorted(trace.spans, key=lambda s: (s.start_ns, s.parent_span_id is not None, s.span_id)):
        traces.setdefault(span.trace_id, []).append(span)
    yield from traces.values()


def _walk(
    children: Mapping[str | None, list[Span]], parent: str | None, depth: int
) -> Iterator[tuple[Span, int]]:
    for span in children.get(parent, ()):
        yield span, depth
        yield from _walk(children, span.span_id, depth + 1)
