"""ReadRecord and CreateGrant of a real `broker serve` beside the bare handlers, in turn."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import statistics
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

from broker.dev.world import World
from broker.v1 import access_service_pb2 as pb
from tests.bench import bare

FIELDS = tuple(f"customer.{column}" for column in bare.COLUMNS)
PURPOSE = "resolve-ticket"
POLICIES = Path(__file__).parent.parent.parent / "policies"

LIMITS = """\
version: 1
budgets:
  default: {per_hour: 10000, per_day: 10000}
grant: {default_minutes: 60, maximum_minutes: 60}
...
"""
"""Budgets out of the way: what a used-up budget costs is not the question here."""

SETTINGS: dict[str, object] = {"grant_seconds": 3600, "peer_rate": 1_000_000, "peer_concurrency": 10_000}

Say = Callable[[str], None]


@dataclass
class Run:
    """Rounds of one contender."""

    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


@dataclass
class Contender:
    """Something that answers calls: where, what is sent, whose CPU counts."""

    name: str
    target: str
    method: str
    calls: list[tuple[str, str]]
    pids: Callable[[], list[int]]


@asynccontextmanager
async def bench_world(customers: int, say: Say, **settings: object) -> AsyncIterator[World]:
    """Starts a company whose budgets are out of the way, fsync on."""
    folder = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    try:
        policies = folder / "policies"
        shutil.copytree(POLICIES, policies)
        (policies / "limits.yaml").write_text(LIMITS)
        extra = {**SETTINGS, "policies_dir": str(policies), **settings}
        async with World.start(None, customers=customers, settings=extra, progress=say) as world:
            yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def grants(world: World, most: int) -> list[tuple[str, str, str]]:
    """Creates grants on open tickets; gives authorization, grant token and ticket of each."""
    made = []
    for subject in world.layout.agents():
        async with world.client(subject) as client:
            authorization = f"Bearer {world.layout.token(subject, 'desk', life=3600)}"
            async for ticket in client.assigned_tickets():
                try:
                    grant = await client.create_grant(ticket.ticket_id, FIELDS, purpose=PURPOSE)
                except Exception:  # noqa: BLE001, S112 - not every ticket justifies these fields
                    continue
                if len(grant.readable) < len(FIELDS):
                    continue
                made.append((authorization, grant.token, ticket.ticket_id))
                if len(made) >= most:
                    return made
    return made


@asynccontextmanager
async def bare_server(world: World, *, grouped: bool) -> AsyncIterator[tuple[str, int]]:
    """Runs the bare handler against the same database; gives its target and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bare",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    spec = {
        "dsn": world.dsn(), "target": target, "grouped": grouped,
        **{name: str(world.layout.tls / file) for name, file in
           (("ca", "ca.pem"), ("cert", "server.pem"), ("key", "server-key.pem"))},
    }  # fmt: skip
    process.stdin.write(json.dumps(spec).encode())
    process.stdin.close()
    assert (await process.stdout.readline()).strip() == b"ready"
    try:
        yield target, process.pid
    finally:
        process.terminate()
        await process.wait()


def cpu_seconds(pids: list[int]) -> float:
    """Sums user and system time of processes and of all below them, ended children included."""
    total = 0.0
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


async def load(world: World, contender: Contender, concurrency: int, seconds: float) -> dict:
    """Runs the load generator once against one contender."""
    tls = world.layout.client_tls("tool-desk")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    spec = {
        "target": contender.target, "method": contender.method, "concurrency": concurrency,
        "seconds": seconds, "calls": contender.calls,
        "ca": str(tls.ca_file), "cert": str(tls.cert_file), "key": str(tls.key_file),
    }  # fmt: skip
    before = cpu_seconds(contender.pids())
    out, _ = await process.communicate(json.dumps(spec).encode())
    result = json.loads(out)
    if result["errors"]:
        raise SystemExit(f"{contender.name}: calls failed: {result['errors']}; see {world.layout.serve_log}")
    done = result["count"] / 0.7  # the warm-up costs CPU, too
    result["cpu_ms"] = (cpu_seconds(contender.pids()) - before) * 1e3 / done
    return result


