"""OTLP export by the standard OTEL_* variables, on a thread, beside the store.

Invariants:
- configured by the environment alone: without an endpoint there is no thread and no cost;
- `put` is an append to a bounded queue: a dead collector costs a request nothing (X8), what does not fit
  is dropped and counted;
- `close` returns within its time, whatever the collector does; the thread is a daemon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from broker.errors import StartupError
from broker.telemetry import CompactTrace, Item, Metrics
from broker.traces.rows import compact_spans

log = logging.getLogger(__name__)

LIMIT = 20_000
"""Most items waiting for the collector; about ten seconds of a worker's reads."""

BATCH = 256
"""Most items of one export, some 1,800 spans: about 0.7 MB, within the 4 MiB of a gRPC receiver."""

INTERVAL = 1.0
"""Seconds between exports."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a shutdown waits for the collector; with the store's three it stays below six."""

SERVICE_NAME = "support-access-broker"


def exporter_from(environ: Mapping[str, str]) -> SpanExporter | None:
    """Gives the official exporter that the variables ask for, or None where they ask for none.

    The exporter itself reads endpoint, headers, certificates and timeout from the process's environment.
    OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none switch the export off, never the span store.

    Raises:
        StartupError: the protocol is not one that we speak.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    wanted = any(environ.get(name) for name in endpoints)
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not wanted or disabled or environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in {"otlp", ""}:
        return None
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    # Imported here: each loads an HTTP or gRPC stack that a broker without a collector has no use for.
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http  # noqa: PLC0415

        return over_http.OTLPSpanExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc  # noqa: PLC0415

        return over_grpc.OTLPSpanExporter()
    raise StartupError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is neither http/protobuf nor grpc")


def resource_from(version: str) -> Resource:
    """Gives who speaks: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES over our own name and version."""
    ours = Resource({"service.name": SERVICE_NAME, "service.version": version})
    theirs = Resource.create()
    if str(theirs.attributes.get("service.name", "")).startswith("unknown_service"):
        return theirs.merge(ours)
    return ours.merge(theirs)


class OtlpExport:
    """A sink that expands reads into spans and exports them on a thread of its own."""

    def __init__(
        self,
        exporter: SpanExporter,
        resource: Resource,
        metrics: Metrics,
        *,
        limit: int = LIMIT,
        interval: float = INTERVAL,
    ) -> None:
        """Starts the thread."""
        self._exporter = exporter
        self._resource = resource
        self._limit = limit
        self._interval = interval
        self._sent = metrics.spans_stored["otlp"]
        self._dropped = metrics.spans_dropped["otlp"]
        self._queue: deque[Item] = deque()
        self._wake = threading.Event()
        self._deadline: float | None = None  # set once, by close; the thread only reads it
        self._thread = threading.Thread(target=self._run, name="otlp-export", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Takes an item, or counts it as dropped where the queue is full."""
        if len(self._queue) >= self._limit or self._deadline is not None:
            self._dropped.inc()
        else:
            self._queue.append(item)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Exports what it can in the time given; blocks, so call it outside the event loop."""
        if self._deadline is not None:
            return
        self._deadline = time.monotonic() + timeout
        self._wake.set()
        self._thread.join(timeout)
        # Ends the back-off of an export under way; a thread that hangs in a socket dies with the process.
        closer = threading.Thread(target=self._exporter.shutdown, name="otlp-close", daemon=True)
        closer.start()
        closer.join(max(0.5, timeout / 4))
        if lost := len(self._queue):
            log.warning("spans not exported at shutdown", extra={"count": lost})
            self._dropped.inc(lost)

    def _run(self) -> None:
        failing = False
        while self._deadline is None:
            self._wake.wait(self._interval)
            while self._queue and self._in_time():
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                sent = self._export(batch)
                (self._sent if sent else self._dropped).inc(len(batch))
                if not sent and not failing:  # once per outage; the counter tells the rest
                    log.warning("spans cannot be exported", extra={"count": len(batch)})
                failing = not sent

    def _in_time(self) -> bool:
        return self._deadline is None or time.monotonic() < self._deadline

    def _export(self, batch: list[Item]) -> bool:
        spans: list[ReadableSpan] = []
        try:
            for item in batch:
                if isinstance(item, CompactTrace):
                    spans.extend(compact_spans(item, self._resource))
                else:
                    spans.append(item)
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:  # the thread must outlive whatever the exporter does
            log.exception("span export failed")
            return False
