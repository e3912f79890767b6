"""Receivers of OTLP: a small HTTP server that parses what arrives, and rotel, a real collector."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


class Receiver:
    """Accepts ExportTraceServiceRequest over HTTP and hands out the spans as flat tuples."""

    def __init__(self):
        self.requests = queue.Queue()
        self.headers = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.headers.append((self.path, dict(self.headers)))
                outer.requests.put(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self, count):
        """Waits for so many spans and gives them, with the resource of the last request."""
        found = []
        deadline = time.monotonic() + 20
        while len(found) < count:
            request = self.requests.get(timeout=max(0.01, deadline - time.monotonic()))
            for resource_spans in request.resource_spans:
                resource = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
                for scope_spans in resource_spans.scope_spans:
                    assert scope_spans.scope.name == "broker"
                    found.extend(flat(span) for span in scope_spans.spans)
        return found, resource


def flat(span):
    """Gives a span of the protocol in the shape of the view's row."""
    attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    links = [{"trace_id": x.trace_id.hex(), "span_id": x.span_id.hex()} for x in span.links]
    return (
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        span.name,
        KINDS[span.kind],
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        ("UNSET", "OK", "ERROR")[span.status.code],
        attributes,
        links,
    )


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a receiver."""
    receiver = Receiver()
    thread = threading.Thread(
        target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def free_port() -> int:
    """Gives a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def collecting(folder: Path, forward_to: str) -> Iterator[dict[str, str]]:
    """Runs rotel, which takes OTLP over gRPC and HTTP and forwards it; gives its endpoints by protocol."""
    package = importlib.util.find_spec("rotel")
    binary = Path(package.origin).parent / "rotel-agent"
    ports = {"grpc": free_port(), "http/protobuf": free_port()}
    process = subprocess.Popen(
        [
            binary, "start",
            "--pid-file", folder / "pid", "--log-file", folder / "log",
            "--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}",
            "--otlp-http-endpoint", f"127.0.0.1:{ports['http/protobuf']}",
            "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", forward_to,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for port in ports.values():
            _wait_for(port, process)
        yield {protocol: f"http://127.0.0.1:{port}" for protocol, port in ports.items()}
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(port, process):
    for _ in range(500):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "rotel ended"
        threading.Event().wait(0.02)
    raise AssertionError("rotel does not listen")
