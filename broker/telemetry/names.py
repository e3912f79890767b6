"""Names of spans and attributes; the only place where they are written.

Invariants:
- a span is `{verb} {object}`, an RPC's span is its full method (semantic conventions of RPC);
- an attribute that is not in `ATTRIBUTES` is never stored or exported;
- the view `broker.span` knows compact methods and placed steps by the same numbers, names, kinds and
  attributes; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.trace import SpanKind

SCOPE: Final = "broker"
"""Instrumentation scope of every span."""

# Semantic conventions 1.4x, as `opentelemetry-semantic-conventions` names them; rpc.service, rpc.system
# and rpc.grpc.status_code are deprecated there in favour of these three.
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
DB_SYSTEM_NAME: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_OPERATION_NAME: Final = "db.operation.name"
ERROR_TYPE: Final = "error.type"

DECISION_ID: Final = "broker.decision.id"  # also the id of the ledger event
DECISION_OUTCOME: Final = "broker.decision.outcome"  # allowed, partial, denied
ERROR_REASON: Final = "broker.error.reason"  # a name of errors.CATALOGUE
FIELD_COUNT: Final = "broker.field.count"
GRANT_ID: Final = "broker.grant.id"
GROUP_SIZE: Final = "broker.ledger.group_size"
POLICY_VERSION: Final = "broker.policy.version"
ROW_COUNT: Final = "broker.record.row_count"

ATTRIBUTES: Final = frozenset(
    {
        RPC_SYSTEM_NAME,
        RPC_METHOD,
        RPC_RESPONSE_STATUS_CODE,
        DB_SYSTEM_NAME,
        DB_NAMESPACE,
        DB_OPERATION_NAME,
        ERROR_TYPE,
        DECISION_ID,
        DECISION_OUTCOME,
        ERROR_REASON,
        FIELD_COUNT,
        GRANT_ID,
        GROUP_SIZE,
        POLICY_VERSION,
        ROW_COUNT,
    }
)
"""Everything a span may say; no name here could hold a person, a ticket or a customer."""

READ_RECORD: Final = "broker.v1.AccessService/ReadRecord"
CREATE_GRANT: Final = "broker.v1.AccessService/CreateGrant"

CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC status codes by number; this layer must not import grpc."""

SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that make a server span an error; a refusal is a correct answer, says the convention."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request: the span under the RPC's."""

    name: str
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacedStep(Step):
    """A step that a `CompactTrace` has a place for; the index is part of what is stored."""

    index: int = 0


def _query(operation: str, namespace: str) -> dict[str, str]:
    return {DB_SYSTEM_NAME: "postgresql", DB_NAMESPACE: namespace, DB_OPERATION_NAME: operation}


AUTHENTICATE: Final = PlacedStep("authenticate caller", index=0)
RESOLVE: Final = PlacedStep("resolve ticket", SpanKind.CLIENT, _query("SELECT", "broker"), index=1)
DECIDE: Final = PlacedStep("decide fields", index=2)
READ: Final = PlacedStep("read record", SpanKind.CLIENT, _query("SELECT", "broker_guard"), index=3)
APPEND: Final = PlacedStep("append event", SpanKind.CLIENT, _query("INSERT", "broker"), index=4)
MASK: Final = PlacedStep("mask fields", index=5)

DERIVE_PSEUDONYMS: Final = PlacedStep(
    "derive pseudonyms", SpanKind.CLIENT, _query("SELECT", "broker_guard"), index=6
)
SIGN: Final = PlacedStep("sign grant", index=7)

PLACED_STEPS: Final = (AUTHENTICATE, RESOLVE, DECIDE, READ, APPEND, MASK, DERIVE_PSEUDONYMS, SIGN)
"""In the order of their index; append only, old rows keep their meaning."""

READ_STEPS: Final = PLACED_STEPS[:6]
"""The steps of a read."""


@dataclass(frozen=True, slots=True)
class CompactMethod:
    """A method whose trace is one row; the number is part of what is stored."""

    name: str
    number: int
    places: int  # for how many of PLACED_STEPS


COMPACT: Final = {
    method.name: method
    for method in (
        CompactMethod(READ_RECORD, 0, len(READ_STEPS)),
        CompactMethod(CREATE_GRANT, 1, len(PLACED_STEPS)),
    )
}
"""What is called all day long; every other method has spans of the SDK."""

APPLY: Final = Step("apply change", SpanKind.CLIENT, _query("UPDATE", "broker"))
