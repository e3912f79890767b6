"""Traces: always new roots, always on, never an exception's text."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import db_attributes, error_attributes
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from broker import telemetry
from broker.errors import LedgerUnavailableError, TicketDeniedError
from broker.telemetry import Telemetry, parse_traceparent

METHOD = "broker.v1.AccessService/CreateGrant"
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
PII = "Jane Roe jane@example.org"


class Sink:
    """Keeps what has ended."""

    def __init__(self):
        self.items = []

    def put(self, item):
        self.items.append(item)

    def span(self, name):
        (found,) = [s for s in self.items if s.name == name]
        return found


@pytest.fixture
def sink():
    return Sink()


class TestParseTraceparent:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (TRACEPARENT, (TRACE_ID, SPAN_ID)),
            (f"00-{TRACE_ID}-{SPAN_ID}-00", (TRACE_ID, SPAN_ID)),
            (f"cc-{TRACE_ID}-{SPAN_ID}-01", (TRACE_ID, SPAN_ID)),
            (None, None),
            ("", None),
            (f"ff-{TRACE_ID}-{SPAN_ID}-01", None),
            (f"00-{'0' * 32}-{SPAN_ID}-01", None),
            (f"00-{TRACE_ID}-{'0' * 16}-01", None),
            (TRACEPARENT.upper(), None),
            (f"{TRACEPARENT}\n", None),
            (f"{TRACEPARENT},{TRACEPARENT}", None),
            (TRACEPARENT.replace("4", "٤"), None),
            ("0" * 1_000_000, None),
        ],
    )
    def test_only_a_valid_one_is_taken(self, text, expected):
        """A traceparent is taken when it is exactly a W3C one, else ignored."""
        assert parse_traceparent(text) == expected


class TestTrace:
    def test_tree(self, sink):
        """A request is one tree: the RPC's span, its steps, and steps of steps."""
        trace_ = Telemetry([sink]).start_trace(f"/{METHOD}")
        with trace_.step(telemetry.RESOLVE) as resolve, resolve.step(telemetry.APPLY):
            pass
        trace_.finish(code="OK", policy_version="7")
        root, step, inner = sink.span(METHOD), sink.span("resolve ticket"), sink.span("apply change")

        assert root.parent is None
        assert root.kind is SpanKind.SERVER
        assert step.parent == root.context
        assert inner.parent == step.context
        assert trace_.trace_id == f"{root.context.trace_id:032x}"
        assert trace_.span_id == f"{root.context.span_id:016x}"
        assert dict(root.attributes) == {
            "rpc.system.name": "grpc",
            "rpc.method": METHOD,
            "rpc.response.status_code": "OK",
            "broker.policy.version": "7",
        }
        assert dict(step.attributes) == {
            "db.system.name": "postgresql",
            "db.namespace": "broker",
            "db.operation.name": "SELECT",
        }
        assert root.start_time <= step.start_time <= inner.start_time
        assert inner.end_time <= step.end_time <= root.end_time

    @pytest.mark.attack("E8", "G12")
    @pytest.mark.parametrize("flags", ["00", "01"])
    def test_caller_chooses_nothing(self, sink, flags):
        """A caller's trace id and sampling flag change neither our ids nor whether we record: a link only."""
        telemetry_ = Telemetry([sink])
        for traceparent in (None, f"00-{TRACE_ID}-{SPAN_ID}-{flags}"):
            telemetry_.start_trace(METHOD, traceparent=traceparent).finish(code="OK")
        control, attacked = sink.items

        assert control.links == ()
        assert [f"{link.context.trace_id:032x}" for link in attacked.links] == [TRACE_ID]
        assert f"{attacked.context.trace_id:032x}" != TRACE_ID
        assert attacked.parent is None
        assert attacked.context.trace_flags.sampled

    def test_ambient_context_is_not_a_parent(self, sink):
        """A span or baggage that some library made current does not reach our trace."""
        foreign = NonRecordingSpan(SpanContext(7, 7, is_remote=True, trace_flags=TraceFlags(0)))
        token = context.attach(baggage.set_baggage("who", PII, trace.set_span_in_context(foreign)))
        try:
            trace_ = Telemetry([sink]).start_trace(METHOD)
            with trace_.step(telemetry.DECIDE):
                pass
            trace_.finish(code="OK")
        finally:
            context.detach(token)

        assert sink.span(METHOD).parent is None
        assert all(span.context.trace_id != 7 for span in sink.items)
        assert PII not in "".join(span.to_json() for span in sink.items)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "0"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "not a number"),
        ],
    )
    def test_no_variable_switches_it_off(self, sink, monkeypatch, name, value):
        """No environment variable of OpenTelemetry stops or thins the record of a grant (P7)."""
        monkeypatch.setenv(name, value)
        Telemetry([sink]).start_trace(METHOD, traceparent=TRACEPARENT).finish(code="OK")
        (root,) = sink.items

        assert root.attributes["rpc.response.status_code"] == "OK"
        assert len(root.links) == 1

    @pytest.mark.parametrize(
        ("error", "kind", "status"),
        [
            (ValueError(PII), "ValueError", "ERROR"),
            (KeyboardInterrupt(PII), "KeyboardInterrupt", "ERROR"),
            (LedgerUnavailableError(cause="commit"), "LEDGER_UNAVAILABLE", "ERROR"),
            (TicketDeniedError(cause="none"), "TICKET_DENIED", "UNSET"),
        ],
    )
    def test_exception_leaves_its_type_alone(self, sink, error, kind, status):
        """An exception in a step passes through; the span keeps its type, no event and no text."""
        trace_ = Telemetry([sink]).start_trace(METHOD)
        with pytest.raises(type(error)), trace_.step(telemetry.DECIDE):
            raise error
        trace_.finish(code="INTERNAL")
        step = sink.span("decide fields")

        assert step.attributes["error.type"] == kind
        assert step.status.status_code.name == status
        assert step.status.description is None
        assert step.events == ()
        assert PII not in step.to_json()

    def test_unknown_attribute_is_left_out(self, sink):
        """An attribute that the list of names does not hold is not stored, wherever it is set."""
        trace_ = Telemetry([sink]).start_trace(METHOD)
        with trace_.step(telemetry.DECIDE) as step:
            step.set("customer.email", PII)
            step.set(telemetry.FIELD_COUNT, 3)
        trace_.finish(code="OK", attributes={"customer": PII, telemetry.DECISION_OUTCOME: "partial"})

        assert dict(sink.span("decide fields").attributes) == {"broker.field.count": 3}
        assert sink.span(METHOD).attributes["broker.decision.outcome"] == "partial"
        assert PII not in "".join(span.to_json() for span in sink.items)

    @pytest.mark.parametrize(
        ("code", "status", "error_type"),
        [
            ("OK", "UNSET", None),
            ("PERMISSION_DENIED", "UNSET", None),
            ("UNAVAILABLE", "ERROR", "UNAVAILABLE"),
        ],
    )
    def test_status(self, sink, code, status, error_type):
        """A refusal is a correct answer; only the server's own faults make the span an error."""
        Telemetry([sink]).start_trace(METHOD).finish(code=code)
        (root,) = sink.items

        assert root.status.status_code.name == status
        assert root.attributes.get("error.type") == error_type

    def test_finish_counts_once(self, sink):
        """The first outcome stands; a second one is not recorded."""
        trace_ = Telemetry([sink]).start_trace(METHOD)
        trace_.finish(code="OK")
        trace_.finish(code="CANCELLED")

        assert [s.attributes["rpc.response.status_code"] for s in sink.items] == ["OK"]


