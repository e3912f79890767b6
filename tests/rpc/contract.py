"""Every RPC of the contract: how it is called rightly, and how wrongly; read by test_contract.py.

A new RPC has no entry here, and the coverage test says so.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.dev.layout import AGENT_ISSUER
from broker.v1 import access_service_pb2 as access
from broker.v1 import common_pb2 as common
from broker.v1 import containment_service_pb2 as containment
from broker.v1 import key_service_pb2 as keys
from broker.v1 import ticket_feed_service_pb2 as feed
from tests.rpc.company import Company, creation
from tests.rpc.wire import Answer, Peer

HIDDEN = {
    "empty": "",
    "leading space": " T-1",
    "trailing space": "T-1 ",
    "NFD": "T-e\u0301",
    "NFC": "T-\u00e9",
    "zero width": "T\u200b-1",
    "right to left": "T-\u202e1",
    "Cyrillic": "\u0422-1",
    "NUL": "T-1\0",
    "newline": "T-1\n",
    "carriage return": "T-1\r",
    "SQL": "T-1' OR '1'='1",
    "path": "../T-1",
    "long": "T" * 65,
    "50 kB": "T" * 50_000,
    "soft hyphen": "T\u00ad-1",
    "full width": "\uff34-1",
    "escape": "T-1\x1b[31m",
}
"""Ids that are none (B7)."""

TIMES = {
    "before there were ids": Timestamp(seconds=-1),
    "after all": Timestamp(seconds=253_402_300_799),
    "out of the type's range": Timestamp(seconds=2**62),
    "negative parts": Timestamp(seconds=1_700_000_000, nanos=-1),
}

UUIDS = {
    **HIDDEN,
    "upper case": str(uuid.uuid4()).upper().replace("0", "A"),
    "braces": "{" + str(uuid.uuid4()) + "}",
    "no hyphens": uuid.uuid4().hex,
    "urn": uuid.uuid4().urn,
}
NAMES = {
    **{name: text for name, text in HIDDEN.items() if name not in {"full width", "path", "SQL", "NFC"}},
    "star": "*",
    "every field of a kind": "customer.*",
    "nested path": "customer.name.first",
    "no kind": "name",
    "upper case": "customer.Name",
    "SQL": "customer.name; DROP TABLE crm.customer",
    "digits of another script": "customer.n\u0661",
}
"""Field names that are none (B5)."""

TEXTS = ("", " ", " x", "x ", "x\0", "x\n", "x\u200b", "e\u0301", "\u202ex", "x\x1b[0m", "x" * 60_000)
"""Texts for people that hide something."""


WHY = "test of the contract"
FORGED = {"garbage": "x", "empty": "", "three parts": "a.b.c", "50 kB": "x" * 50_000}


@dataclass(frozen=True)
class Rpc:
    """One RPC: who may call it, with what, and what is wrong."""

    port: str  # access | admin
    right: Callable[[Company], Awaitable[Message]]
    wrong: Mapping[str, tuple[str, Message]] = field(default_factory=dict)  # sentence: (field, request)
    certificate: str = "tool-desk"
    stranger: str = ""  # known on the port, but not allowed this
    person: str = ""  # at the console, where the service is personal
    outsider: str = ""  # a person who is not allowed this
    stream: bool = False
    seconds: float = 5.0  # that the right call may take


async def scenario(rpc: Rpc, name: str, company: Company) -> tuple[Answer, Message]:
    """Calls rightly; gives the answer and what was sent."""
    request = await rpc.right(company)
    async with caller(company, rpc) as peer:
        return await peer.call(name, request, stream=rpc.stream, timeout=rpc.seconds), request


def caller(company: Company, rpc: Rpc) -> Peer:
    """Connects as who may call."""
    if rpc.port == "access":
        return company.peer("alice")
    return company.admin(rpc.certificate, rpc.person)


def ref(issuer: str = AGENT_ISSUER, subject: str = "ivan") -> common.AgentRef:
    """Names an agent."""
    return common.AgentRef(issuer=issuer, subject=subject)


def _sizes(kind: type[Message]) -> dict[str, tuple[str, Message]]:
    return {
        f"page size {number}": ("page_size", kind(page_size=number))
        for number in (-1, 101, -(2**31), 2**31 - 1)
    }


def _tokens(kind: type[Message], length: int) -> dict[str, tuple[str, Message]]:
    texts = {
        "garbage": "x",
        "longer": "0" * (length + 1),
        "not of the alphabet": "!" * length,
        "SQL": ("0' OR 1=1 --" + "0" * length)[:length],
        "NUL": ("\0" * length),
        "digits of another script": "\u0661" * length,
    }
    return {f"page token {name}": ("page_token", kind(page_token=text)) for name, text in texts.items()}


def _agents(kind: type[Message], **more: str) -> dict[str, tuple[str, Message]]:
    wrong: dict[str, tuple[str, Message]] = {"no agent": ("agent.issuer", kind(**more))}
    for n, text in enumerate(TEXTS):
        wrong[f"issuer {n}"] = ("agent.issuer", kind(agent=ref(issuer=text), **more))
        wrong[f"subject {n}"] = ("agent.subject", kind(agent=ref(subject=text), **more))
        wrong[f"reason {n}"] = ("reason", kind(agent=ref(), reason=text))
    wrong["bar in the issuer"] = ("agent.issuer", kind(agent=ref(issuer="https://a|b"), **more))
    return wrong


def _creations() -> dict[str, tuple[str, Message]]:
    wrong: dict[str, tuple[str, Message]] = {}

    def add(sentence: str, name: str, **change: object) -> None:
        request = creation("T-1001")
        for key, value in change.items():
            request.ClearField(key)  # type: ignore[arg-type]
            if isinstance(value, list):
                getattr(request, key).extend(value)
            elif isinstance(value, Duration):
                getattr(request, key).CopyFrom(value)
            else:
                setattr(request, key, value)
        wrong[sentence] = (name, request)

    for name, text in HIDDEN.items():
        add(f"ticket id {name}", "ticket_id", ticket_id=text)
    for name, text in UUIDS.items():
        add(f"request id {name}", "request_id", request_id=text)
    add("request id of another version", "request_id", request_id=str(uuid.uuid1()))
    for name, text in HIDDEN.items():
        add(f"purpose {name}", "purpose", purpose=text)
    add("purpose unknown", "purpose", purpose="curiosity")
    for name, text in NAMES.items():
        add(f"field {name}", "fields[1]", fields=["customer.name", text])
    add("no fields", "fields", fields=[])
    add("a field twice", "fields", fields=["customer.name", "customer.name"])
    add("65 fields", "fields", fields=[f"customer.f{n}" for n in range(65)])
    add("a field 1,500 times", "fields", fields=["customer.name"] * 1500)
    add("unknown field", "fields[0]", fields=["customer.shoe_size"])
    for n, text in enumerate(TEXTS[1:]):
        add(f"customer id {n}", "customer_id", customer_id=text)
        add(f"audience {n}", "audience", audience=text)
    for seconds, nanos in ((0, 0), (-5, 0), (0, -1), (0, 1), (-(2**63), 0)):
        add(
            f"duration {seconds} s {nanos} ns",
            "requested_duration",
            requested_duration=Duration(seconds=seconds, nanos=nanos),
        )
    return wrong


def _revocations() -> dict[str, tuple[str, Message]]:
    revoke = containment.RevokeGrantsRequest
    wrong: dict[str, tuple[str, Message]] = {"no selector": ("selector", revoke(reason=WHY))}
    for n, text in enumerate(TEXTS):
        wrong[f"agent {n}"] = ("agent.subject", revoke(agent=ref(subject=text), reason=WHY))
        wrong[f"reason {n}"] = ("reason", revoke(ticket_id="T-1", reason=text))
    for name, text in HIDDEN.items():
        wrong[f"ticket {name}"] = ("ticket_id", revoke(ticket_id=text, reason=WHY))
    for name, text in UUIDS.items():
        wrong[f"grant {name}"] = ("grant_id", revoke(grant_id=text, reason=WHY))
    return wrong


def _reads() -> dict[str, tuple[str, Message]]:
    read = access.ReadRecordRequest
    wrong: dict[str, tuple[str, Message]] = {"no fields": ("fields", read(grant_token="x"))}
    for n, text in enumerate(("", " x", "x\0", "x" * 16_385, "x" * 60_000, "e\u0301", "x\n")):
        wrong[f"grant {n}"] = ("grant_token", read(grant_token=text, fields=["customer.name"]))
    for name, text in NAMES.items():
        wrong[f"field {name}"] = ("fields[0]", read(grant_token="x", fields=[text]))
    wrong["a field twice"] = ("fields", read(grant_token="x", fields=["customer.name"] * 2))
    return wrong


async def _create(company: Company) -> Message:
    return creation(await company.ticket())


async def _read(company: Company) -> Message:
    async with company.peer("alice") as peer:
        granted = await company.grant(peer, await company.ticket())
    return access.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])


async def _granted(company: Company) -> str:
    async with company.peer("alice") as peer:
        return (await company.grant(peer, await company.ticket())).grant.grant_id


async def _explain(company: Company) -> Message:
    async with company.peer("alice") as peer:
        refused = await peer.call("AccessService/CreateGrant", creation("T-nobody"))
    return access.ExplainDenialRequest(decision_id=refused.decision_id)


def _constant(message: Message) -> Callable[[Company], Awaitable[Message]]:
    async def right(_: Company) -> Message:
        return message

    return right


async def _revoke(company: Company) -> Message:
    return access.RevokeGrantRequest(grant_id=await _granted(company))


async def _status(company: Company) -> Message:
    return access.GetGrantStatusRequest(grant_id=await _granted(company))


async def _event(company: Company) -> Message:
    """A heartbeat changes nothing that other tests rest on; an event twice is a duplicate."""
    ticket = await company.ticket()
    desk = company.world.helpdesk
    return feed.PublishEventsRequest(
        events=[desk.sign({"seq": desk.seq, **desk._described(ticket)})]  # the very event again
    )


async def _beat(company: Company) -> Message:
    return feed.SendHeartbeatRequest(heartbeat=company.world.helpdesk.heartbeat())


async def _snapshot(company: Company) -> Message:
    return feed.ResyncTicketsRequest(events=company.world.helpdesk.snapshot())


CONTRACT: dict[str, Rpc] = {
    "AccessService/CreateGrant": Rpc("access", _create, _creations()),
    "AccessService/ReadRecord": Rpc("access", _read, _reads()),
    "AccessService/RevokeGrant": Rpc(
        "access",
        _revoke,
        {f"id {n}": ("grant_id", access.RevokeGrantRequest(grant_id=text)) for n, text in UUIDS.items()},
    ),
    "AccessService/GetGrantStatus": Rpc(
        "access",
        _status,
        {f"id {n}": ("grant_id", access.GetGrantStatusRequest(grant_id=text)) for n, text in UUIDS.items()},
    ),
    "AccessService/ListAssignedTickets": Rpc(
        "access",
        _constant(access.ListAssignedTicketsRequest(page_size=100)),
        {**_sizes(access.ListAssignedTicketsRequest), **_tokens(access.ListAssignedTicketsRequest, 96)},
    ),
    "AccessService/ExplainDenial": Rpc(
        "access",
        _explain,
        {f"id {n}": ("decision_id", access.ExplainDenialRequest(decision_id=t)) for n, t in UUIDS.items()},
    ),
    "KeyService/GetJwks": Rpc("access", _constant(keys.GetJwksRequest())),
    "ContainmentService/SuspendAgent": Rpc(
        "admin",
        _constant(containment.SuspendAgentRequest(agent=ref(), reason=WHY)),
        _agents(containment.SuspendAgentRequest, reason=WHY),
        certificate="admin",
        stranger="feed",
    ),
    "ContainmentService/ReinstateAgent": Rpc(
        "admin",
        _constant(containment.ReinstateAgentRequest(agent=ref(), reason=WHY)),
        _agents(containment.ReinstateAgentRequest, reason=WHY),
        certificate="admin",
        stranger="feed",
    ),
    "ContainmentService/RevokeGrants": Rpc(
        "admin",
        _constant(containment.RevokeGrantsRequest(agent=ref(), reason=WHY)),
        _revocations(),
        certificate="admin",
        stranger="feed",
    ),
    "ContainmentService/ListSuspensions": Rpc(
        "admin",
        _constant(containment.ListSuspensionsRequest()),
        {**_sizes(containment.ListSuspensionsRequest), **_tokens(containment.ListSuspensionsRequest, 19)},
        certificate="admin",
        stranger="feed",
    ),
    "TicketFeedService/PublishEvents": Rpc(
        "admin",
        _event,
        {
            "no events": ("events", feed.PublishEventsRequest()),
            "501 events": ("events", feed.PublishEventsRequest(events=["x"] * 501)),
        },
        certificate="feed",
        stranger="admin",
    ),
    "TicketFeedService/SendHeartbeat": Rpc("admin", _beat, certificate="feed", stranger="admin"),
    "TicketFeedService/ResyncTickets": Rpc(
        "admin",
        _snapshot,
        {
            "no events": ("events", feed.ResyncTicketsRequest()),
            "501 events": ("events", feed.ResyncTicketsRequest(events=["x"] * 501)),
        },
        certificate="feed",
        stranger="admin",
        stream=True,
    ),
}  # fmt: skip
