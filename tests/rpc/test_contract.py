"""Every RPC of the descriptors: registered, closed to strangers, strict about its message, and of use."""

import importlib
import pkgutil

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from broker import v1
from broker.rpc import access, admin
from tests.rpc import contract, contract_audit, contract_policy
from tests.rpc.company import creation, eventually
from tests.rpc.contract import FORGED, caller, scenario

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTRACT = {**contract.CONTRACT, **contract_audit.CONTRACT, **contract_policy.CONTRACT}


def described():
    """Gives every RPC that a file of `broker.v1` describes, with its descriptor."""
    found = {}
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"broker.v1.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                found |= {f"{service.name}/{method.name}": method for method in service.methods}
    return found


RPCS = described()
rpc_names = pytest.mark.parametrize("name", sorted(RPCS))


async def test_every_rpc_has_its_tests():
    """An RPC that the descriptors name and the table does not, or the other way round, fails here."""
    assert set(CONTRACT) == set(RPCS)

    assert {f"broker.v1.{name}" for name in RPCS} == {*access.METHOD_NAMES, *admin.METHOD_NAMES}
    # What a request can hold wrongly is tried, unless there is nothing or only signed events in it.
    bare = {name for name in RPCS if not CONTRACT[name].wrong}
    assert bare == {
        "AuditService/GetCheckpoint",
        "KeyService/GetJwks",
        "TicketFeedService/SendHeartbeat",
        "PolicyService/WhoAmI",
        "PolicyService/GetStatus",
        "PolicyService/StopShadow",
    }
    streams = {name for name, method in RPCS.items() if method.client_streaming}
    assert streams == {name for name, rpc in CONTRACT.items() if rpc.stream}


@pytest.mark.attack("B3", "B8")
@rpc_names
async def test_types_of_requests(name):
    """No request holds an enum, a float or a free structure: there is nothing to be unspecified or NaN."""
    seen, open_ = [], [RPCS[name].input_type]
    while open_:
        message = open_.pop()
        seen.append(message.full_name)
        for field in message.fields:
            assert field.type not in {field.TYPE_ENUM, field.TYPE_FLOAT, field.TYPE_DOUBLE, field.TYPE_GROUP}
            if field.message_type is not None and field.message_type.full_name not in seen:
                open_.append(field.message_type)
    free = {f"google.protobuf.{kind}" for kind in ("Any", "Struct", "Value", "ListValue", "FieldMask")}
    assert not free & set(seen)

    bundle = {f"broker.v1.PolicyBundle{entry}" for entry in ("", ".FilesEntry", ".TestsEntry")}
    plain = {
        *bundle,
        "broker.v1.AgentRef",
        "broker.v1.EventFilter",
        "broker.v1.SpanAttribute",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
    }
    assert set(seen) <= {RPCS[name].input_type.full_name, *plain}


@rpc_names
async def test_scenario(company, name):
    """The right caller with the right request gets the contract's answer."""
    answer, _ = await scenario(CONTRACT[name], name, company)

    assert answer.code == "OK", answer
    kind = RPCS[name].output_type._concrete_class
    assert not UnknownFieldSet(kind.FromString(answer.data))


@rpc_names
async def test_unauthenticated(company, name):
    """Without the port's own credentials every RPC answers UNAUTHENTICATED, on record."""
    rpc = CONTRACT[name]
    request = await rpc.right(company)
    attempts = []
    if rpc.port == "access":
        async with company.peer() as nobody:
            attempts.append((await nobody.call(name, request), "TOKEN_INVALID"))
        for certificate in ("admin", "feed"):  # an administrator is no tool, whatever token it holds
            async with company.peer(certificate=certificate) as stranger:
                refused = await stranger.call(name, request, token=company.token("alice"))
                attempts.append((refused, "TOOL_IDENTITY_INVALID"))
    else:
        for tool in ("tool-desk", "tool-phone"):
            async with company.admin(tool) as stranger:
                refused = await stranger.call(name, request, token=company.token("alice"), stream=rpc.stream)
                attempts.append((refused, "TOOL_IDENTITY_INVALID"))
    if rpc.person:
        async with company.admin(rpc.certificate) as console:
            nobody = await console.call(name, request)
            an_agent = await console.call(name, request, token=company.token("alice"))
            attempts += [(nobody, "TOKEN_INVALID"), (an_agent, "TOKEN_INVALID")]
    for answer, reason in attempts:
        assert (answer.code, answer.reason) == ("UNAUTHENTICATED", reason)
        leaf = await company.recorded(answer)
        assert (leaf["kind"], leaf["detail"]["method"]) == ("login_failure", f"/broker.v1.{name}")

    assert (await scenario(rpc, name, company))[0].code == "OK"


@pytest.mark.parametrize("name", sorted(name for name, rpc in CONTRACT.items() if rpc.stranger))
async def test_forbidden(company, name):
    """An identity that the port knows calls only what the table allows its role; the refusal is on record."""
    rpc = CONTRACT[name]
    async with company.admin(rpc.stranger) as stranger:
        answer = await stranger.call(name, await rpc.right(company), stream=rpc.stream)

    assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "ADMIN_DENIED")
    assert (await company.recorded(answer))["detail"]["method"] == f"/broker.v1.{name}"


