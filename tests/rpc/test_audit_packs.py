"""BuildPack: over the port a pack is what the core makes, whole or not at all, on record before it leaves."""

import asyncio
import hashlib
import random
import uuid
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
import pytest_asyncio

from broker.audit.exposure import Selection
from broker.audit.new_file import new_file
from broker.audit.pack import PART, build_pack
from broker.audit.packed import verify_pack
from broker.client import (
    AgentName,
    AuditClient,
    BrokerCallError,
    DeniedError,
    EventQuery,
    ExposureQuery,
    InvalidRequestError,
    UnavailableError,
)
from broker.dev.layout import ADMIN_AUDIENCE, ADMIN_CLIENT, ADMIN_ISSUER, CONSOLE_IDENTITY, LOG_ORIGIN
from broker.dev.oidc import DevelopmentIssuer
from broker.keys import LogKeyFolder
from broker.tlog import Directory
from broker.v1 import access_service_pb2 as access
from broker.v1 import audit_service_pb2 as pb
from tests.audit.conftest import Audited
from tests.rpc.company import eventually
from tests.rpc.contract import ref

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUSY = AgentName("https://idp.test", "busy")
"""An agent whose pack has many parts."""

BUILD = "/broker.v1.AuditService/BuildPack"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(company):
    """Gives the question about an agent with many disclosures, all of them published."""
    conn = await asyncpg.connect(company.world.dsn())
    ledger = Audited(None, conn, None)
    rng = random.Random(3)
    for n in range(300):
        detail = {"facts": {}, "levels": {"customer.name": "clear"}, "noise": rng.randbytes(4000).hex()}
        last = await ledger.put(agent=f"{BUSY.issuer}|{BUSY.subject}", customer=f"b{n}", detail=detail)
    await conn.close()
    await _provable(company, str(last))
    return ExposureQuery(agent=BUSY)


async def _provable(company, event_id):
    async def published():
        async with company.world.audit() as auditor:
            try:
                return bool(await auditor.prove(event_id))
            except BrokerCallError:
                return False

    await eventually(published, 20)


async def _read(company, customer):
    """Lets alice read a customer; gives the grant's id once the read is published."""
    async with company.peer("alice") as peer:
        granted = await company.grant(peer, await company.ticket(customers=(customer,)))
        read = access.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        answer = await peer.call("AccessService/ReadRecord", read)
    await _provable(company, access.ReadRecordResponse.FromString(answer.data).decision_id)
    return granted.grant.grant_id


async def _packs_asked(company):
    """Gives the questions for packs that are on record, newest first."""
    async with company.world.audit() as auditor:
        query = EventQuery(kind="auditor_query", tool=CONSOLE_IDENTITY)
        found = [event async for event in auditor.events(query, most=200)]
    return [event for event in found if event.detail["query"] == "pack"]


def _keys(company):
    return LogKeyFolder(company.world.layout.log_keys, LOG_ORIGIN)


