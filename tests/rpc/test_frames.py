"""Raw HTTP/2 frames against a real server: what grpc takes, what it does not, and what we make of it."""

import asyncio
import contextlib
import zlib

import hpack
import pytest
import pytest_asyncio
from hyperframe.frame import HeadersFrame, PingFrame, PriorityFrame, SettingsFrame

from broker.v1 import access_service_pb2 as pb
from tests.rpc.company import children, creation, eventually, memory
from tests.rpc.frames import Connection, ErrorCodes, Stream, framed, tls_context

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACCESS = "/broker.v1.AccessService/"
LIST = ACCESS + "ListAssignedTickets"
OK, INVALID, DEADLINE, DENIED, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = (
    "0", "3", "4", "7", "8", "12", "13", "16",
)  # fmt: skip
EMPTY = framed(b"")

HANGING = """
import asyncio
from broker.access.service import Access
async def hang(self, *_, **__):
    await asyncio.Event().wait()
Access.explain_denial = hang
"""
"""ExplainDenial never answers by itself."""


class Attacker:
    """A tool that has everything but manners."""

    def __init__(self, company, target, name="tool-desk"):
        self.company = company
        self.target = target
        self.tls = tls_context(company.world.layout.client_tls(name))
        self.token = company.token("alice")

    def connect(self, **how):
        return Connection(self.target, self.tls, **how)

    @property
    def carried(self):
        return [("authorization", f"Bearer {self.token}")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacker(company):
    """Attacks the access port."""
    return Attacker(company, company.world.access_target)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient(company):
    """Another worker, whose calls may take half a second, and where a tool has eight of them at a time."""
    limits = {"call_timeout": 0.5, "peer_concurrency": 8}
    async with company.worker(HANGING, settings=limits) as worker:
        yield worker


async def _good(attacker, connection=None):
    """The control: an ordinary call on the same port."""
    async with attacker.connect() if connection is None else contextlib.nullcontext(connection) as own:
        stream = await own.settle(await own.open(LIST, attacker.carried, body=EMPTY))
    assert stream.status == OK, stream


NAMES = {
    "unknown method": ACCESS + "DeleteEverything",
    "unknown service": "/broker.v1.BackDoorService/CreateGrant",
    "two slashes before": "/" + LIST,
    "no slash before": LIST[1:],
    "lower case": LIST.lower(),
    "slash behind": LIST + "/",
    "query": LIST + "?admin=1",
    "escaped": ACCESS + "%4cistAssignedTickets",
    "dot segments": "/broker.v1.TicketFeedService/../AccessService/ListAssignedTickets",
    "of the admin port": "/broker.v1.ContainmentService/SuspendAgent",
    "empty": "/",
}


@pytest.mark.attack("G1")
async def test_names_that_are_not_exact(company, attacker):
    """A method is found by its exact registered name or not at all; the admin port says no to all alike."""
    async with attacker.connect() as raw:
        for sentence, path in NAMES.items():
            stream = await raw.settle(await raw.open(path, attacker.carried, body=EMPTY))
            refused = stream.status == UNIMPLEMENTED or stream.reset is not None
            assert refused, sentence
            if raw.closed:
                break
    await _good(attacker)

    admin = Attacker(company, company.world.admin_target, "admin")
    async with admin.connect() as raw:
        for sentence, path in NAMES.items():
            if sentence != "of the admin port" and path.startswith("/") and len(path) > 1:
                stream = await raw.settle(await raw.open(path, body=EMPTY))
                assert (stream.status, stream.reason) == (DENIED, "ADMIN_DENIED"), sentence


@pytest.mark.attack("G2")
async def test_http_that_is_not_grpcs(attacker):
    """Other verbs and a missing `te` end the stream; a content type opens nothing and closes nothing."""
    odd = {
        "GET": {"method": "GET"},
        "PUT": {"method": "PUT"},
        "CONNECT": {"method": "CONNECT"},
        "no te": {"without": ["te"]},
        "te gzip": {"te": "gzip"},
    }
    for sentence, how in odd.items():
        async with attacker.connect() as raw:
            stream = await raw.settle(await raw.open(LIST, attacker.carried, body=EMPTY, **how))
            assert stream.status != OK, sentence
            assert not stream.data, sentence
    for how in ({"without": ["content-type"]}, {"content_type": "text/html"}):
        async with attacker.connect() as raw:
            nobody = await raw.settle(await raw.open(LIST, body=EMPTY, **how))
            assert nobody.status != OK
            assert not nobody.data

    await _good(attacker)


@pytest.mark.attack("G4", "X2")
async def test_calls_without_a_message(company, impatient):
    """A stream that never brings its message is over in time, and holds only its own tool's places."""
    attacker = Attacker(company, impatient.target)
    other = Attacker(company, impatient.target, "tool-phone")
    other.token = company.token("bob", "phone")
    async with attacker.connect() as raw:
        held = [await raw.open(LIST, attacker.carried, body=None, end=False) for _ in range(4)]
        held += [
            await raw.open(LIST, attacker.carried, body=framed(b"x", length=9), end=False) for _ in range(4)
        ]
        over = [await raw.settle(await raw.open(LIST, attacker.carried, body=EMPTY)) for _ in range(3)]
        assert {(each.status, each.reason) for each in over} == {(EXHAUSTED, "RATE_LIMITED")}
        await _good(other)  # another tool has its own places

        ended = [await raw.settle(number) for number in held]
        assert {(each.status, each.reason) for each in ended} == {(DEADLINE, "DEADLINE_TOO_SHORT")}
        await _good(attacker, raw)

        bare = await raw.settle(await raw.open(LIST, attacker.carried, body=None, end=True))
        assert (bare.status, bare.reason) == (INVALID, "REQUEST_MALFORMED")
        cut = await raw.settle(await raw.open(LIST, attacker.carried, body=framed(b"abc", length=100)))
        assert cut.status in {INVALID, INTERNAL, EXHAUSTED}
        await _good(attacker, raw)


@pytest.mark.attack("G5", "G6")
async def test_lengths_and_encodings(company, attacker):
    """Lengths beyond the limit, unknown encodings and bombs are refused before they cost memory."""
    access = children(company.world.serve.pid)["access"]
    zipped = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(zipped.compress(b"\0" * 2**20) for _ in range(48)) + zipped.flush()
    assert len(bomb) < 60_000  # it would pass the port's limit as it is
    gzip = [("grpc-encoding", "gzip")]
    tries = {
        "4 GB": (framed(b"x", length=2**32 - 1), [], {EXHAUSTED}),
        "over the limit": (framed(b"\0" * 65_537), [], {EXHAUSTED}),
        "2 MB": (framed(b"\0" * 2**21), [], {EXHAUSTED}),
        "flag without encoding": (framed(b"", flag=1), [], {INTERNAL, UNIMPLEMENTED}),
        "unknown encoding": (framed(b"x", flag=1), [("grpc-encoding", "rot13")], {INTERNAL, UNIMPLEMENTED}),
        "broken gzip": (framed(b"no gzip", flag=1), gzip, {INTERNAL, UNIMPLEMENTED}),
        "bomb": (framed(bomb, flag=1), gzip, {EXHAUSTED, INTERNAL}),
    }
    before = memory(access)
    for sentence, (body, headers, expected) in tries.items():
        async with attacker.connect() as raw:
            # By hand: 2 MB do not fit the window, and are not waited for.
            number = await raw.open(LIST, [*attacker.carried, *headers], body=body[:60_000], end=False)
            if len(body) <= 60_000:
                raw.h2.end_stream(number)
                await raw.flush()
            stream = await raw.settle(number)
            assert stream.status in expected, (sentence, stream)
            assert not stream.data, sentence
    assert memory(access) - before < 20
    async with attacker.connect() as raw:  # grpc takes a reserved flag for none; it opens nothing
        stream = await raw.settle(await raw.open(LIST, body=framed(b"", flag=2)))
        assert stream.status in {UNAUTHENTICATED, INTERNAL, UNIMPLEMENTED}
    await _good(attacker)


@pytest.mark.attack("G8", "G9")
async def test_deadlines(company, impatient):
    """A deadline that has passed, is none, is too long or is not there ends in ours, as DEADLINE_EXCEEDED."""
    attacker = Attacker(company, impatient.target)
    explain = ACCESS + "ExplainDenial"
    body = framed(
        pb.ExplainDenialRequest(decision_id="019ab2f0-7c1e-7000-8000-3f2a9c5d1e77").SerializeToString()
    )
    async with attacker.connect() as raw:
        for timeout in ("99999999H", ""):
            said = [("grpc-timeout", timeout)] if timeout else []
            stream = await raw.settle(await raw.open(explain, [*attacker.carried, *said], body=body))
            assert (stream.status, stream.reason) == (DEADLINE, "DEADLINE_TOO_SHORT"), timeout
        for timeout in ("0n", "1n", "5m"):
            passed = [*attacker.carried, ("grpc-timeout", timeout)]
            stream = await raw.settle(await raw.open(explain, passed, body=body))
            assert stream.status == DEADLINE or stream.reset == ErrorCodes.CANCEL, timeout
        for timeout in ("abc", "-1S", "S", "1", "1" * 30 + "S"):
            stream = await raw.settle(
                await raw.open(explain, [*attacker.carried, ("grpc-timeout", timeout)], body=body)
            )
            assert stream.status in {INTERNAL, DEADLINE} or stream.reset is not None, timeout
            if raw.closed:
                break
    await _good(attacker)


@pytest.mark.attack("G10")
async def test_metadata(attacker):
    """Too many or too long entries are refused, whether grpc counts them or not; ours says which limit."""
    many = [(f"x-{n}", "y") for n in range(100)]
    tries = {
        "100 entries": (many, {"METADATA_TOO_LARGE"}),
        "1,000 entries": ([(f"x-{n}", "y") for n in range(1000)], {"METADATA_TOO_LARGE", ""}),
        "9 KB": ([("x-long", "y" * 9000)], {"METADATA_TOO_LARGE", ""}),
        "17 KB": ([("x-long", "y" * 17_000)], {""}),
    }
    for sentence, (metadata, reasons) in tries.items():
        async with attacker.connect() as raw:
            await _good(attacker, raw)  # from here on grpc's own limits hold, too
            stream = await raw.settle(await raw.open(LIST, [*attacker.carried, *metadata], body=EMPTY))
            assert stream.status == EXHAUSTED or stream.reset is not None, (sentence, stream)
            assert stream.reason in reasons, sentence
    async with attacker.connect() as raw:
        few = [(f"x-{n}", "y") for n in range(40)]
        assert (await raw.settle(await raw.open(LIST, [*attacker.carried, *few], body=EMPTY))).status == OK


@pytest.mark.attack("G10")
async def test_hpack_bomb_before_settings(company, attacker):
    """4,000 references to one long entry, sent before the server's limits hold, are refused all the same."""
    access = children(company.world.serve.pid)["access"]
    before = memory(access)
    encoder = hpack.Encoder()
    usual = [
        (":method", "POST"), (":scheme", "https"), (":path", LIST), (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"), ("te", "trailers"), *attacker.carried,
    ]  # fmt: skip
    block = encoder.encode([*usual, *[("x-bomb", "y" * 3900)] * 4000], huffman=False)
    async with attacker.connect(greet=False) as raw:
        raw.streams[1] = stream = Stream()
        raw.h2.initiate_connection()
        raw.h2.get_next_available_stream_id()
        frames = HeadersFrame(1, data=block, flags=["END_HEADERS"])
        # h2 must know of the stream to understand its answer; its own headers are not sent.
        greeting = raw.h2.data_to_send()
        raw.h2.send_headers(1, usual)
        raw.h2.send_data(1, EMPTY, end_stream=True)
        own = raw.h2.data_to_send()
        data = own[own.rindex(EMPTY) - 9 :]
        raw.writer.write(greeting + frames.serialize() + data)
        await raw.writer.drain()
        await raw.until(lambda: bool(stream.status or stream.reset is not None))
        assert (stream.status, stream.data) == (EXHAUSTED, b"")
        assert stream.reason in {"METADATA_TOO_LARGE", ""}  # ours, or grpc's where it was quicker
    assert memory(access) - before < 60
    await _good(attacker)


@pytest.mark.attack("G13")
async def test_rapid_reset(company, attacker):
    """Thousands of streams that are opened and reset at once run next to nothing; good calls are served."""
    access = children(company.world.serve.pid)["access"]
    before = memory(access)
    body = framed(creation("T-1001").SerializeToString())
    events = await company.count("kind = 'grant'")
    async with attacker.connect() as raw:
        for _ in range(50):
            for _ in range(60):
                if raw.closed:
                    break
                number = raw.h2.get_next_available_stream_id()
                raw.h2.send_headers(number, [
                    (":method", "POST"), (":scheme", "https"), (":path", ACCESS + "CreateGrant"),
                    (":authority", "127.0.0.1"), ("content-type", "application/grpc"), ("te", "trailers"),
                    *attacker.carried,
                ])  # fmt: skip
                raw.h2.reset_stream(number, ErrorCodes.CANCEL)
            await raw.flush()
        await _good(attacker)
    assert memory(access) - before < 100
    assert await company.count("kind = 'grant'") == events
    assert body  # never sent: a grant needs its message


@pytest.mark.attack("G14")
async def test_answers_that_are_not_taken(company, impatient):
    """Answers kept back by a closed window count as calls under way: the tool's places bound the memory."""
    attacker = Attacker(company, impatient.target)
    other = Attacker(company, impatient.target, "tool-phone")
    other.token = company.token("bob", "phone")
    before = memory(impatient.pid)
    async with attacker.connect(window=0) as raw:
        numbers = [await raw.open(LIST, attacker.carried, body=EMPTY) for _ in range(100)]
        refused = [raw.streams[number] for number in numbers]
        await raw.until(lambda: sum(stream.reason == "RATE_LIMITED" for stream in refused) >= 92)
        await _good(other)
        assert memory(impatient.pid) - before < 20
        assert sum(stream.status == "" for stream in refused) == 8

    async with attacker.connect() as raw:  # the connection's end gave the places back

        async def free():
            return (await raw.settle(await raw.open(LIST, attacker.carried, body=EMPTY))).status == OK

        await eventually(free)


@pytest.mark.attack("G16")
@pytest.mark.parametrize("kind", ["PING", "SETTINGS", "PRIORITY"])
async def test_floods_of_control_frames(company, attacker, kind):
    """A flood of frames that ask for nothing ends the connection, or costs nobody else anything."""
    access = children(company.world.serve.pid)["access"]
    before = memory(access)
    frame = {
        "PING": PingFrame(0, opaque_data=b"12345678"),
        "SETTINGS": SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 16_384}),
        "PRIORITY": PriorityFrame(1, depends_on=0, stream_weight=7),
    }[kind].serialize()
    async with attacker.connect() as raw:
        for _ in range(20):
            if raw.closed:
                break
            try:
                raw.writer.write(frame * 500)
                await raw.writer.drain()
            except OSError:
                break
        async with asyncio.timeout(5):
            await _good(attacker)
        if kind == "PING":
            await raw.until(lambda: raw.goaway is not None)
            assert raw.goaway in {ErrorCodes.ENHANCE_YOUR_CALM, None}
    assert memory(access) - before < 60
