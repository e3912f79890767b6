"""Does size show? Reads in a small and in a large company, in turn; start, and memory of a worker."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import asyncpg
import psutil

from broker.dev.world import World
from broker.v1 import access_service_pb2 as pb
from tests.bench.reads import FIELDS, Contender, Say, bench_world, compare, grants, ratio

FILL = """
INSERT INTO crm.customer
SELECT n, 'Name ' || n, NULL, 'n' || n || '@example.com', '+49 30 ' || n, DATE '1980-01-01', 'Street 1',
    'City', '10115', 'DE', 'home', '4111111111111111', 'DE00', 'Phone', 'SN' || n, 'ID' || n, NULL
FROM generate_series($1::bigint, $2::bigint) AS n
"""

TICKETS = """
INSERT INTO broker.ticket
    (ticket_id, feed_id, version, content_hash, status, kind, opened_by,
     details_version, status_version, assignments_version)
SELECT
    'S-' || n, (SELECT feed_id FROM broker.feed LIMIT 1), 1, '\\x00', 'open', 'general',
    'customer', 1, 1, 1
FROM generate_series($1::bigint, $2::bigint) AS n
"""

LINKS = """
INSERT INTO broker.ticket_customer SELECT 'S-' || n, n::text FROM generate_series($1::bigint, $2::bigint) AS n
"""

ASSIGNMENTS = """
INSERT INTO broker.assignment
    (ticket_id, agent, relation, assigned_by, version, ticket_live, start_time)
SELECT 'S-' || n, 'https://idp.example|a' || n % 5000, 'assignee', 'queue', 1, true, clock_timestamp()
FROM generate_series($1::bigint, $2::bigint) AS n
"""


async def fill(world: World, customers: int) -> None:
    """Adds customers, each with one open ticket of somebody else, straight into the tables."""
    conn = await asyncpg.connect(world.dsn())
    try:
        first, last = 100_001, 100_000 + customers
        for statement in (FILL, TICKETS, LINKS, ASSIGNMENTS):
            await conn.execute(statement, first, last, timeout=300)
        await conn.execute("ANALYZE")
    finally:
        await conn.close()


async def reader(world: World, name: str) -> Contender:
    """Makes the reads of one world."""
    made = await grants(world, 50)
    calls = [
        (a, pb.ReadRecordRequest(grant_token=token, fields=FIELDS).SerializeToString().hex())
        for a, token, _ in made
    ]
    pids = [world.serve.pid, world.databases.server.pid()]
    return Contender(name, world.access_target, "ReadRecord", calls, lambda: pids)


async def run(*, quick: bool, say: Say) -> dict:
    """Compares a small and a large company read by read, then starts one again and weighs it."""
    few, many = (1_000, 50_000) if quick else (10_000, 1_000_000)
    rounds, seconds = (2, 0.8) if quick else (7, 2.5)
    async with AsyncExitStack() as stack:
        small = await stack.enter_async_context(bench_world(100, say))
        large = await stack.enter_async_context(bench_world(100, say))
        for world, size in ((small, few), (large, many)):
            say(f"filling {size} customers and tickets")
            await fill(world, size)
        contenders = [await reader(small, "small"), await reader(large, "large")]
        # Both worlds have one generator, one worker, one database; only the sizes differ.
        runs = await compare_worlds(small, large, contenders, rounds, seconds, say)
        start = await start_seconds(small, 3 if quick else 7, say)
        memory = worker_memory(large)
    return {
        "few": few,
        "many": many,
        "p50": ratio(runs["large"].p50_ms, runs["small"].p50_ms),
        "throughput": ratio(runs["large"].per_second, runs["small"].per_second),
        "start_seconds": start,
        "worker_mib": memory,
    }


async def compare_worlds(
    small: World, large: World, contenders: list[Contender], rounds: int, seconds: float, say: Say
) -> dict:
    """Compares two worlds; each contender is loaded with its own world's client certificate."""
    runs = {}
    for number in range(rounds):
        order = list(zip((small, large), contenders, strict=True))
        for world, contender in order if number % 2 else reversed(order):
            each = await compare(world, [contender], 1, 1, seconds, say)
            if contender.name not in runs:
                runs.update(each)
                continue
            for key in ("per_second", "p50_ms", "p99_ms", "cpu_ms"):
                getattr(runs[contender.name], key).extend(getattr(each[contender.name], key))
    return runs


async def start_seconds(world: World, rounds: int, say: Say) -> list[float]:
    """Times `broker serve` from its start to the first answered read of a grant."""
    each = []
    async with world.client("alice") as client:
        ticket = await anext(client.assigned_tickets())
    for number in range(rounds):
        await world.serve.stop()
        began = time.perf_counter()
        await world.serve.start()
        await listening(world.layout.ports()["access"])
        async with world.client("alice", timeout=10) as client:
            await client.read(ticket.ticket_id, FIELDS[:1], purpose="resolve-ticket")
        each.append(time.perf_counter() - began)
        say(f"start {number + 1}: {each[-1]:.2f} s to the first answer")
    return each


async def listening(port: int) -> None:
    """Waits until something listens; asking grpc sooner would measure its own back-off."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return


def worker_memory(world: World) -> float:
    """Gives the resident memory of the access worker in MiB."""
    children = psutil.Process(world.serve.pid).children()
    return max(p.memory_info().rss for p in children if "access" in p.cmdline()) / 2**20
