"""What spans cost: `python -m tests.bench.spans` (about 20 seconds, embedded PostgreSQL with fsync on).

On the request's path: a read's tuple beside the seven SDK spans it stands for, and one metric. Off it: the
drain into PostgreSQL, in CPU of this process and of the server, and the expansion for an OTLP export.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import asyncpg
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from broker import telemetry
from broker.database import migrate, open_pool
from broker.dev.postgres import EmbeddedPostgres
from broker.telemetry import Metrics, Telemetry
from broker.traces import SpanStore
from broker.traces.rows import compact_spans

GRANT = UUID("019ab2f0-7c1e-7000-8000-000000000001")
ROUNDS = 7
ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"


class Discard:
    """A sink as cheap as the store's queue, without its end."""

    def __init__(self):
        self.queue = []

    def put(self, item):
        self.queue.append(item)


def micros(function, number=2000):
    """Gives the median of the rounds, microseconds a call."""
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        begin = time.perf_counter()
        for _ in range(number):
            function()
        times.append((time.perf_counter() - begin) / number * 1e6)
    return statistics.median(times)


def finish_read(telemetry_):
    """Makes one read's trace, as access.py does."""
    trace = telemetry_.start_compact(telemetry.READ_RECORD)
    for step in telemetry.READ_STEPS:
        trace.lap(step)
    trace.finish(code="OK", grant_id=GRANT, event_id=GRANT, policy_version="7")
    return trace.trace_id


def finish_tree(telemetry_):
    """Makes the same as seven SDK spans."""
    trace = telemetry_.start_trace(telemetry.READ_RECORD)
    for step in telemetry.READ_STEPS:
        with trace.step(step):
            pass
    trace.finish(code="OK", grant_id=GRANT, event_id=GRANT, policy_version="7")
    return trace.trace_id


def request_path():
    """Measures what a request pays."""
    figures = {}
    for name, make in (("read", finish_read), ("tree of 7 SDK spans", finish_tree)):
        sink = Discard()
        telemetry_ = Telemetry([sink])

        def once(make=make, telemetry_=telemetry_, sink=sink):
            make(telemetry_)
            if len(sink.queue) > 500:
                sink.queue.clear()

        figures[name] = micros(once)
    metrics = Metrics((telemetry.READ_RECORD,), CollectorRegistry())
    figures["metric"] = micros(lambda: metrics.request(telemetry.READ_RECORD, "OK", 0.003), 20_000)
    return figures


def metric_with_workers():
    """Measures the metric where workers write to a mapped file, in a process of its own."""
    code = (
        "from tests.bench.spans import *\n"
        "m = Metrics((telemetry.READ_RECORD,))\n"
        "print(micros(lambda: m.request(telemetry.READ_RECORD, 'OK', 0.003), 20_000))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, check=True, capture_output=True, timeout=120
        )
    return float(done.stdout)


def export(count=5000):
    """Measures expansion and encoding for OTLP, CPU a read on the export's thread."""
    sink = Discard()
    for _ in range(count):
        finish_read(Telemetry([sink]))
    begin = time.thread_time()
    for i in range(0, count, 256):
        spans = [s for read in sink.queue[i : i + 256] for s in compact_spans(read, Resource({}))]
        encode_spans(spans).SerializeToString()
    return (time.thread_time() - begin) / count * 1e6


def server_cpu(pid):
    """Gives the CPU seconds of a server process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def drain(dsn, synchronous_commit, count, burst):
    """Stores reads in bursts; gives CPU of both sides a read and the time of one flush."""
    pool = await open_pool(dsn, name="bench", max_size=1, settings={"synchronous_commit": synchronous_commit})
    store = SpanStore(pool, Metrics(registry=CollectorRegistry()))
    telemetry_ = Telemetry([store])
    async with pool.acquire() as conn:
        pid = conn.get_server_pid()
    await store.flush()
    cpu, theirs, flushes = 0.0, server_cpu(pid), []
    for _ in range(count // burst):
        for _ in range(burst):
            finish_read(telemetry_)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        await store.flush()
        cpu += time.process_time() - begin_cpu
        flushes.append(time.perf_counter() - begin)
    theirs = server_cpu(pid) - theirs
    assert store.dropped == 0
    await store.close()
    return {
        "own CPU us": cpu / count * 1e6,
        "server CPU us": theirs / count * 1e6,
        "flush ms": statistics.median(flushes) * 1e3,
        "flush p99 ms": statistics.quantiles(flushes, n=100)[98] * 1e3,
    }


async def drains(postgres, roles, count):
    """Measures the drain on a fresh server."""
    conn = await asyncpg.connect(postgres.dsn())
    await conn.execute(roles)
    await conn.execute("ALTER ROLE broker_owner PASSWORD 'x'; ALTER ROLE broker_access PASSWORD 'x'")
    await conn.close()
    await migrate(postgres.dsn("postgres", "broker_owner", "x"))
    dsn = postgres.dsn("postgres", "broker_access", "x")
    await drain(dsn, "off", 1000, 100)  # warms both sides
    return {
        f"synchronous_commit {value}, {burst} a flush": await drain(dsn, value, count, burst)
        for burst in (100, 256)
        for value in ("off", "on")
    }


def on_a_server(count):
    """Measures the drain on a server of its own."""
    parent = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    parent.chmod(0o711)
    postgres = EmbeddedPostgres(parent / "pg")
    postgres.start()
    try:
        return asyncio.run(drains(postgres, ROLES.read_text("utf-8"), count))
    finally:
        postgres.remove()
        parent.rmdir()


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {"request path us": request_path()}
    figures["request path us"]["metric, several workers"] = metric_with_workers()
    figures["export CPU us"] = export()
    figures["drain, a read"] = on_a_server(20_000)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
