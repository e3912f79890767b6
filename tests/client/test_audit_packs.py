"""The client's side of a pack: it is one when it came whole, and nothing otherwise."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import repeat

import grpc
import pytest

from broker.client import AgentName, AuditClient, ClientError, ExposureQuery, InvalidRequestError
from broker.v1 import audit_service_pb2 as pb
from tests.client.conftest import Fault, agent_token

QUERY = ExposureQuery(agent=AgentName("https://idp.test", "mallory"))
CHUNKS = [b"one", b"two" * 10_000, b"three"]


@pytest.fixture
def auditor(broker, tls):
    """Gives a client of the fake broker."""
    return AuditClient(broker.target, token_source=lambda: agent_token("audrey"), **tls)


def parts(*chunks, length=None, sha256=None):
    """Makes an answer with its summary."""
    data = b"".join(chunks)
    summary = pb.PackSummary(
        decision_id="d-p",
        length=len(data) if length is None else length,
        sha256=(hashlib.sha256(data).digest() if data else b"") if sha256 is None else sha256,
    )
    return [*(pb.BuildPackResponse(chunk=chunk) for chunk in chunks), pb.BuildPackResponse(summary=summary)]


async def test_comes_in_its_parts(broker, auditor):
    """Each part is written as it comes, with the person's token; the summary is the answer."""
    got = []
    broker.pack = parts(*CHUNKS)
    async with auditor:
        summary = await auditor.build_pack(QUERY, got.append)

    assert got == CHUNKS
    assert (summary.decision_id, summary.length) == ("d-p", len(b"".join(CHUNKS)))
    assert broker.calls == [("BuildPack", agent_token("audrey"))]


@pytest.mark.parametrize(
    "pack",
    [
        [],
        parts(*CHUNKS)[:-1],
        parts(*CHUNKS)[1:],
        parts(*CHUNKS, length=1),
        parts(*CHUNKS, sha256=bytes(32)),
        [*parts()[:-1], *parts(*CHUNKS)[-1:]],
    ],
    ids=[
        "nothing",
        "no summary",
        "a part is missing",
        "another length",
        "another digest",
        "the summary alone",
    ],
)
async def test_what_is_not_whole_is_none(broker, auditor, pack):
    """However it ended; control: the same parts, whole."""
    broker.pack = pack
    async with auditor:
        with pytest.raises(ClientError, match="broke off"):
            await auditor.build_pack(QUERY, lambda _: None)
        broker.pack = parts(*CHUNKS)
        await auditor.build_pack(QUERY, lambda _: None)


async def test_a_customer_of_whom_nothing_was_granted(broker, auditor):
    """Has no archive, and the summary says so."""
    broker.pack = parts()
    async with auditor:
        summary = await auditor.build_pack(QUERY, lambda _: None)

    assert (summary.length, summary.sha256) == (0, b"")


async def test_a_refusal_is_not_repeated(broker, auditor):
    """Its reason comes as of any call; each question is an event, so none is asked again by itself."""
    broker.faults = [Fault(grpc.StatusCode.FAILED_PRECONDITION, "PROOF_UNAVAILABLE")]
    async with auditor:
        with pytest.raises(InvalidRequestError) as refused:
            await auditor.build_pack(QUERY, lambda _: None)

    assert refused.value.reason == "PROOF_UNAVAILABLE"
    assert broker.count("BuildPack") == 1


async def test_a_disk_that_is_full_ends_the_call(broker, auditor):
    """Where the parts cannot be kept, the broker makes no more of them."""
    broker.pack = repeat(pb.BuildPackResponse(chunk=bytes(1 << 16)))

    def full(_):
        raise OSError(28, "No space left on device")

    async with auditor:
        with pytest.raises(OSError, match="No space"):
            await auditor.build_pack(QUERY, full)
        async with asyncio.timeout(5):
            await broker.ended.wait()
