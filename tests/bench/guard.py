"""What the guard costs: `python -m tests.bench.guard` (about 30 seconds, embedded PostgreSQL, two cores).

Side by side and alternating, at concurrency 1, 16 and 64: `RecordReader.read` of five fields of one
customer, each with a pass of its own, against a bare `SELECT five columns WHERE key = $1` by the
table's owner on a pool of the same size. Then the statement alone, per pass, without Python's part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg

from broker.database import open_pool
from broker.dev.postgres import EmbeddedPostgres
from tests import conftest
from tests.records import crm

ROUNDS = 5
CUSTOMERS = 10_000
FIELDS = ("customer.name", "customer.email", "customer.birth_date", "customer.city", "customer.phone")
SETUP = """
ALTER TABLE crm.customer ADD city text DEFAULT 'Exampleton', ADD phone text DEFAULT '+49 711 2842222';
INSERT INTO crm.customer (customer_id, name, email, birth_date)
SELECT i, 'Name ' || i, 'c' || i || '@example.org', '1980-01-01' FROM generate_series(201, {customers}) AS i;
ANALYZE crm.customer;
"""
BARE = "SELECT name, email, birth_date::text, city, phone FROM crm.customer WHERE customer_id = $1"


async def rate(calls, concurrency: int, seconds: float) -> float:
    """Gives calls per second of `concurrency` callers, each on its own share of the calls."""
    done = 0
    end = time.perf_counter() + seconds

    async def caller(first: int) -> None:
        nonlocal done
        place = first
        while time.perf_counter() < end:
            await calls[place % len(calls)]()
            place += concurrency
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*(caller(i) for i in range(concurrency)))
    return done / (time.perf_counter() - begin)


async def measure(server: EmbeddedPostgres, seconds: float) -> dict[str, object]:
    """Measures everything once the tables are there."""
    await conftest._make_template(server)
    database = conftest.Database(server, conftest.TEMPLATE)
    admin = await asyncpg.connect(database.dsn())
    await admin.execute(crm.SCHEMA + SETUP.format(customers=CUSTOMERS))
    await admin.execute("ALTER ROLE crm_owner LOGIN PASSWORD 'crm_owner-pw'")
    columns = [f.split(".")[1] for f in FIELDS]
    guarded = await crm.guard(
        database, database, crm.catalog(crm.kind("customer", columns, key="customer_id"))
    )
    plan_settings = {"plan_cache_mode": "force_generic_plan"}
    owner = server.dsn(database.name, "crm_owner", "crm_owner-pw")
    bare_pool = await open_pool(owner, name="bare", min_size=2, max_size=2, settings=plan_settings)
    grants = [await guarded.grant(str(i * 7 % CUSTOMERS + 1), FIELDS) for i in range(512)]

    def guarded_call(grant, text):
        async def call():
            found = await guarded.reader.read(grant_id=grant, guard_pass=text, fields=FIELDS)
            assert found.rows["customer"]

        return call

    def bare_call(customer: int):
        async def call():
            assert await bare_pool.fetchrow(BARE, customer)

        return call

    ours = [guarded_call(*g) for g in grants]
    bare = [bare_call(i * 7 % CUSTOMERS + 1) for i in range(512)]
    result: dict[str, object] = {}
    for concurrency in (1, 16, 64):
        ratios, rates = [], []
        for _ in range(ROUNDS):
            plain = await rate(bare, concurrency, seconds)
            guard = await rate(ours, concurrency, seconds)
            ratios.append(guard / plain)
            rates.append((guard, plain))
        result[f"concurrency {concurrency}"] = {
            "guarded per second": round(statistics.median(g for g, _ in rates)),
            "bare per second": round(statistics.median(p for _, p in rates)),
            "ratio": round(statistics.median(ratios), 2),
            "ratio lowest, highest": (round(min(ratios), 2), round(max(ratios), 2)),
        }
    async with guarded.pool.acquire() as conn:
        statement = await conn.prepare(guarded.reader._shelf.statements["customer"])
        for passes in (1, 16, 64):
            told = " ".join(text for _, text in grants[:passes])
            times = []
            for _ in range(ROUNDS * 40):
                begin = time.perf_counter()
                await statement.fetch(told)
                times.append((time.perf_counter() - begin) * 1e6 / passes)
            result[f"statement of {passes}, microseconds a pass"] = round(statistics.median(times), 1)
    await bare_pool.close()
    await crm.close(guarded)
    await admin.close()
    return result


def main() -> None:
    """Starts a server, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "pg")
    server.start()
    try:
        print(json.dumps(asyncio.run(measure(server, 0.2 if options.quick else 1.0)), indent=2))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
