"""What the ports say of themselves: health, reflection, keys, metrics; and when they say no."""

import asyncio
import hashlib
import json
import re
import sys
from base64 import b64decode, urlsafe_b64encode
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from joserfc import jwk, jwt

from broker.dev.layout import BROKER_ISSUER
from broker.dev.world import World, agent
from broker.v1 import access_service_pb2 as pb
from broker.v1 import key_service_pb2 as keys
from tests.rpc.company import SETTINGS, Company, creation, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CREATE, READ, JWKS = "AccessService/CreateGrant", "AccessService/ReadRecord", "KeyService/GetJwks"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
BUF = Path(sys.executable).with_name("buf")


async def health(peer, service=""):
    """Gives the standard health service's answer; None where there is none."""
    answer = await peer.call(CHECK, health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.FromString(answer.data).status if answer.code == "OK" else None


async def reflected(peer):
    """Gives the services that reflection lists; empty where there is none."""
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    call = peer.channel.stream_stream(REFLECTION)(iter([request]), timeout=5)
    try:
        data = await call.read()
        answer = reflection_pb2.ServerReflectionResponse.FromString(data)
    except (grpc.aio.AioRpcError, TypeError):  # what is no message: the end of the call
        return set()
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.attack("G17")
async def test_health_says_serving_alone(company):
    """Health needs no token and says one word, to the holder of a certificate; nobody else hears it."""
    async with company.peer() as tool, company.admin() as admin, company.peer(certificate=None) as nobody:
        for peer, service in ((tool, "AccessService"), (tool, "KeyService"), (admin, "ContainmentService")):
            assert await health(peer) == SERVING
            assert await health(peer, f"broker.v1.{service}") == SERVING
        assert await health(tool, "broker.v1.NothingService") is None
        assert await health(nobody) is None
        answer = await tool.call(CHECK, health_pb2.HealthCheckRequest())
        assert answer.data == health_pb2.HealthCheckResponse(status=SERVING).SerializeToString()
        for name in ("Health/List", "Health/Nothing"):
            assert (await tool.call(f"/grpc.health.v1.{name}")).code == "UNIMPLEMENTED"
        assert (await tool.call("/grpc.channelz.v1.Channelz/GetServers")).code == "UNIMPLEMENTED"


@pytest.mark.attack("G17")
async def test_reflection(company):
    """Reflection lists the tools' services where the settings say so, and is off by default."""
    async with company.peer() as tool, company.admin() as admin:
        assert {"broker.v1.AccessService", "broker.v1.KeyService"} <= await reflected(tool)
        assert await reflected(admin) == set()
    settings = company.settings()
    settings.pop("reflection")
    async with (
        company.worker(settings={"reflection": False}) as worker,
        company.peer("alice", target=worker.target) as tool,
    ):
        assert await reflected(tool) == set()
        assert (await tool.call(JWKS)).code == "OK"


async def test_keys_are_the_same_everywhere(company):
    """The key set over gRPC is the one over HTTP, byte for byte; another library verifies a grant by it."""
    async with company.peer("alice") as alice:
        over_grpc = keys.GetJwksResponse.FromString((await alice.call(JWKS)).data).jwks
        assert [await company.world.serve.get(path) for path in ("/jwks.json", "/.well-known/jwks.json")] == [
            (200, over_grpc)
        ] * 2
        assert not any("d" in key for key in json.loads(over_grpc)["keys"])

        ticket = await company.ticket()
        answer = await company.grant(alice, ticket, "customer.name", audience="https://crm.example")
    token = jwt.decode(answer.grant_token, jwk.KeySet.import_key_set(json.loads(over_grpc)), ["ES256"])
    der = company.issued("tool-desk").certificate.public_bytes(Encoding.DER)
    thumbprint = urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    assert token.claims["iss"] == BROKER_ISSUER
    assert token.claims["aud"] == "https://crm.example"
    assert token.claims["sub"] == agent("alice").key
    assert token.claims["cnf"] == {"x5t#S256": thumbprint}
    assert token.claims["authorization_details"][0]["ticket"] == ticket
    jwt.JWTClaimsRegistry(aud={"essential": True, "value": "https://crm.example"}).validate(token.claims)

    async with company.peer("alice", "tool-phone") as phone:  # this tool may not ask for that audience
        refused = await phone.call(CREATE, creation(ticket, audience="https://crm.example"))
    assert (refused.code, refused.reason, refused.fields) == (
        "PERMISSION_DENIED",
        "AUDIENCE_DENIED",
        ["audience"],
    )
    await company.recorded(refused)


@pytest.mark.attack("E7")
async def test_metrics_name_nobody(company):
    """After all kinds of calls the metrics hold methods, codes and reasons: no id, no name, no address."""
    ticket = await company.ticket("alice", customers=("9",))
    async with company.peer("alice") as alice:
        granted = await company.grant(alice, ticket)
        read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        assert (await alice.call(READ, read)).code == "OK"
        await alice.call(CREATE, creation("R-nothing-of-yours"))
        await alice.call("/broker.v1.AccessService/NameOfMyOwn")
    async with company.admin() as admin:
        await admin.call("/broker.v1.ContainmentService/NameOfMyOwn")
    status, text = await company.world.serve.get("/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert any("AccessService/ReadRecord" in line for line in lines)
    words = ("alice", "R-", ticket, "NameOfMyOwn", "127.0.0.1", "spiffe", "idp.", granted.grant.grant_id)
    assert not [line for line in lines for word in words if word in line]
    assert not re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}|[0-9a-f]{32}", "\n".join(lines))
    labels = {name for line in lines for name in re.findall(r"[{,](\w+)=", line)}
    assert labels <= {"method", "code", "reason", "sink", "source", "le", "pid"}


async def test_another_client(company, tmp_path):
    """`buf curl` calls by reflection and by our schema, and reads our errors' details."""
    tls = company.world.layout.client_tls("tool-desk")
    header = tmp_path / "headers"

    async def curl(method, request, *how):
        process = await asyncio.create_subprocess_exec(
            str(BUF), "curl", "--protocol", "grpc", *how, "--cacert", str(tls.ca_file),
            "--cert", str(tls.cert_file), "--key", str(tls.key_file), "-H", f"@{header}",
            "-d", json.dumps(request), f"https://{company.world.access_target}/broker.v1.{method}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, json.loads(out or err)

    request = {
        "requestId": creation("x").request_id,
        "ticketId": await company.ticket(),
        "purpose": "resolve-ticket",
        "fields": ["customer.name"],
    }
    header.write_text(f"authorization: Bearer {company.token('alice')}\n")
    reflect = ("--reflect", "--reflect-protocol", "grpc-v1alpha")
    code, answer = await curl(CREATE, request, *reflect)
    assert (code, answer["grant"]["ticketId"]) == (0, request["ticketId"])

    schema = ("--schema", str(Path(__file__).parent.parent.parent / "proto"))
    code, again = await curl(CREATE, request, *schema)  # the request's id: the same grant
    assert (code, again["grant"]["grantId"]) == (0, answer["grant"]["grantId"])

    header.write_text("authorization: Bearer x\n")
    code, refused = await curl(CREATE, request, *schema)
    assert (code >> 3, refused["code"]) == (16, "unauthenticated")
    assert refused["details"][0]["type"] == "google.rpc.ErrorInfo"
    packed = refused["details"][0]["value"]
    info = error_details_pb2.ErrorInfo.FromString(b64decode(packed + "=" * (-len(packed) % 4)))
    assert (info.reason, info.domain) == ("TOKEN_INVALID", "broker.v1")


async def test_readiness_and_start():
    """An admin table without an RPC stops the start; a silent feed and a gone database end the service."""
    feeds = {"max_silence": 3}
    async with World.start(None, customers=3, fsync=False, serving=False, settings=SETTINGS) as world:
        company = Company(world)
        # (1) an RPC that nobody decided about
        table = world.layout.policies / "admin.csv"
        right = table.read_text("utf-8")
        table.write_text("".join(x for x in right.splitlines(True) if "/SuspendAgent" not in x), "utf-8")
        await world.serve.start()
        async with asyncio.timeout(20):
            assert await world.serve.wait() != 0
        assert "no row for /broker.v1.ContainmentService/SuspendAgent" in world.serve.last_words()
        table.write_text(right, "utf-8")

        # (2) the same start with the table as it should be, and a feed that may be silent for three seconds
        settings = company.settings()
        changed = [{**feed, **feeds} for feed in settings["feeds"]]
        world.layout.write_settings(
            world.databases.settings(), workers=1, extra={**SETTINGS, "feeds": changed}
        )
        await world.start_serving(heartbeats=False)
        async with company.stack, company.peer("alice") as alice:
            granted = await company.grant(alice, "T-1001")
            read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
            assert (await alice.call(READ, read)).code == "OK"
            assert await health(alice) == SERVING

            async def fallen():
                return await health(alice) == NOT_SERVING

            await eventually(fallen, 8)
            assert await world.serve.status("/readyz") == 503
            assert await world.serve.status("/healthz") == 200
            for name, request in ((CREATE, creation("T-1001")), (READ, read)):
                answer = await alice.call(name, request)
                assert (answer.code, answer.reason) == ("UNAVAILABLE", "FEED_STALE")
                assert answer.decision_id
            await world.beat()

            async def back():
                return await health(alice) == SERVING

            await eventually(back)
            assert (await alice.call(READ, read)).code == "OK"

            # (3) no database
            await asyncio.to_thread(world.databases.server.stop, "immediate")
            for name, request in ((CREATE, creation("T-1001")), (READ, read)):
                answer = await alice.call(name, request, timeout=4)
                assert answer.code == "UNAVAILABLE"
                assert answer.reason in {"DATABASE_UNAVAILABLE", "LEDGER_UNAVAILABLE", "RECORDS_UNAVAILABLE"}
            await eventually(fallen)
            assert await world.serve.status("/readyz") == 503
            assert (await alice.call(JWKS)).code == "OK"  # needs none