async def compare(
    world: World, contenders: list[Contender], concurrency: int, rounds: int, seconds: float, say: Say
) -> dict[str, Run]:
    """Runs all contenders in turn, A B C A B C …, so that the machine's drift hits all alike."""
    runs = {c.name: Run() for c in contenders}
    for number in range(rounds):
        for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
            result = await load(world, contender, concurrency, seconds)
            run = runs[contender.name]
            for key in ("per_second", "p50_ms", "p99_ms", "cpu_ms"):
                getattr(run, key).append(result[key])
            rate, p99 = result["per_second"], result["p99_ms"]
            say(f"c={concurrency} {contender.name}: {rate:.0f}/s p99 {p99:.1f} ms")
    return runs


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Gives the ratio a/b round by round: median and spread."""
    each = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


async def run(*, quick: bool, say: Say) -> dict:
    """Measures reads and grants against the bare handlers with 1, 16 and 64 calls under way."""
    rounds, seconds = (2, 0.7) if quick else (5, 3.0)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(bench_world(300 if quick else 2000, say))
        conn = await asyncpg.connect(world.dsn())
        await conn.execute(bare.SETUP)
        made = await grants(world, 60 if quick else 400)
        say(f"{len(made)} grants")
        single = await stack.enter_async_context(bare_server(world, grouped=False))
        grouped = await stack.enter_async_context(bare_server(world, grouped=True))
        postgres = world.databases.server.pid()

        def request(token: str) -> str:
            return pb.ReadRecordRequest(grant_token=token, fields=FIELDS).SerializeToString().hex()

        reads = [(authorization, request(token)) for authorization, token, _ in made]
        customers = [("", request(str(number))) for number in range(1, len(made) + 1)]
        creates = [
            (
                authorization,
                pb.CreateGrantRequest(
                    request_id=str(uuid.uuid4()), ticket_id=ticket, purpose=PURPOSE, fields=FIELDS
                )
                .SerializeToString()
                .hex(),
            )
            for authorization, _, ticket in made
        ]

        def broker(name: str, method: str, calls: list[tuple[str, str]]) -> Contender:
            return Contender(name, world.access_target, method, calls, lambda: [world.serve.pid, postgres])

        contenders = [
            Contender("bare", single[0], "ReadRecord", customers, lambda: [single[1], postgres]),
            Contender("bare, grouped", grouped[0], "ReadRecord", customers, lambda: [grouped[1], postgres]),
            broker("read, many tickets", "ReadRecord", reads),
            broker("read, one hot ticket", "ReadRecord", reads[:1]),
            broker("grant", "CreateGrant", creates),
        ]
        rows = []
        for concurrency in (1, 16, 64):
            runs = await compare(world, contenders, concurrency, rounds, seconds, say)
            rows += [_row(name, other, concurrency, runs) for name, other in PAIRS]
        for delay in () if quick else SLOWER_DISKS:
            await _slow_down(conn, delay)
            some = [c for c in contenders if c.name in {"bare", "read, many tickets", "grant"}]
            runs = await compare(world, some, 1, rounds, seconds, say)
            rows += [
                {**_row(name, "bare", 1, runs), "against": f"bare, each flush {delay / 1000:.0f} ms slower"}
                for name in ("read, many tickets", "grant")
            ]
        await _slow_down(conn, 0)
        missing = await _missing_spans(world, conn)
        await conn.close()
        return {"rows": rows, "spans_missing": missing}


PAIRS = (
    ("read, many tickets", "bare"),
    ("read, one hot ticket", "bare"),
    ("read, many tickets", "bare, grouped"),
    ("grant", "bare"),
)


SLOWER_DISKS = (1000, 3000)
"""Microseconds that a flush of PostgreSQL's log takes longer, for both sides."""


async def _slow_down(conn: asyncpg.Connection, microseconds: int) -> None:
    """Lets PostgreSQL wait before each flush of its log, as for a slower disk."""
    await conn.execute(f"ALTER SYSTEM SET commit_delay = {microseconds}")
    await conn.execute("ALTER SYSTEM SET commit_siblings = 0")
    await conn.execute("SELECT pg_reload_conf()")


def _row(name: str, other: str, concurrency: int, runs: dict[str, Run]) -> dict:
    a, b = runs[name], runs[other]
    return {
        "what": name,
        "against": other,
        "concurrency": concurrency,
        "per_second": statistics.median(a.per_second),
        "throughput": ratio(a.per_second, b.per_second),
        "p50": ratio(a.p50_ms, b.p50_ms),
        "p99": ratio(a.p99_ms, b.p99_ms),
        "cpu_ms": statistics.median(a.cpu_ms),
        "bare_cpu_ms": statistics.median(b.cpu_ms),
    }


async def _missing_spans(world: World, conn: asyncpg.Connection) -> int:
    """Counts read and grant events without a stored span, once the store has had time to drain."""
    query = """
        SELECT count(*) FROM broker.ledger_event AS e
        WHERE e.kind IN ('read', 'grant')
            AND NOT EXISTS (SELECT FROM broker.read_trace AS t WHERE t.trace_id = decode(e.trace_id, 'hex'))
            AND NOT EXISTS (SELECT FROM broker.span_row AS t WHERE t.trace_id = decode(e.trace_id, 'hex'))
    """
    await world.serve.stop()  # drains the store
    return int(await conn.fetchval(query))