async def test_is_what_the_core_makes(company, busy, tmp_path):
    """It says the same, the public key alone shows that it holds, and the event names the person."""
    path, core = tmp_path / "port.zip", tmp_path / "core.zip"
    async with company.world.audit() as auditor:
        with new_file(path) as file:
            summary = await auditor.build_pack(busy, file.write)
        asked = await auditor.event(summary.decision_id)
    verdict = verify_pack(path, _keys(company).load().keys[:1])
    async with asyncpg.create_pool(company.world.dsn("broker_auditor"), min_size=0, max_size=2) as pool:
        await build_pack(
            pool, Selection(agent="https://idp.test|busy"), core, keys=_keys(company),
            storage=Directory(company.world.layout.log), now=datetime.now(UTC),
        )  # fmt: skip
    again = verify_pack(core, _keys(company).load().keys[:1])

    data = path.read_bytes()
    assert (summary.length, summary.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (summary.customers, summary.reads, summary.leaves) == (300, 300, 300)
    assert summary.log_size == verdict.size
    assert verdict.report["totals"] == again.report["totals"]
    assert verdict.report["selection"] == {"agent": "https://idp.test|busy"}
    assert (asked.agent, asked.tool) == (f"{ADMIN_ISSUER}|audrey", CONSOLE_IDENTITY)
    assert asked.detail == {"query": "pack", "agent": "https://idp.test|busy"}


async def test_of_a_customer_by_their_key(company):
    """The pseudonym stands for it, in the event and in the pack; of whom nothing was given there is none."""
    await _read(company, "17")
    got = []
    async with company.world.audit() as auditor:
        summary = await auditor.build_pack(ExposureQuery(customer_id="17"), got.append)
        asked = await auditor.event(summary.decision_id)
        nobody = await auditor.build_pack(ExposureQuery(customer_id="nobody"), got.append)

    assert (nobody.length, nobody.sha256, nobody.leaves) == (0, b"", 0)
    assert sum(map(len, got)) == summary.length > 0
    assert summary.customers == 1
    assert asked.detail.keys() == {"query", "customer"}
    assert asked.detail["customer"] != "17"


async def test_parts_are_short_and_the_question_is_on_record_before_the_first(company, busy):
    """Whoever has one byte is on record by name."""
    before = len(await _packs_asked(company))
    async with company.admin("console", "audrey") as console:
        call = console.channel.unary_stream(BUILD)(
            pb.BuildPackRequest(agent=ref(BUSY.issuer, BUSY.subject)).SerializeToString(),
            metadata=[("authorization", f"Bearer {console.token}")],
            timeout=20,
        )
        first = pb.BuildPackResponse.FromString(await anext(aiter(call)))
        asked = await _packs_asked(company)
        call.cancel()

    assert len(first.chunk) == PART
    assert len(asked) == before + 1
    assert asked[0].agent == f"{ADMIN_ISSUER}|audrey"


async def test_is_for_auditors_in_person(company, busy):
    """Another person, a machine, an agent and nobody at all get no byte; each refusal is on record."""
    before = len(await _packs_asked(company))
    got = []
    async with company.world.audit("anna") as anna:
        with pytest.raises(DeniedError):
            await anna.build_pack(busy, got.append)
    issuer = DevelopmentIssuer.open(ADMIN_ISSUER, company.world.layout.admin_idp)
    claims = issuer.claims("audrey", audience=ADMIN_AUDIENCE, client_id=ADMIN_CLIENT, groups=["auditors"])
    request = pb.BuildPackRequest(agent=ref(BUSY.issuer, BUSY.subject))
    async with company.admin("console") as console:
        answers = [
            await console.call("AuditService/BuildPack", request, token=token)
            for token in ("", company.token("alice"), issuer.sign({**claims, "sub": ADMIN_CLIENT}))
        ]
    async with company.admin("tool-desk") as tool:
        answers.append(
            await tool.call(
                "AuditService/BuildPack", request, token=company.world.layout.admin_token("audrey")
            )
        )

    assert got == []
    assert [(a.code, a.data) for a in answers] == [("UNAUTHENTICATED", b"")] * 4
    assert [(await company.recorded(a))["kind"] for a in answers] == ["login_failure"] * 4
    assert len(await _packs_asked(company)) == before


INVENT = """
INSERT INTO broker.disclosure
    (event_id, read_time, agent_id, tool_id, fields_id, ground_id, stratum_id, grant_id, customer, ticket)
SELECT $2, read_time, agent_id, tool_id, fields_id, ground_id, stratum_id, grant_id, customer, ticket
FROM broker.disclosure WHERE grant_id = $1
"""


async def test_what_cannot_be_proved_is_no_pack(company):
    """A disclosure in the index that the ledger does not have is refused by its reason; control: without."""
    grant = await _read(company, "18")
    query, invented = ExposureQuery(grant_id=grant), uuid.uuid4()
    conn = await asyncpg.connect(company.world.dsn())
    async with company.world.audit() as auditor:
        assert (await auditor.build_pack(query, lambda _: None)).leaves == 1
        await conn.execute(INVENT, grant, invented)
        with pytest.raises(InvalidRequestError) as refused:
            await auditor.build_pack(query, lambda _: None)
        await conn.execute("DELETE FROM broker.disclosure WHERE event_id = $1", invented)
        assert (await auditor.build_pack(query, lambda _: None)).leaves == 1
    await conn.close()

    assert refused.value.reason == "PROOF_UNAVAILABLE"


@asynccontextmanager
async def _cutting(target, most):
    """Stands before the port, and cuts the connection once it has answered so many bytes."""
    host, _, port = target.rpartition(":")

    async def pump(reader, writer, left):
        while left > 0 and (data := await reader.read(min(left, 8192))):
            left -= len(data)
            writer.write(data)
            await writer.drain()

    async def connected(reader, writer):
        there, back = await asyncio.open_connection(host, int(port))
        pumps = {
            asyncio.create_task(pump(reader, back, 1 << 40)),
            asyncio.create_task(pump(there, writer, most)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        writer.transport.abort()
        back.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_torn_one_is_none(company, busy, tmp_path):
    """Cut off in the middle, the client says so and no file is left; control: uncut, by the same way."""
    tls = company.world.layout.client_tls("console")

    async def fetch(target, path):
        async with AuditClient(
            target,
            ca_file=tls.ca_file,
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            token_source=lambda: company.world.layout.admin_token("audrey"),
        ) as auditor:
            with new_file(path) as file:
                return await auditor.build_pack(busy, file.write), file.tell()

    async with _cutting(company.world.admin_target, 1 << 40) as through:
        summary, _ = await fetch(through, tmp_path / "whole.zip")
    async with _cutting(company.world.admin_target, summary.length // 2) as through:
        with pytest.raises(UnavailableError):
            await fetch(through, tmp_path / "torn.zip")

    assert [path.name for path in tmp_path.iterdir()] == ["whole.zip"]
    assert (tmp_path / "whole.zip").stat().st_size == summary.length > 10 * PART


@pytest.mark.attack("X3")
async def test_who_goes_away_leaves_nothing_running(company, busy):
    """Cancelled in the middle, more often than there are connections for reports, the next one is served."""
    watcher = await asyncpg.connect(company.world.dsn())
    async with company.world.audit() as auditor:
        for _ in range(5):
            stream = auditor._personal_stream(
                auditor._stub.BuildPack, pb.BuildPackRequest(agent=ref(BUSY.issuer, BUSY.subject)), timeout=20
            )
            async with aclosing(stream):
                assert (await anext(stream)).chunk

        async def idle():
            return not await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'broker-admin: reports' AND state <> 'idle'"
            )

        await eventually(idle)
        assert (await auditor.build_pack(busy, lambda _: None)).leaves == 300
    await watcher.close()
