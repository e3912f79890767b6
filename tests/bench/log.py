"""What the transparency log costs: `python -m tests.bench.log` (a few minutes, PostgreSQL with fsync on).

A ledger is filled, the sequencer takes it in (catch-up), one look for new events is timed, `verify` reads it
all; then events are appended at a rate while the sequencer runs, and the lag of each group of appends is
taken: from its commit until a published checkpoint covers it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from broker.database import migrate
from broker.dev.postgres import EmbeddedPostgres
from broker.keys import LogKeyFolder
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.model import id_floor
from broker.tlog import Directory, LogState, Sequencer, TreeTable, TrustedKeys, Verifier
from broker.tlog.horizon import SWEEP
from broker.tlog.sequencer import REACH

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
GROUP = 64
PAST = 3000.0
"""Events a second of the ledger that is filled: how many lie in the horizon's window."""

FILL = """
INSERT INTO broker.ledger_event
SELECT
    u.id, 'read', u.time, 'https://idp.example|agent', 'spiffe://example/tool/desk', NULL, repeat('0', 32),
    repeat('c', 32), repeat('t', 32), 'released', '', 1,
    convert_to(
        '{"v":1,"id":"' || u.id || '","trace":"' || repeat('0', 32) || '","kind":"read",'
        || '"agent":"https://idp.example|agent","tool":"spiffe://example/tool/desk","grant":"",'
        || '"customer":"' || repeat('c', 32) || '","ticket":"' || repeat('t', 32) || '",'
        || '"policy_version":"1","detail":{"levels":{"customer.name":"clear","customer.email":"masked"},'
        || '"facts":{"kind":"general","relation":"assignee"}},'
        || '"outcome":"released","reason":"' || broker.leaf_tail(u.time), 'UTF8')
FROM (
    SELECT
        g.time,
        (left(broker.uuid7_floor(g.time)::text, 14) || '7' || right(md5(g.n::text), 3) || '-8'
        || substr(md5(g.n::text), 2, 3) || '-' || right(md5(g.n::text || 'x'), 12))::uuid AS id
    FROM (
        SELECT n, now() - make_interval(secs => ($2 - n) / $3) AS time
        FROM generate_series($1::bigint, $2::bigint) AS n
    ) AS g
) AS u
"""


async def fill(conn: asyncpg.Connection, count: int) -> None:
    """Puts events of the last minutes into the ledger, as an import of history would."""
    await conn.execute("SET synchronous_commit = off")
    await conn.execute(FILL, 1, count, PAST, timeout=3600)
    await conn.execute("VACUUM ANALYZE broker.ledger_event", timeout=3600)


async def timed(work) -> float:
    """Gives the milliseconds of the median of nine."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


async def under_load(dsn: str, storage: Directory, keys: LogKeyFolder, rate: int, seconds: float, base: int):
    """Appends at a rate beside a running sequencer; gives the lags (seconds) and the rate reached."""
    published: list[tuple[float, int]] = []
    ready = asyncio.Event()

    def told(state: LogState) -> None:
        published.append((time.perf_counter(), state.size - state.unpublished))
        ready.set()

    stop = asyncio.Event()
    task = asyncio.create_task(Sequencer(dsn, storage, keys, interval=0.25, on_state=told).run(stop))
    await ready.wait()
    ids, groups, total = EventIds(), [], base
    conn = await asyncpg.connect(dsn)
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        events = [
            Event(
                ids.new(),
                EventKind.ADMIN,
                "done",
                NO_TRACE,
                agent="x" * 30,
                detail={"pad": "y" * 200},
            )
            for _ in range(GROUP)
        ]
        await append_events(conn, events, door=ADMIN_DOOR)
        total += GROUP
        groups.append((time.perf_counter(), total))
        await asyncio.sleep(max(0.0, len(groups) * GROUP / rate - (time.perf_counter() - began)))
    reached = len(groups) * GROUP / now
    await asyncio.sleep(2)
    stop.set()
    await task
    await conn.close()
    return [
        next((at for at, size in published if size >= count), float("inf")) - done for done, count in groups
    ], reached


async def run(folder: Path, count: int, rate: int, seconds: float) -> dict:
    """Does everything; gives the figures."""
    server = EmbeddedPostgres(folder / "pg")
    server.start()
    try:
        conn = await asyncpg.connect(server.dsn())
        await conn.execute("CREATE DATABASE log")
        await conn.close()
        conn = await asyncpg.connect(server.dsn("log"))
        await conn.execute(ROLES.read_text("utf-8"))
        for role in ("broker_owner", "broker_admin"):
            await conn.execute(f"ALTER ROLE {role} LOGIN PASSWORD 'x'")
        await migrate(server.dsn("log", "broker_owner", "x"))
        await fill(conn, count)
        keys, storage = LogKeyFolder(folder / "keys", "bench/ledger"), Directory(folder / "log")
        keys.create()
        admin = await asyncpg.connect(server.dsn("log", "broker_admin", "x"))
        table = TreeTable(admin)
        began = time.perf_counter()
        sequencer = Sequencer("", storage, keys, interval=1)
        await sequencer.round(table)
        assert (sequencer.state.size, sequencer.state.problem) == (count, "")
        caught_up = time.perf_counter() - began
        now = (await table.head()).now
        result = {
            "events": count,
            "catch_up_per_second": count / caught_up,
            "look_ms": await timed(lambda: table.pending(id_floor(now - REACH), most=4096)),
            "slice_ms": await timed(
                lambda: table.pending(id_floor(now - 60), id_floor(now - 60 + SWEEP * 0.25), most=4096)
            ),
        }
        began = time.perf_counter()
        verification = await Verifier(conn, storage, TrustedKeys.of(keys.load())).run()
        assert verification.holds, verification.findings[:3]
        result["verify_per_second"] = count / (time.perf_counter() - began)
        lags, reached = await under_load(
            server.dsn("log", "broker_admin", "x"), storage, keys, rate, seconds, count
        )
        lags.sort()
        result |= {
            "appended_per_second": reached,
            "lag_p50": statistics.median(lags),
            "lag_p99": lags[int(len(lags) * 0.99)],
            "lag_max": lags[-1],
        }
        await admin.close()
        await conn.close()
        return result
    finally:
        server.remove()


def main() -> None:
    """Runs and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="broker-bench-log-"))
    folder.chmod(0o711)
    json.dump(asyncio.run(run(folder, options.events, options.rate, options.seconds)), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
