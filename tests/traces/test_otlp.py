"""OTLP: what the variables ask for, to real receivers; a dead one costs nothing."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from broker import telemetry
from broker.errors import StartupError
from broker.telemetry import Metrics, Telemetry
from broker.traces import OtlpExport, exporter_from, resource_from
from broker.traces.rows import compact_spans
from tests.traces.between import between
from tests.traces.conftest import EVENT, GRANT, METHOD, TRACEPARENT
from tests.traces.receiver import collecting, free_port, receiving
from tests.traces.test_store import flat


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Gives a function that sets OTEL_* variables and gives the environment."""
    for name in [n for n in os.environ if n.startswith("OTEL_")]:
        monkeypatch.delenv(name)

    def set_up(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return os.environ

    return set_up


class Export:
    """An export under test, the telemetry that feeds it, and its counters."""

    def __init__(self, exporter, **kwargs):
        self.registry = CollectorRegistry()
        self.resource = resource_from("1.2.3")
        self.sink = OtlpExport(
            exporter, self.resource, Metrics(registry=self.registry), interval=0.01, **kwargs
        )
        self.telemetry = Telemetry([self.sink], resource=self.resource)

    def counted(self, what):
        return self.registry.get_sample_value(f"broker_spans_{what}_total", {"sink": "otlp"})

    def read(self, **outcome):
        trace = self.telemetry.start_compact(telemetry.READ_RECORD, TRACEPARENT)
        for step in telemetry.READ_STEPS:
            trace.lap(step)
        trace.finish(**{"code": "OK", "grant_id": GRANT, "event_id": EVENT, "policy_version": "7", **outcome})
        return trace


class Stalled(SpanExporter):
    """A collector that takes a batch and never answers until it is let go."""

    def __init__(self):
        self.taken = threading.Event()
        self.let_go = threading.Event()

    def export(self, spans):
        self.taken.set()
        self.let_go.wait()
        return SpanExportResult.FAILURE

    def shutdown(self):
        self.let_go.wait()


class TestExporterFrom:
    @pytest.mark.parametrize(
        "variables",
        [
            {},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": "true"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_TRACES_EXPORTER": "none"},
            {"OTEL_SERVICE_NAME": "x"},
        ],
    )
    def test_nothing_asked_for(self, variables):
        """Without an endpoint, or switched off, there is no export."""
        assert exporter_from(variables) is None

    def test_unknown_protocol_refuses_to_start(self):
        """A protocol that is not spoken is an error at the start, not silence later."""
        with pytest.raises(StartupError, match="http/json"):
            exporter_from(
                {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
            )


class TestResourceFrom:
    def test_default(self):
        """Unless told otherwise the service has our name and version."""
        attributes = resource_from("1.2.3").attributes

        assert (attributes["service.name"], attributes["service.version"]) == (
            "support-access-broker",
            "1.2.3",
        )

    def test_variables_win(self, environment):
        """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are obeyed."""
        environment(OTEL_SERVICE_NAME="b", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test")
        attributes = resource_from("1.2.3").attributes

        assert (attributes["service.name"], attributes["service.version"]) == ("b", "1.2.3")
        assert attributes["deployment.environment.name"] == "test"


class TestReceived:
    def test_over_http(self, environment):
        """A receiver gets the read's spans as the view shows them, the grant's as the SDK made them."""
        with receiving() as receiver:
            export = Export(
                exporter_from(
                    environment(
                        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
                        OTEL_EXPORTER_OTLP_HEADERS="x-scope=team%20a",
                        OTEL_EXPORTER_OTLP_COMPRESSION="none",
                        OTEL_SERVICE_NAME="b",
                    )
                )
            )
            read = export.read(code="UNAVAILABLE", reason="LEDGER_UNAVAILABLE")
            grant = export.telemetry.start_trace(METHOD, traceparent=TRACEPARENT)
            with grant.step(telemetry.DECIDE):
                pass
            grant.finish(code="OK", grant_id=GRANT)
            spans, resource = receiver.spans(9)
            export.sink.close()

        assert [s for s in spans if s[0] == read.trace_id] == [
            flat(s) for s in compact_spans(read, Resource({}))
        ]
        assert [s[3] for s in spans if s[0] == grant.trace_id] == ["decide fields", METHOD]
        assert resource["service.name"] == "b"
        path, headers = receiver.headers[0]
        assert (path, headers["x-scope"]) == ("/v1/traces", "team a")
        assert (export.counted("stored"), export.counted("dropped")) == (3, 0)

    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_through_a_collector(self, environment, protocol, tmp_path):
        """A real collector takes the spans over either protocol and forwards them whole."""
        with receiving() as receiver, collecting(tmp_path, receiver.endpoint) as endpoints:
            export = Export(
                exporter_from(
                    environment(
                        OTEL_EXPORTER_OTLP_ENDPOINT=endpoints[protocol], OTEL_EXPORTER_OTLP_PROTOCOL=protocol
                    )
                )
            )
            reads = [export.read() for _ in range(3)]
            spans, _ = receiver.spans(21)
            export.sink.close()

        expected = [flat(s) for read in reads for s in compact_spans(read, Resource({}))]
        assert sorted(spans, key=lambda s: s[:2]) == sorted(expected, key=lambda s: s[:2])
        assert (export.counted("stored"), export.counted("dropped")) == (3, 0)


@pytest.mark.attack("X8")
class TestDeadCollector:
    def test_stalled_one_costs_a_request_nothing(self):
        """A thousand reads beside a collector that never answers take what they take beside none."""
        stalled = Stalled()
        export = Export(stalled)
        export.read()
        assert stalled.taken.wait(10)
        begin = time.perf_counter()
        for _ in range(1000):
            export.read()
        took = time.perf_counter() - begin
        begin = time.monotonic()
        export.sink.close(0.2)
        closing = time.monotonic() - begin
        stalled.let_go.set()

        assert took < 0.5  # a wait for the collector would have been for ever
        assert closing < 2
        assert export.counted("stored") == 0
        assert export.counted("dropped") >= 1000

    @pytest.mark.attack("X7")
    def test_full_queue_is_counted(self):
        """What does not fit into the queue is dropped and counted."""
        stalled = Stalled()
        export = Export(stalled, limit=10)
        export.read()
        assert stalled.taken.wait(10)
        for _ in range(25):
            export.read()

        assert export.counted("dropped") == 15
        stalled.let_go.set()
        export.sink.close(1)

    @pytest.mark.parametrize("kind", ["refusing", "silent"])
    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_shutdown_is_bounded(self, environment, kind, protocol):
        """A collector that refuses, or accepts and stays silent, delays the shutdown by seconds at most."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            port = free_port() if kind == "refusing" else silent.getsockname()[1]
            export = Export(
                exporter_from(
                    environment(
                        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
                        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                    )
                )
            )
            export.read()
            begin = time.monotonic()
            export.sink.close(1.0)

        assert time.monotonic() - begin < 4
        assert export.counted("stored") == 0

    def test_odd_item_does_not_end_the_thread(self):
        """An item that cannot be expanded is counted with its batch; the next batch is exported."""

        class Taking(SpanExporter):
            def __init__(self):
                self.spans = []
                self.taken = threading.Event()

            def export(self, spans):
                self.spans.extend(spans)
                self.taken.set()
                return SpanExportResult.SUCCESS

        taking = Taking()
        export = Export(taking)
        odd = Telemetry([]).start_compact(telemetry.READ_RECORD)
        odd.marks = None  # what an expansion trips over
        export.sink.put(odd)
        deadline = time.monotonic() + 10
        while export.counted("dropped") < 1 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        export.read()
        assert taking.taken.wait(10)
        export.sink.close()

        assert export.counted("stored") == 1


@pytest.mark.attack("X8")
def test_a_collector_that_is_slow_then_down_then_back(environment, tmp_path):
    """A read never waits for it; what it took slowly arrives, what it missed is counted, delivery resumes."""
    with (
        receiving() as receiver,
        collecting(tmp_path, receiver.endpoint) as endpoints,
        between(int(endpoints["grpc"].rpartition(":")[2])) as way,
    ):
        export = Export(
            exporter_from(
                environment(
                    OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{way.port}",
                    OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
                    OTEL_EXPORTER_OTLP_TIMEOUT="1",
                )
            )
        )
        export.read()
        receiver.spans(7)

        way.hold()
        slow = export.read()  # returns while the export of it stands still
        assert way.held.wait(10)
        assert export.counted("stored") == 1
        way.let_go()
        spans, _ = receiver.spans(7)
        assert {span[0] for span in spans} == {slow.trace_id}

        way.down()
        for _ in range(3):
            export.read()
        assert _eventually(lambda: export.counted("dropped") == 3)
        assert export.counted("stored") == 2

        way.up()
        reads = 5

        def delivered():
            nonlocal reads
            export.read()  # each may be lost until the exporter has found the way again
            reads += 1
            return export.counted("stored") > 2

        assert _eventually(delivered, every=0.1)
        export.sink.close(5)
        spans, _ = receiver.spans(7)

    assert len(spans) >= 7
    assert export.counted("stored") + export.counted("dropped") == reads


def _eventually(holds, *, every=0.02, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        threading.Event().wait(every)
    return False
