"""The load generator: one process, one connection, a fixed number of calls under way.

    python -m tests.bench.load < spec.json      (prints one JSON line)

spec: target, ca, cert, key, method, concurrency, seconds, calls: [[authorization, request in hex], …];
method CreateGrant gets a fresh request id per call.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
import uuid
from pathlib import Path

import grpc
import uvloop

from broker.v1 import access_service_pb2 as pb

WARM_UP = 0.3
"""Share of a run's seconds that is not counted."""


async def main(spec: dict, ca: bytes, cert: bytes, key: bytes) -> None:
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    channel = grpc.aio.secure_channel(spec["target"], credentials)
    call = channel.unary_unary(f"/broker.v1.AccessService/{spec['method']}")
    creating = spec["method"] == "CreateGrant"
    calls = itertools.cycle(
        [((("authorization", token),) if token else (), bytes.fromhex(data)) for token, data in spec["calls"]]
    )
    latencies: list[float] = []
    errors: dict[str, int] = {}
    start = time.perf_counter()
    warm = start + spec["seconds"] * WARM_UP
    end = start + spec["seconds"]

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            metadata, data = next(calls)
            if creating:
                request = pb.CreateGrantRequest.FromString(data)
                request.request_id = str(uuid.uuid4())
                data = request.SerializeToString()
            try:
                await call(data, metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError as exc:
                errors[exc.code().name] = errors.get(exc.code().name, 0) + 1
                if sum(errors.values()) > 100:
                    return
            done = time.perf_counter()
            if began >= warm and done <= end:
                latencies.append(done - began)

    gc.freeze()
    await asyncio.gather(*(client() for _ in range(spec["concurrency"])))
    await channel.close()
    latencies.sort()
    count = len(latencies)
    print(
        json.dumps(
            {
                "count": count,
                "per_second": count / (spec["seconds"] * (1 - WARM_UP)),
                "p50_ms": latencies[count // 2] * 1e3 if count else None,
                "p99_ms": latencies[min(count - 1, int(count * 0.99))] * 1e3 if count else None,
                "errors": errors,
            }
        )
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        given = json.load(sys.stdin)
        runner.run(main(given, *(Path(given[name]).read_bytes() for name in ("ca", "cert", "key"))))
