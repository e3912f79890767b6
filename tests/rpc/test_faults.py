"""Faults planted in a real worker: whatever breaks, one fixed sentence and an id; nothing is half done."""

import asyncio
import contextlib
import json
import uuid

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from broker.v1 import access_service_pb2 as pb
from tests.rpc.company import creation, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"
REVOKE, STATUS = "AccessService/RevokeGrant", "AccessService/GetGrantStatus"
LIST, EXPLAIN = "AccessService/ListAssignedTickets", "AccessService/ExplainDenial"
JWKS = "KeyService/GetJwks"
INTERNAL = "Internal error; quote the decision id to the operator."
SECRET = "password=hunter2 alice@example.com"

FAULTS = f"""
import asyncio
from broker.access.service import Access
from broker.records.reader import RecordReader
from broker.rpc.access import AccessService
from broker.v1 import common_pb2

async def leaks(self, *_, **__):
    raise ValueError("{SECRET}")

async def deep(self, *_, **__):
    def down(n):
        return down(n + 1)
    return down(0)

async def gives_nothing(self, *_):
    return None

async def gives_other(self, *_):
    return common_pb2.AgentRef(issuer="{SECRET}")

async def is_cancelled(self, *_, **__):
    task = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task

Access.assigned_tickets = leaks
Access.grant_status = deep
Access.explain_denial = is_cancelled
AccessService._keys = gives_other
AccessService._revoke = gives_nothing
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def broken(company):
    """A worker in which several things go wrong."""
    async with company.worker(FAULTS) as worker:
        yield worker


@pytest.mark.attack("G18")
@pytest.mark.parametrize(
    ("name", "request_", "what"),
    [
        (LIST, pb.ListAssignedTicketsRequest(), "ValueError"),
        (STATUS, pb.GetGrantStatusRequest(grant_id=str(uuid.uuid4())), "RecursionError"),
        (EXPLAIN, pb.ExplainDenialRequest(decision_id=str(uuid.uuid4())), "CancelledError"),
        (JWKS, b"", "handler gave the wrong type"),
        (REVOKE, pb.RevokeGrantRequest(grant_id=str(uuid.uuid4())), "handler gave the wrong type"),
    ],
    ids=["an exception", "endless recursion", "something inside was cancelled", "wrong type", "nothing"],
)
async def test_unknown_failures(company, broken, name, request_, what):
    """An unknown failure answers INTERNAL with a fixed sentence and an id that leads to a line of the log."""
    async with company.peer("alice", target=broken.target) as alice:
        answer = await alice.call(name, request_)

        assert (answer.code, answer.reason, answer.text) == ("INTERNAL", "INTERNAL", INTERNAL)
        assert uuid.UUID(answer.decision_id).version == 7
        assert SECRET.encode() not in answer.status.SerializeToString()
        log = broken.log.read_text()
        assert not any(word in log for word in ("hunter2", "alice@example.com", "Traceback"))
        lines = [json.loads(line) for line in log.splitlines()]
        [line] = [line for line in lines if line.get("decision_id") == answer.decision_id]
        assert (line["reason"], line["method"]) == (what, f"/broker.v1.{name}")

        granted = await company.grant(alice, await company.ticket())  # the others go on
        read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        assert (await alice.call(READ, read)).code == "OK"


async def test_a_grant_too_long_is_never_said_to_be_granted(company):
    """Where the token would be too long for any request, nothing is on record but the refusal."""
    ticket = await company.ticket()
    async with (
        company.worker("import broker.authn; from broker import jose; jose.MAX_TOKEN_BYTES = 200") as worker,
        company.peer("alice", target=worker.target) as alice,
        company.peer("alice") as elsewhere,
    ):
        grants = "kind = 'grant'"
        before = await company.count(grants)
        answer = await alice.call(CREATE, creation(ticket))

        assert (answer.code, answer.reason, answer.fields) == (
            "INVALID_ARGUMENT",
            "REQUEST_MALFORMED",
            ["fields"],
        )
        assert await company.count(grants) == before
        assert (await elsewhere.call(CREATE, creation(ticket))).code == "OK"
        assert await company.count(grants) == before + 1


HELD = """
import asyncio, pathlib
from broker.access.service import Access
original = Access.read_record
async def held(self, *args):
    result = await original(self, *args)
    while not pathlib.Path({gate!r}).exists():
        await asyncio.sleep(0.01)
    return result
Access.read_record = held
"""
"""A read stops between its commit and its answer until a file is there."""


@pytest.mark.attack("G15")
async def test_client_gone_before_the_answer(company, tmp_path):
    """A client that goes after the commit leaves a read on record as released at most."""
    gate = tmp_path / "gate"
    async with (
        company.worker(HELD.format(gate=str(gate))) as worker,
        company.peer("fatou", target=worker.target) as fatou,
    ):
        granted = await company.grant(fatou, await company.ticket("fatou"))
        grant_id = granted.grant.grant_id
        request = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])

        async def released():
            return await company.count(f"kind = 'read' AND grant_id = '{grant_id}' AND outcome = 'released'")

        call = asyncio.create_task(fatou.call(READ, request))

        async def committed():
            return await released() == 1

        await eventually(committed)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        gate.touch()
        assert (await fatou.call(READ, request)).code == "OK"
        assert await released() == 2
        assert await company.count(f"kind = 'outcome' AND grant_id = '{grant_id}'") == 0


@pytest.mark.attack("G20", "O11")
async def test_drains(company, tmp_path):
    """After SIGTERM a call under way is answered, a new one is UNAVAILABLE, a watch of health ends."""
    gate = tmp_path / "gate"
    async with (
        company.worker(HELD.format(gate=str(gate))) as worker,
        company.peer("hanna", target=worker.target) as hanna,
        company.peer("hanna", target=worker.target) as late,
    ):
        granted = await company.grant(hanna, await company.ticket("hanna"))
        assert (await late.call(JWKS)).code == "OK"  # connected
        watch = hanna.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        first = health_pb2.HealthCheckResponse.FromString(await watch.read())
        assert first.status == health_pb2.HealthCheckResponse.SERVING
        request = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        under_way = asyncio.create_task(hanna.call(READ, request, timeout=10))
        where = f"kind = 'read' AND grant_id = '{granted.grant.grant_id}'"

        async def committed():
            return await company.count(where) == 1

        await eventually(committed)
        worker.terminate()
        await worker.until("draining")

        async def refused():
            return (await late.call(JWKS, timeout=2)).code == "UNAVAILABLE"

        await eventually(refused)
        gate.touch()
        assert (await under_way).code == "OK"
        assert await worker.wait() == 0
        rest = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (data := await watch.read()) is not grpc.aio.EOF:
                rest.append(health_pb2.HealthCheckResponse.FromString(data).status)
        assert set(rest) <= {health_pb2.HealthCheckResponse.NOT_SERVING}
