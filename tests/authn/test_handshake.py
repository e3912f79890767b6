"""Client certificates through a real gRPC server: what TLS refuses, and what it lets through to us."""

import asyncio
import datetime as dt
import socket
import ssl
import time

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived

from broker.authn import Authorities, RevokedSerials, ToolVerifier, peer_certificates
from broker.dev.ca import SERVER, DevelopmentAuthority
from broker.errors import ToolIdentityError

DESK = "spiffe://support.example/desk"
OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
METHOD = "/test.Echo/Identify"


class Server:
    """A gRPC server with mutual TLS that answers with the tool's identity."""

    def __init__(self, authority, folder):
        self.authority = authority
        self.folder = folder
        self.reached = 0
        self.revoked = folder / "revoked.txt"
        self.revoked.write_text("")
        self.authorities = folder / "authorities.pem"
        self.authorities.write_bytes(authority.cert_pem)
        self.tools = ToolVerifier(
            "support.example",
            {DESK}.__contains__,
            time.time,
            revoked=RevokedSerials(self.revoked),
            authorities=Authorities(self.authorities),
        )
        handler = grpc.unary_unary_rpc_method_handler(self.identify)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", {"Identify": handler}),)
        )
        own = authority.server("localhost")
        credentials = grpc.ssl_server_credentials(
            [(own.key_pem, own.cert_pem)], authority.cert_pem, require_client_auth=True
        )
        self.port = self.server.add_secure_port("localhost:0", credentials)

    async def identify(self, _request, context):
        self.reached += 1
        try:
            return self.tools.verify(*peer_certificates(context.auth_context())).identity.encode()
        except ToolIdentityError as exc:
            await context.abort(UNAUTHENTICATED, exc.sentence)

    def channel(self, issued):
        """Connects with a certificate, or with none."""
        pair = (issued.key_pem, issued.cert_pem) if issued else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem, *pair)
        return grpc.aio.secure_channel(f"localhost:{self.port}", credentials, [("grpc.enable_retries", 0)])

    async def status(self, channel):
        """Calls once."""
        try:
            answer = await channel.unary_unary(METHOD)(b"", timeout=5)
        except grpc.aio.AioRpcError as exc:
            return exc.code()
        assert answer == DESK.encode()
        return OK

    async def call(self, issued):
        """Connects and calls once."""
        async with self.channel(issued) as channel:
            return await self.status(channel)


@pytest.fixture
async def server(authority, tmp_path):
    made = Server(authority, tmp_path)
    await made.server.start()
    yield made
    await made.server.stop(0)


