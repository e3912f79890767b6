"""Where traces go and how they are read: the span store, the OTLP export, the waterfall.

Invariants:
- the ledger is the record and the span the copy: a span may be lost, its loss is counted, and
  `grants_without_spans` names the events that lack theirs;
- nothing here runs on a request's path but one append to a bounded queue per sink;
- every wait has an end: a dead database or a dead collector delays neither a request nor the shutdown
  beyond a named number of seconds.
"""

from __future__ import annotations

from broker.traces.otlp import OtlpExport, exporter_from, resource_from
from broker.traces.store import SpanStore, open_store
from broker.traces.waterfall import (
    MissingSpans,
    Row,
    Span,
    Trace,
    as_json,
    grants_without_spans,
    load,
    span_of,
    waterfall,
)

__all__ = [
    "MissingSpans",
    "OtlpExport",
    "Row",
    "Span",
    "SpanStore",
    "Trace",
    "as_json",
    "exporter_from",
    "grants_without_spans",
    "load",
    "open_store",
    "resource_from",
    "span_of",
    "waterfall",
]
