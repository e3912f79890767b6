"""Spans, log lines and metrics: the names once, and how each is made.

Invariants:
- nothing here does I/O on a request's path: a span or a counter is memory, a queue's end, or a mapped page;
- no personal data by construction: attribute names, log fields and metric labels are closed lists, and
  neither an exception's text nor a library's message is ever written;
- a caller cannot switch a trace off, choose its id or add to it (P7): `traceparent` becomes a link.
"""

from __future__ import annotations

from broker.telemetry.compact import CompactTrace, parse_traceparent
from broker.telemetry.logs import FIELDS, JsonFormatter, set_up_logging
from broker.telemetry.metrics import Metrics, forget_process, render_metrics
from broker.telemetry.names import (
    APPEND,
    APPLY,
    ATTRIBUTES,
    AUTHENTICATE,
    CODES,
    COMPACT,
    CREATE_GRANT,
    DB_NAMESPACE,
    DB_OPERATION_NAME,
    DB_SYSTEM_NAME,
    DECIDE,
    DECISION_ID,
    DECISION_OUTCOME,
    DERIVE_PSEUDONYMS,
    ERROR_REASON,
    ERROR_TYPE,
    FIELD_COUNT,
    GRANT_ID,
    GROUP_SIZE,
    MASK,
    PLACED_STEPS,
    POLICY_VERSION,
    READ,
    READ_RECORD,
    READ_STEPS,
    RESOLVE,
    ROW_COUNT,
    RPC_METHOD,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    SCOPE,
    SERVER_FAULTS,
    SIGN,
    PlacedStep,
    Step,
)
from broker.telemetry.tracing import Item, OpenStep, Sink, Telemetry, Trace

__all__ = [
    "APPEND",
    "APPLY",
    "ATTRIBUTES",
    "AUTHENTICATE",
    "CODES",
    "COMPACT",
    "CREATE_GRANT",
    "DB_NAMESPACE",
    "DB_OPERATION_NAME",
    "DB_SYSTEM_NAME",
    "DECIDE",
    "DECISION_ID",
    "DECISION_OUTCOME",
    "DERIVE_PSEUDONYMS",
    "ERROR_REASON",
    "ERROR_TYPE",
    "FIELDS",
    "FIELD_COUNT",
    "GRANT_ID",
    "GROUP_SIZE",
    "MASK",
    "PLACED_STEPS",
    "POLICY_VERSION",
    "READ",
    "READ_RECORD",
    "READ_STEPS",
    "RESOLVE",
    "ROW_COUNT",
    "RPC_METHOD",
    "RPC_RESPONSE_STATUS_CODE",
    "RPC_SYSTEM_NAME",
    "SCOPE",
    "SERVER_FAULTS",
    "SIGN",
    "CompactTrace",
    "Item",
    "JsonFormatter",
    "Metrics",
    "OpenStep",
    "PlacedStep",
    "Sink",
    "Step",
    "Telemetry",
    "Trace",
    "forget_process",
    "parse_traceparent",
    "render_metrics",
    "set_up_logging",
]