@pytest.mark.attack("T1")
async def test_refused_by_the_handshake(server, authority):
    """Who has no certificate of our authority, for now and for clients, never reaches our code."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    strangers = {
        "no certificate": None,
        "another authority of the same name": DevelopmentAuthority.create().client(DESK),
        "expired": authority.issue(uris=[DESK], not_before=now - 2 * day, not_after=now - day),
        "not yet valid": authority.issue(uris=[DESK], not_before=now + day, not_after=now + 2 * day),
        "server only": authority.issue(uris=[DESK], usages=SERVER),
    }
    found = {name: await server.call(issued) for name, issued in strangers.items()}
    assert found == dict.fromkeys(strangers, grpc.StatusCode.UNAVAILABLE)
    assert server.reached == 0

    assert await server.call(authority.client(DESK)) is OK


@pytest.mark.attack("T2", "T3", "T4")
@pytest.mark.parametrize(
    "made",
    [
        pytest.param({"common_name": DESK}, id="T2 common name alone"),
        pytest.param({"common_name": DESK, "dns": ["support.example"]}, id="T2 common name and DNS"),
        pytest.param({"uris": [DESK, "spiffe://support.example/phone"]}, id="T3 two names"),
        pytest.param({"uris": ["https://support.example/desk"]}, id="T3 not SPIFFE"),
        pytest.param({"uris": ["spiffe://staging.example/desk"]}, id="T3 another environment"),
        pytest.param({"uris": ["spiffe://support.example/x/../desk"]}, id="T3 dot segments"),
        pytest.param({"uris": ["spiffe://SUPPORT.example/desk"]}, id="T3 upper case"),
        pytest.param({"uris": [DESK], "usages": ()}, id="T4 no extended key usage"),
        pytest.param({"uris": [DESK], "key": "RSA-1024"}, id="T4 RSA-1024"),
        pytest.param({"uris": ["spiffe://support.example/unknown"]}, id="unknown tool"),
    ],
)
async def test_let_through_by_tls(server, authority, made):
    """What gRPC accepts and we must not is refused by us, and it did come through to us."""
    if made.get("key"):
        made = {**made, "key": rsa.generate_private_key(65537, 1024)}  # noqa: S505 - weak on purpose
    assert await server.call(authority.issue(**made)) is UNAUTHENTICATED
    assert server.reached == 1

    assert await server.call(authority.client(DESK)) is OK


async def test_issued_through_others(server, authority):
    """A tool whose authority issues through another sends that one along."""
    middle = DevelopmentAuthority(authority.issue(common_name="intermediate", authority=True, usages=()))
    issued = middle.client(DESK)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem, issued.key_pem, issued.cert_pem + middle.cert_pem
    )
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
        assert await server.status(channel) is OK

    assert await server.call(issued) is grpc.StatusCode.UNAVAILABLE  # the chain has a gap


@pytest.mark.attack("T6")
async def test_revoked_on_an_open_connection(server, authority):
    """A serial that is put on the deny list is refused at the next call on the same connection."""
    stolen, other = authority.client(DESK), authority.client(DESK)
    async with server.channel(stolen) as channel, server.channel(other) as beside:
        assert await server.status(channel) is OK
        server.revoked.write_text(f"{stolen.serial}\n")
        assert await server.status(channel) is UNAUTHENTICATED

        assert await server.status(beside) is OK


class RawClient:
    """A TLS 1.2 client that resumes its session, one call per connection."""

    def __init__(self, server, issued):
        cert, key = issued.write(server.folder, "client")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(cadata=server.authority.cert_pem.decode())
        self.context.load_cert_chain(cert, key)
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["h2"])
        self.port = server.port
        self.session = None

    def call(self):
        """Gives the gRPC status and whether the session was resumed."""
        connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        headers = {
            ":method": "POST", ":scheme": "https", ":path": METHOD, ":authority": "localhost",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        connection.send_headers(1, list(headers.items()))
        connection.send_data(1, b"\0" * 5, end_stream=True)
        raw = socket.create_connection(("localhost", self.port), timeout=5)
        with self.context.wrap_socket(raw, server_hostname="localhost", session=self.session) as tls:
            tls.sendall(connection.data_to_send())
            status = None
            while status is None:
                for event in connection.receive_data(tls.recv(65536)):
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        status = dict(event.headers).get("grpc-status", status)
                tls.sendall(connection.data_to_send())
            self.session = tls.session
            return int(status), tls.session_reused


@pytest.mark.attack("T7")
@pytest.mark.parametrize("ground", ["serial revoked", "authority removed"])
async def test_resumed_session(server, authority, ground):
    """A resumed TLS 1.2 session brings its certificate along, and it is looked at as any other."""
    issued = authority.client(DESK)
    client = RawClient(server, issued)
    assert await asyncio.to_thread(client.call) == (OK.value[0], False)
    assert await asyncio.to_thread(client.call) == (OK.value[0], True)
    if ground == "serial revoked":
        server.revoked.write_text(issued.serial)
    else:
        server.authorities.write_bytes(DevelopmentAuthority.create().cert_pem)
    assert await asyncio.to_thread(client.call) == (UNAUTHENTICATED.value[0], True)
    server.revoked.write_text("")
    server.authorities.write_bytes(authority.cert_pem)

    assert await asyncio.to_thread(client.call) == (OK.value[0], True)