@pytest.mark.parametrize("name", sorted(name for name, rpc in CONTRACT.items() if rpc.outsider))
async def test_forbidden_person(company, name):
    """At a console that may call it, a person whose roles may not is refused, on record by name."""
    rpc = CONTRACT[name]
    async with company.admin(rpc.certificate, rpc.outsider) as console:
        answer = await console.call(name, await rpc.right(company))

    assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "ADMIN_DENIED")
    assert (await company.recorded(answer))["agent"].endswith(f"|{rpc.outsider}")


@pytest.mark.attack("B4", "B5", "B6", "B7")
@pytest.mark.parametrize("name", sorted(name for name, rpc in CONTRACT.items() if rpc.wrong))
async def test_malformed_fields(company, name):
    """A request that is out of its bounds is INVALID_ARGUMENT, names the field alone, and is on record."""
    rpc = CONTRACT[name]
    async with caller(company, rpc) as peer:
        for sentence, (field, request) in rpc.wrong.items():
            answer = await peer.call(name, request, stream=rpc.stream)
            assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", [field]), sentence
            assert answer.reason in {"REQUEST_MALFORMED", "FIELD_UNKNOWN", "PURPOSE_UNKNOWN"}, sentence
            assert "T-1" not in answer.text, sentence
            assert len(answer.status.SerializeToString()) < 600, sentence
            leaf = await company.recorded(answer)
            assert leaf["kind"] == "denial", sentence
            assert len(str(leaf)) < 900, sentence


@pytest.mark.parametrize("name", ["PublishEvents", "SendHeartbeat", "ResyncTickets"])
async def test_unsigned_events(company, name):
    """What is no signed event is refused as a whole, and the event is named."""
    name = f"TicketFeedService/{name}"
    kind = RPCS[name].input_type._concrete_class
    async with company.admin("feed") as feed:
        for sentence, text in FORGED.items():
            request = kind(heartbeat=text) if name.endswith("Heartbeat") else kind(events=[text])
            answer = await feed.call(name, request, stream=CONTRACT[name].stream)
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID"), sentence
            assert answer.fields == (["heartbeat"] if name.endswith("Heartbeat") else ["events[0]"])
            await company.recorded(answer)


GARBAGE = {
    "bad varint": b"\xff" * 11,
    "truncated": b"\x0a\x20abc",
    "text in bad UTF-8": b"\x0a\x02\xc3\x28",
    "text with a lone surrogate": b"\x0a\x03\xed\xa0\x80",
    "end without a group": b"\x0c",
    "groups 10,000 deep": b"\x7b" * 10_000,
    "groups 101 deep": b"\x7b" * 101 + b"\x7c" * 101,
    "length of 4 GB": b"\x0a\xff\xff\xff\xff\x0f",
}


@pytest.mark.attack("B1")
@rpc_names
async def test_garbage(company, name):
    """Bytes that are no message are INVALID_ARGUMENT without a word of the parser's, on record."""
    rpc = CONTRACT[name]
    right = (await rpc.right(company)).SerializeToString()
    first = RPCS[name].input_type.fields_by_number.get(1)
    is_text = first is not None and first.type == first.TYPE_STRING
    async with caller(company, rpc) as peer:
        for sentence, data in GARBAGE.items():
            if "text" in sentence and not is_text:
                continue
            answer = await peer.call(name, right + data, stream=rpc.stream)
            assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED"), sentence
            assert "broker.v1" not in answer.text, sentence
            assert (await company.recorded(answer))["detail"]["cause"] == "protobuf", sentence

        again = await peer.call(name, right, stream=rpc.stream, timeout=rpc.seconds)
        assert again.code == "OK"


@pytest.mark.attack("B1")
@pytest.mark.parametrize("name", sorted(name for name, method in RPCS.items() if method.input_type.fields))
async def test_wrong_wire_type(company, name):
    """A known field in another wire type would be read as absent; it is refused by its name."""
    rpc = CONTRACT[name]
    right = await rpc.right(company)
    data = right.SerializeToString()
    async with caller(company, rpc) as peer:
        for field in RPCS[name].input_type.fields:
            tag = (field.number << 3) | 5  # 32 bits: no field of ours is one
            answer = await peer.call(name, data + bytes([tag]) + b"\0\0\0\0", stream=rpc.stream)
            assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", [field.name])

        # A newer client's field is not ours to judge: it passes unread.
        newer = bytes([0xFA, 0x06, 0x01]) + b"x"
        answer = await peer.call(name, data + newer, stream=rpc.stream, timeout=rpc.seconds)
        assert answer.code == "OK", answer


async def test_ten_megabytes(company):
    """A message over the port's limit is refused by its announced length, and that is on record, too."""

    async def refused():
        return await company.count('leaf LIKE \'%"cause":"no message"%\'')

    before = await refused()
    async with company.peer("alice") as peer:
        answer = await peer.call("AccessService/CreateGrant", creation("T" * 10_000_000))
        assert (answer.code, answer.trailers) == ("RESOURCE_EXHAUSTED", ())  # grpc's own words
        await eventually(lambda: _differs(refused, before))

        right = creation(await company.ticket())
        assert (await peer.call("AccessService/CreateGrant", right)).code == "OK"


async def _differs(count, before):
    return await count() != before
