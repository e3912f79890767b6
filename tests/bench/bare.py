"""The bare handler: what reading one row and keeping one audit row costs, and nothing else.

Same proto, same TLS with client certificates, same event loop, same worker count; no check, no
trace. `single`: one asyncpg statement per call selects the row and inserts the audit row durably.
`grouped`: the same, but concurrent calls share one statement and so one commit.

    python -m tests.bench.bare < spec.json      (prints "ready" once it listens)
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from pathlib import Path

import asyncpg
import grpc
import uvloop

from broker.database import Batch
from broker.v1 import access_service_pb2 as pb
from broker.v1 import access_service_pb2_grpc as stubs
from broker.v1 import common_pb2

COLUMNS = ("name", "email", "phone", "city", "plan")

SETUP = """
CREATE TABLE IF NOT EXISTS bare_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint NOT NULL,
    fields text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())
"""

SINGLE = """
WITH kept AS (INSERT INTO bare_audit (customer_id, fields) VALUES ($1, $2))
SELECT name, email, phone, city, plan FROM crm.customer WHERE customer_id = $1
"""

GROUPED = """
WITH asked AS (SELECT * FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS u (id, fields, ord)),
kept AS (INSERT INTO bare_audit (customer_id, fields) SELECT id, fields FROM asked)
SELECT c.name, c.email, c.phone, c.city, c.plan
FROM asked AS a INNER JOIN crm.customer AS c ON c.customer_id = a.id ORDER BY a.ord
"""


class Bare(stubs.AccessServiceServicer):
    """ReadRecord and nothing else; the grant token is the customer's number."""

    def __init__(self, pool: asyncpg.Pool, *, grouped: bool):
        self._pool = pool
        self._grouped = grouped
        self._batch: Batch[tuple[int, str], asyncpg.Record] = Batch(
            self._flush, limit=128, backlog=4096, refused=RuntimeError
        )

    async def ReadRecord(self, request, context):  # noqa: N802 - grpc's name
        customer, fields = int(request.grant_token), ",".join(request.fields)
        if self._grouped:
            row = await self._batch.submit((customer, fields))
        else:
            async with self._pool.acquire() as conn:
                row = await conn.fetchrow(SINGLE, customer, fields)
        return pb.ReadRecordResponse(
            decision_id="bare",
            fields=[
                pb.FieldValue(name=n, state=common_pb2.FIELD_STATE_CLEAR, values=[pb.Value(text=row[c])])
                for n, c in zip(request.fields, COLUMNS, strict=True)
            ],
        )

    async def _flush(self, items):
        async with self._pool.acquire() as conn:
            return await conn.fetch(GROUPED, [i for i, _ in items], [f for _, f in items])


async def _keep(conn):
    """Gives a connection back as it is, as the broker's own pools do."""


async def main(spec: dict, key: bytes, cert: bytes, authority: bytes) -> None:
    pool = await asyncpg.create_pool(spec["dsn"], min_size=8, max_size=16, reset=_keep)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    stubs.add_AccessServiceServicer_to_server(Bare(pool, grouped=spec["grouped"]), server)
    server.add_secure_port(
        spec["target"], grpc.ssl_server_credentials([(key, cert)], authority, require_client_auth=True)
    )
    await server.start()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)
    await pool.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        given = json.load(sys.stdin)
        runner.run(main(given, *(Path(given[name]).read_bytes() for name in ("key", "cert", "ca"))))