class TestReadTrace:
    def test_ids_and_marks(self, sink):
        """A read keeps ids from the injected source and the ticks of its steps, and is queued once."""
        ticks = iter(range(100, 1000, 100))
        telemetry_ = Telemetry(
            [sink],
            random_bytes=lambda n: bytes(range(0xF0, 0xF0 + n)) if n < 16 else bytes([0xAB] * n),
            clock_ns=lambda: 5_000,
            ticks_ns=lambda: next(ticks),
        )
        read = telemetry_.start_compact(telemetry.READ_RECORD, TRACEPARENT)
        read.lap(telemetry.AUTHENTICATE)
        read.mark(telemetry.MASK, 250, 260)
        read.finish(code="OK")
        read.finish(code="INTERNAL")

        assert sink.items == [read]
        assert (read.trace_id, read.span_id) == ("ab" * 16, "ab" * 7 + "a0")
        assert read.marks == [100, 200, *[0] * 8, 250, 260]
        assert (read.start_ns, read.start, read.end, read.code) == (5_000, 100, 300, "OK")

    @pytest.mark.attack("G12")
    def test_oversized_traceparent_is_not_kept(self, sink):
        """What waits in the queue has a size that the caller does not choose."""
        telemetry_ = Telemetry([sink])

        assert telemetry_.start_compact(telemetry.READ_RECORD, TRACEPARENT).traceparent == TRACEPARENT
        assert telemetry_.start_compact(telemetry.READ_RECORD, TRACEPARENT * 100).traceparent is None

    def test_every_sink_gets_it(self):
        """Store and export both receive what ends."""
        sinks = [Sink(), Sink()]
        Telemetry(sinks).start_compact(telemetry.READ_RECORD).finish(code="OK")

        assert [len(s.items) for s in sinks] == [1, 1]


def test_names_are_those_of_the_conventions():
    """Attribute names are those of the installed semantic conventions, none deprecated."""
    assert telemetry.RPC_SYSTEM_NAME == rpc_attributes.RPC_SYSTEM_NAME
    assert telemetry.RPC_METHOD == rpc_attributes.RPC_METHOD
    assert telemetry.RPC_RESPONSE_STATUS_CODE == rpc_attributes.RPC_RESPONSE_STATUS_CODE
    assert telemetry.DB_SYSTEM_NAME == db_attributes.DB_SYSTEM_NAME
    assert telemetry.DB_NAMESPACE == db_attributes.DB_NAMESPACE
    assert telemetry.DB_OPERATION_NAME == db_attributes.DB_OPERATION_NAME
    assert telemetry.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert db_attributes.DbSystemNameValues.POSTGRESQL.value == "postgresql"


def test_codes_are_those_of_grpc():
    """Status codes have grpc's numbers; this layer cannot import grpc to take them from there."""
    grpc = pytest.importorskip("grpc")

    assert [(c.value[0], c.name) for c in grpc.StatusCode] == list(enumerate(telemetry.CODES))
