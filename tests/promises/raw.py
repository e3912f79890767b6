"""Calls of the stub itself: what a caller can measure of a refusal, and headers that no client sends."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from broker.client import BrokerClient
from broker.v1 import access_service_pb2 as pb

DECISION = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Refusal:
    """Everything that a caller sees of a refusal but its decision id, which is as long each time."""

    code: str
    text: str
    initial: tuple[tuple[str, str | bytes], ...]
    trailers: tuple[tuple[str, str | bytes], ...]
    sizes: tuple[int, ...]


async def create(
    client: BrokerClient, ticket_id: str, fields: Sequence[str], headers: Sequence[tuple[str, str]] = ()
) -> pb.CreateGrantResponse:
    """Creates a grant with one call of the stub."""
    request = pb.CreateGrantRequest(
        request_id=str(uuid.uuid4()), ticket_id=ticket_id, purpose="resolve-ticket", fields=fields
    )
    metadata = (("authorization", f"Bearer {await client._token()}"), *headers)
    return await client._stub.CreateGrant(request, timeout=5, metadata=metadata)


async def read(
    client: BrokerClient, token: str, fields: Sequence[str], headers: Sequence[tuple[str, str]] = ()
) -> pb.ReadRecordResponse:
    """Reads with one call of the stub."""
    request = pb.ReadRecordRequest(grant_token=token, fields=fields)
    metadata = (("authorization", f"Bearer {await client._token()}"), *headers)
    return await client._stub.ReadRecord(request, timeout=5, metadata=metadata)


async def refused(client: BrokerClient, ticket_id: str, fields: Sequence[str]) -> tuple[Refusal, float]:
    """Asks for a ticket that is refused; gives what came back, and the seconds it took."""
    began = time.perf_counter()
    try:
        await create(client, ticket_id, fields)
    except grpc.aio.AioRpcError as exc:
        took = time.perf_counter() - began
        came = tuple(exc.trailing_metadata() or ())
        trailers = tuple((key, DECISION.sub(b"", v) if isinstance(v, bytes) else v) for key, v in came)
        sizes = tuple(len(value) for _, value in came)
        found = Refusal(exc.code().name, exc.details(), tuple(exc.initial_metadata() or ()), trailers, sizes)
        return found, took
    raise AssertionError(f"{ticket_id} was not refused")
