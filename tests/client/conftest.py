"""A small real broker to call: mutual TLS, canned logic, faults as hooks."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from broker.client import BrokerClient
from broker.v1 import access_service_pb2 as pb
from broker.v1 import (
    access_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    common_pb2,
    containment_service_pb2,
    containment_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    ticket_feed_service_pb2,
    ticket_feed_service_pb2_grpc,
)

NOW = 1_800_000_000
LIFETIME = 300
WITHHELD = "customer.iban"


def agent_token(subject: str, exp: int = NOW + 600) -> str:
    """Makes a token that nobody verifies here."""
    body = json.dumps({"iss": "https://idp.test", "sub": subject, "exp": exp}).encode()
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.sig"


@dataclass
class Fault:
    """What the next call ends with."""

    code: grpc.StatusCode
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    field_name: str = ""
    domain: str = "broker.v1"
    sentence: str = "No."


@dataclass
class FakeBroker(
    access_service_pb2_grpc.AccessServiceServicer,
    key_service_pb2_grpc.KeyServiceServicer,
    containment_service_pb2_grpc.ContainmentServiceServicer,
    ticket_feed_service_pb2_grpc.TicketFeedServiceServicer,
    audit_service_pb2_grpc.AuditServiceServicer,
):
    """Grants everything but one field; remembers who asked for what."""

    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)  # method, agent's token
    request_ids: list[str] = field(default_factory=list)
    fields: list[list[str]] = field(default_factory=list)  # of each CreateGrant
    deadlines: list[float] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)
    pack: list[audit_service_pb2.BuildPackResponse] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a stream was taken, or its taker went
    target: str = ""

    def count(self, method: str) -> int:
        """Counts the calls of a method."""
        return sum(1 for name, _ in self.calls if name == method)

    async def note(self, method: str, context: grpc.aio.ServicerContext) -> str:
        """Notes a call; ends it with the next fault, if one is planted."""
        metadata = dict(context.invocation_metadata() or ())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        self.calls.append((method, token))
        self.deadlines.append(context.time_remaining())
        if self.faults:
            await self.refuse(self.faults.pop(0), context)
        return token

    async def refuse(self, fault: Fault, context: grpc.aio.ServicerContext) -> None:
        """Ends the call as the broker does."""
        status = status_pb2.Status(code=fault.code.value[0], message=fault.sentence)
        details = []
        if fault.reason:
            metadata = {"decision_id": "d-1", **fault.metadata}
            details.append(
                error_details_pb2.ErrorInfo(reason=fault.reason, domain=fault.domain, metadata=metadata)
            )
        if fault.field_name:
            violation = error_details_pb2.BadRequest.FieldViolation(field=fault.field_name, description="No.")
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(fault.code, fault.sentence)

    async def CreateGrant(self, request, context):  # noqa: N802
        token = await self.note("CreateGrant", context)
        self.request_ids.append(request.request_id)
        self.fields.append(list(request.fields))
        grant_id = str(uuid.uuid4())
        self.live.add(grant_id)
        grant = pb.Grant(
            grant_id=grant_id, decision_id="d-g", ticket_id=request.ticket_id, purpose=request.purpose
        )
        for name in request.fields:
            state = common_pb2.FIELD_STATE_WITHHELD if name == WITHHELD else common_pb2.FIELD_STATE_CLEAR
            missing = ["needs the role billing"] if name == WITHHELD else []
            grant.fields.append(pb.GrantedField(name=name, state=state, missing=missing))
        grant.create_time.FromSeconds(NOW + 1_000_000)  # a broker whose clock is far off
        grant.expire_time.FromSeconds(NOW + 1_000_000 + LIFETIME)
        return pb.CreateGrantResponse(grant=grant, grant_token=f"{grant_id}/{token}")

    async def ReadRecord(self, request, context):  # noqa: N802
        await self.note("ReadRecord", context)
        grant_id, _, token = request.grant_token.partition("/")
        if grant_id not in self.live:
            await self.refuse(Fault(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"), context)
        answer = pb.ReadRecordResponse(decision_id="d-r", policy_version="p1")
        for name in request.fields:
            texts = (
                [pb.Value(text=token), pb.Value()] if name.startswith("invoice.") else [pb.Value(text=token)]
            )
            answer.fields.append(pb.FieldValue(name=name, state=common_pb2.FIELD_STATE_CLEAR, values=texts))
        return answer

    async def RevokeGrant(self, request, context):  # noqa: N802
        await self.note("RevokeGrant", context)
        self.live.discard(request.grant_id)
        return pb.RevokeGrantResponse(decision_id="d-v")

    async def GetGrantStatus(self, request, context):  # noqa: N802
        await self.note("GetGrantStatus", context)
        return pb.GetGrantStatusResponse(active=request.grant_id in self.live)

    async def ListAssignedTickets(self, request, context):  # noqa: N802
        await self.note("ListAssignedTickets", context)
        start = int(request.page_token or 0)
        size = request.page_size or 50
        names = [f"T-{n}" for n in range(start, min(start + size, 5))]
        tickets = [pb.AssignedTicket(ticket_id=n, relation=common_pb2.RELATION_ASSIGNEE) for n in names]
        token = str(start + size) if start + size < 5 else ""
        return pb.ListAssignedTicketsResponse(tickets=tickets, next_page_token=token)

    async def ExplainDenial(self, request, context):  # noqa: N802
        await self.note("ExplainDenial", context)
        missing = pb.FieldExplanation(name=WITHHELD, missing=["needs the role billing"])
        return pb.ExplainDenialResponse(
            decision_id=request.decision_id, facts={"relation": "assignee"}, fields=[missing]
        )

    async def GetJwks(self, request, context):  # noqa: N802
        await self.note("GetJwks", context)
        return key_service_pb2.GetJwksResponse(jwks='{"keys": []}')

    async def SuspendAgent(self, request, context):  # noqa: N802
        await self.note("SuspendAgent", context)
        return containment_service_pb2.SuspendAgentResponse(
            suspension=common_pb2.Suspension(agent=request.agent, reason=request.reason)
        )

    async def ReinstateAgent(self, request, context):  # noqa: N802
        await self.note("ReinstateAgent", context)
        return containment_service_pb2.ReinstateAgentResponse(decision_id="d-i")

    async def RevokeGrants(self, request, context):  # noqa: N802
        await self.note("RevokeGrants", context)
        revoked = len(self.live)
        self.live.clear()
        return containment_service_pb2.RevokeGrantsResponse(revoked=revoked, decision_id="d-w")

    async def ListSuspensions(self, request, context):  # noqa: N802
        await self.note("ListSuspensions", context)
        last = request.page_token == "2"
        suspension = common_pb2.Suspension(reason="second" if last else "first")
        return containment_service_pb2.ListSuspensionsResponse(
            suspensions=[suspension], next_page_token="" if last else "2"
        )

    async def PublishEvents(self, request, context):  # noqa: N802
        await self.note("PublishEvents", context)
        self.batches.append(len(request.events))
        outcome = ticket_feed_service_pb2.EVENT_OUTCOME_APPLIED
        return ticket_feed_service_pb2.PublishEventsResponse(outcomes=[outcome] * len(request.events))

    async def SendHeartbeat(self, request, context):  # noqa: N802
        await self.note("SendHeartbeat", context)
        return ticket_feed_service_pb2.SendHeartbeatResponse(contiguous_seq=7)

    async def ResyncTickets(self, request_iterator, context):  # noqa: N802
        await self.note("ResyncTickets", context)
        count = 0
        async for part in request_iterator:
            self.batches.append(len(part.events))
            count += len(part.events)
        return ticket_feed_service_pb2.ResyncTicketsResponse(tickets=count - 1)

    async def without_end(self, method, part, context):
        """Streams one part over and over, as long as anybody takes it."""
        await self.note(method, context)
        try:
            while True:
                await context.write(part)
        finally:
            self.ended.set()

    async def StreamEvents(self, _, context):  # noqa: N802
        await self.without_end("StreamEvents", audit_service_pb2.StreamEventsResponse(), context)

    async def Reconcile(self, _, context):  # noqa: N802
        await self.without_end("Reconcile", audit_service_pb2.ReconcileResponse(), context)

    async def ReportExposure(self, _, context):  # noqa: N802
        customer = audit_service_pb2.ExposedCustomer()
        part = audit_service_pb2.ReportExposureResponse(customer=customer)
        await self.without_end("ReportExposure", part, context)

    async def BuildPack(self, request, context):  # noqa: N802
        await self.note("BuildPack", context)
        try:
            for part in self.pack:
                yield part
        finally:
            self.ended.set()


@dataclass(frozen=True)
class Pki:
    """Certificates of one authority, as files."""

    ca_file: Path
    server_cert: bytes
    server_key: bytes
    cert_file: Path
    key_file: Path


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Makes an authority, a broker's certificate and a tool's."""
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    tool = authority.issue_cert("tool.test", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tool.cert_chain_pems[0].write_to_path(folder / "tool.pem")
    tool.private_key_pem.write_to_path(folder / "tool.key")
    chain = server.cert_chain_pems[0].bytes()
    return Pki(
        folder / "ca.pem", chain, server.private_key_pem.bytes(), folder / "tool.pem", folder / "tool.key"
    )


@pytest.fixture
async def broker(pki: Pki) -> AsyncIterator[FakeBroker]:
    """Serves a fake broker on a free port."""
    fake = FakeBroker()
    server = grpc.aio.server()
    access_service_pb2_grpc.add_AccessServiceServicer_to_server(fake, server)
    key_service_pb2_grpc.add_KeyServiceServicer_to_server(fake, server)
    containment_service_pb2_grpc.add_ContainmentServiceServicer_to_server(fake, server)
    ticket_feed_service_pb2_grpc.add_TicketFeedServiceServicer_to_server(fake, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(fake, server)
    credentials = grpc.ssl_server_credentials(
        [(pki.server_key, pki.server_cert)], pki.ca_file.read_bytes(), require_client_auth=True
    )
    fake.target = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    await server.start()
    yield fake
    await server.stop(None)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Gives the client's clock."""
    return Clock()


@pytest.fixture
def tls(pki: Pki) -> dict[str, Path]:
    """Gives the tool's files as the clients take them."""
    return {"ca_file": pki.ca_file, "cert_file": pki.cert_file, "key_file": pki.key_file}


@pytest.fixture
def connect(broker: FakeBroker, tls: dict[str, Path], clock: Clock):
    """Opens clients of the fake broker."""

    @asynccontextmanager
    async def open_client(token_source=lambda: agent_token("alice"), **options):
        async with BrokerClient(
            broker.target, token_source=token_source, clock=clock, **tls, **options
        ) as client:
            yield client

    return open_client
