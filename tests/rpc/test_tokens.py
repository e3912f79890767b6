"""Tokens and certificates over the wire: whatever is wrong, one sentence, on record, and nothing happens."""

import asyncio
import contextlib
import datetime as dt
import hmac
import json
import ssl
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.dev.ca import SERVER, DevelopmentAuthority
from broker.dev.layout import AGENT_ISSUER, AUDIENCE, HOST, TOOLS, tool_identity
from broker.dev.oidc import DevelopmentIssuer
from broker.v1 import access_service_pb2 as pb
from tests.rpc.company import creation, eventually
from tests.rpc.frames import tls_context
from tests.rpc.test_frames import EMPTY, LIST, OK, Attacker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"
SENTENCE = "Invalid token; get a new one from your identity provider, or a new grant from the broker."
DESK = tool_identity("desk")


def _issuer(company):
    return DevelopmentIssuer.open(AGENT_ISSUER, company.world.layout.idp)


def _claims(company, **change):
    claims = _issuer(company).claims(
        "alice", audience=AUDIENCE, client_id=TOOLS["desk"], groups=["support-tier1"]
    )
    return {name: value for name, value in (claims | change).items() if value is not None}


def _spoiled(token, part):
    """Changes one bit in a part of a token."""
    parts = token.split(".")
    text = bytearray(urlsafe_b64decode(parts[part] + "=="))
    text[len(text) // 2] ^= 1
    parts[part] = urlsafe_b64encode(bytes(text)).rstrip(b"=").decode()
    return ".".join(parts)


def _by_hand(header, claims, secret):
    """Signs with HMAC, which no library does with a public key."""
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    signature = hmac.digest(secret, ".".join(parts).encode(), "sha256")
    return ".".join([*parts, urlsafe_b64encode(signature).rstrip(b"=").decode()])


def _agent_tokens(company):
    """Gives wrong access tokens by what is wrong."""
    issuer = _issuer(company)
    now = int(time.time())
    good = company.token("alice")
    other = DevelopmentIssuer(AGENT_ISSUER)
    elsewhere = DevelopmentIssuer("https://idp.example")
    head = good.split(".", maxsplit=1)[0]
    unsigned = jwt.encode(_claims(company), None, algorithm="none", headers={"typ": "at+jwt"})
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = issuer.public.kid
    return {
        "garbage": "x",
        "two parts": "a.b",
        "empty signature": good.rpartition(".")[0] + ".",
        "five parts": f"{good}.x.y",
        "unsigned": unsigned,
        "signed with the public key": _by_hand(
            {"alg": "HS256", "typ": "at+jwt", "kid": kid}, _claims(company), public
        ),
        "another algorithm": jwt.encode(
            _claims(company), ec.generate_private_key(ec.SECP384R1()), "ES384", {"typ": "at+jwt", "kid": kid}
        ),
        "another key of the same name": jwt.encode(
            _claims(company), other.key, "ES256", {"typ": "at+jwt", "kid": kid}
        ),
        "key of nobody": other.sign(_claims(company)),
        "bit in the header": _spoiled(good, 0),
        "bit in the claims": _spoiled(good, 1),
        "bit in the signature": _spoiled(good, 2),
        "claims of another token": ".".join([head, company.token("bob").split(".")[1], good.split(".")[2]]),
        "expired": issuer.sign(_claims(company, iat=now - 7200, exp=now - 3600)),
        "not yet": issuer.sign(_claims(company, nbf=now + 600)),
        "from the future": issuer.sign(_claims(company, iat=now + 600, exp=now + 1200)),
        "too long a life": issuer.sign(_claims(company, exp=now + 86_400)),
        "another audience": issuer.sign(_claims(company, aud="https://crm.example")),
        "a list of audiences": issuer.sign(_claims(company, aud=[AUDIENCE, "https://crm.example"])),
        "no audience": issuer.sign(_claims(company, aud=None)),
        "another issuer": elsewhere.sign({**_claims(company), "iss": "https://idp.example"}),
        "an issuer with more behind": issuer.sign(_claims(company, iss=AGENT_ISSUER + "/")),
        "no subject": issuer.sign(_claims(company, sub="")),
        "NUL in the subject": issuer.sign(_claims(company, sub="alice\0")),
        "no expiry": issuer.sign(_claims(company, exp=None)),
        "an ID token": issuer.sign(_claims(company), typ="JWT"),
        "a token of the phone app": company.token("alice", "phone"),
        "client nobody knows": issuer.sign(_claims(company, client_id="crm")),
        "no client": issuer.sign(_claims(company, client_id=None)),
        "5 kB": "x" * 5000,
    }


@pytest.mark.attack("J1", "J2", "J4", "J9", "J15", "K12")
async def test_agents_tokens(company):
    """Each wrong access token is refused in the same words, with its cause in the ledger alone."""
    ticket = await company.ticket()
    shapes = set()
    async with company.peer("alice") as peer:
        for sentence, token in _agent_tokens(company).items():
            answer = await peer.call(CREATE, creation(ticket), token=token)
            assert (answer.code, answer.reason, answer.text) == ("UNAUTHENTICATED", "TOKEN_INVALID", SENTENCE)
            leaf = await company.recorded(answer)
            assert (leaf["kind"], leaf["tool"], leaf["agent"]) == ("login_failure", DESK, ""), sentence
            assert leaf["detail"]["cause"], sentence
            shapes.add(answer.shape)
        assert len(shapes) == 1

        assert (await peer.call(CREATE, creation(ticket))).code == "OK"


@pytest.mark.attack("J23")
async def test_authorization_entries(company):
    """Exactly one entry with one scheme, one space and one token; the scheme's case is free."""
    token = company.token("alice")
    wrong = {
        "none": [],
        "two": [f"Bearer {token}", f"Bearer {token}"],
        "comma": [f"Bearer {token}, Bearer {token}"],
        "two spaces": [f"Bearer  {token}"],
        "space behind": [f"Bearer {token} x"],
        "no scheme": [token],
        "another scheme": [f"Basic {token}"],
        "empty": [""],
        "scheme alone": ["Bearer "],
        "DPoP": [f"DPoP {token}"],
    }
    async with company.peer() as peer:
        for sentence, values in wrong.items():
            said = [("authorization", value) for value in values]
            answer = await peer.call("KeyService/GetJwks", metadata=said)
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID"), sentence
            await company.recorded(answer)
        for scheme in ("Bearer", "bearer", "BEARER"):
            answer = await peer.call("KeyService/GetJwks", metadata=[("authorization", f"{scheme} {token}")])
            assert answer.code == "OK"
        # What proxies and other frameworks would look at opens nothing.
        for name in ("x-authorization", "cookie", "proxy-authorization", "x-forwarded-client-cert"):
            answer = await peer.call("KeyService/GetJwks", metadata=[(name, f"Bearer {token}")])
            assert answer.code == "UNAUTHENTICATED"


def _resigned(token, key=None, headers=None, **change):
    """Makes a grant that says something else, signed by whoever has `key`."""
    claims = jwt.decode(token, options={"verify_signature": False}) | change
    head = jwt.get_unverified_header(token) | (headers or {})
    key = None if head["alg"] == "none" else key or ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, key, head["alg"], head)


@pytest.mark.attack("J21", "J24", "J25", "J26")
async def test_grants(company):
    """A grant is good for one agent at one tool's key, until it is revoked; forged ones for nothing."""
    ticket = await company.ticket()
    async with (
        company.peer("alice") as alice,
        company.peer("bob") as bob,
        company.peer("alice", "tool-phone") as phone,
        company.peer("alice", company.authority.client(DESK)) as renewed,
    ):
        granted = await company.grant(alice, ticket)
        token = granted.grant_token

        async def read(peer, grant, *fields, **how):
            request = pb.ReadRecordRequest(grant_token=grant, fields=fields or ["customer.name"])
            return await peer.call(READ, request, **how)

        assert (await read(alice, token)).code == "OK"
        stolen = {
            "another agent": await read(bob, token),
            "another tool": await read(phone, token),
            "another certificate of the tool": await read(renewed, token),
            "forged": await read(alice, _resigned(token)),
            "unsigned": await read(alice, _resigned(token, headers={"alg": "none"})),
            "for another ticket": await read(alice, _spoiled(token, 1)),
            "access token as grant": await read(alice, alice.token),
            "grant as access token": await read(alice, token, token=token),
            "no access token": await read(alice, token, token=""),
        }
        for sentence, answer in stolen.items():
            assert (answer.code, answer.reason, answer.text) == (
                "UNAUTHENTICATED",
                "TOKEN_INVALID",
                SENTENCE,
            ), sentence
            assert (await company.recorded(answer))["kind"] == "login_failure"
        assert len({answer.shape for answer in stolen.values()}) == 1

        padded = await read(alice, token + "=")  # a second spelling of a token is none
        assert (padded.code, padded.fields) == ("INVALID_ARGUMENT", ["grant_token"])

        beyond = await read(alice, token, "customer.name", "customer.email")
        assert (beyond.code, beyond.reason, beyond.fields) == (
            "PERMISSION_DENIED",
            "FIELD_NOT_GRANTED",
            ["fields[1]"],
        )
        await company.recorded(beyond)

        assert (await read(alice, token)).code == "OK"
        revoke = pb.RevokeGrantRequest(grant_id=granted.grant.grant_id)
        assert (await bob.call("AccessService/RevokeGrant", revoke)).reason == "GRANT_NOT_FOUND"
        assert (await alice.call("AccessService/RevokeGrant", revoke)).code == "OK"
        revoked = await read(alice, token)
        assert (revoked.code, revoked.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")
        assert revoked.shape == stolen["another agent"].shape


@pytest.mark.attack("J26")
async def test_grant_after_its_ticket_closed(company):
    """A closed ticket ends its grants at the next read; its last assignee is told why."""
    ticket = await company.ticket()
    async with company.peer("alice") as alice:
        granted = await company.grant(alice, ticket)
        read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        assert (await alice.call(READ, read)).code == "OK"
        await company.world.publish(company.world.helpdesk.close(ticket))

        closed = await alice.call(READ, read)
        assert (closed.code, closed.reason) == ("PERMISSION_DENIED", "TICKET_CLOSED")
        await company.recorded(closed)


@pytest.mark.attack("T1", "T2", "T3", "T4")
async def test_certificates(company):
    """The handshake refuses strangers; a certificate that TLS lets pass but names no tool is refused."""
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    issue = company.authority.issue
    outside = {
        "none": None,
        "another authority": DevelopmentAuthority.create().client(DESK),
        "expired": issue(uris=[DESK], not_before=now - 2 * day, not_after=now - day),
        "server only": issue(uris=[DESK], usages=SERVER),
    }
    inside = {
        "common name": issue(common_name=DESK),
        "two names": issue(uris=[DESK, tool_identity("phone")]),
        "another trust domain": issue(uris=["spiffe://staging.broker.dev/tool/desk"]),
        "no usage": issue(uris=[DESK], usages=()),
        "unknown tool": issue(uris=[tool_identity("crm")]),
    }
    request = creation(await company.ticket())
    for sentence, certificate in outside.items():
        async with company.peer("alice", certificate) as peer:
            assert (await peer.call(CREATE, request)).code == "UNAVAILABLE", sentence
    for sentence, certificate in inside.items():
        async with company.peer("alice", certificate) as peer:
            answer = await peer.call(CREATE, request)
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOOL_IDENTITY_INVALID"), sentence
            assert (await company.recorded(answer))["tool"] == ""

    async with company.peer("alice", company.authority.client(DESK)) as peer:
        assert (await peer.call(CREATE, request)).code == "OK"


@pytest.mark.attack("T7")
async def test_authority_removed_and_certificate_revoked(company, tmp_path):
    """On a connection that stands, a removed authority and a revoked serial count from the next call on."""
    second = DevelopmentAuthority.create("second")
    authorities, revoked = tmp_path / "clients.pem", tmp_path / "revoked.txt"
    authorities.write_bytes(company.authority.cert_pem + second.cert_pem)
    revoked.write_text("# none\n")
    ours, theirs = company.authority.client(DESK), second.client(DESK)
    listener = {**company.listener, "client_ca_file": str(authorities)}
    settings = {"access": listener, "revoked_serials_file": str(revoked)}
    async with (
        company.worker(settings=settings) as worker,
        company.peer("alice", ours, target=worker.target) as one,
        company.peer("alice", theirs, target=worker.target) as other,
    ):
        assert [(await peer.call("KeyService/GetJwks")).code for peer in (one, other)] == ["OK", "OK"]
        authorities.write_bytes(company.authority.cert_pem)
        refused = await other.call("KeyService/GetJwks")
        assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "TOOL_IDENTITY_INVALID")
        assert (await one.call("KeyService/GetJwks")).code == "OK"

        revoked.write_text(f"{ours.serial}\n")
        assert (await one.call("KeyService/GetJwks")).reason == "TOOL_IDENTITY_INVALID"


@pytest.mark.attack("T8")
async def test_old_protocols(company):
    """TLS below 1.2 is refused; 1.2 and 1.3 are served."""
    tls = company.world.layout.client_tls("tool-desk")
    port = int(company.world.access_target.rpartition(":")[2])

    async def handshake(version):
        context = tls_context(tls)
        context.set_ciphers("ALL:@SECLEVEL=0")
        old = version < ssl.TLSVersion.TLSv1_2
        with pytest.warns(DeprecationWarning, match="TLSVersion") if old else contextlib.nullcontext():
            context.minimum_version = context.maximum_version = version
        _, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=HOST)
        writer.transport.abort()

    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, OSError)):
            await handshake(version)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        await handshake(version)


@pytest.mark.attack("T9")
async def test_plaintext_on_the_tls_port(company):
    """Plaintext is hung up on, is not answered in plaintext, and writes nothing into the log."""
    attacker = Attacker(company, company.world.access_target)
    port = int(company.world.access_target.rpartition(":")[2])
    before = company.world.serve.log.stat().st_size
    for noise in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\0\x05hello",
    ):
        for _ in range(50):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(noise)
            try:
                async with asyncio.timeout(5):
                    answer = await reader.read()
            except OSError:
                answer = b""
            assert not answer.startswith((b"HTTP", b"PRI"))
            assert len(answer) < 64  # an alert at most
            writer.transport.abort()
    assert company.world.serve.log.stat().st_size - before < 2000

    async with attacker.connect() as raw:
        assert (await raw.settle(await raw.open(LIST, attacker.carried, body=EMPTY))).status == OK


@pytest.mark.attack("T10")
async def test_silent_connections(company):
    """Connections that say nothing, or half a handshake, keep nobody from being served."""
    attacker = Attacker(company, company.world.access_target)
    port = int(company.world.access_target.rpartition(":")[2])
    pairs = await asyncio.gather(*[asyncio.open_connection(HOST, port) for _ in range(300)])
    try:
        for _, writer in pairs[::2]:
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello begins
        async with asyncio.timeout(5), attacker.connect() as raw:
            assert (await raw.settle(await raw.open(LIST, attacker.carried, body=EMPTY))).status == OK
    finally:
        for _, writer in pairs:
            writer.transport.abort()


@pytest.mark.attack("T11")
async def test_server_key_swapped_while_running(company, tmp_path):
    """New connections get the new certificate, old ones go on; a half-written pair changes nothing."""
    first, second = (company.authority.server("localhost", HOST) for _ in range(2))
    cert, key = first.write(tmp_path, "server")
    listener = {**company.listener, "cert_file": str(cert), "key_file": str(key)}
    async with company.worker(settings={"access": listener}) as worker:
        attacker = Attacker(company, worker.target)

        async def served():
            async with attacker.connect() as raw:
                return raw.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

        def der(issued):
            return issued.certificate.public_bytes(serialization.Encoding.DER)

        async with attacker.connect() as old:
            assert await served() == der(first)
            key.write_bytes(second.key_pem)  # the certificate does not fit it yet
            assert await served() == der(first)
            key.write_bytes(b"-----BEGIN")
            assert await served() == der(first)
            key.write_bytes(second.key_pem)
            cert.write_bytes(second.cert_pem)

            async def swapped():
                return await served() == der(second)

            await eventually(swapped)
            assert (await old.settle(await old.open(LIST, attacker.carried, body=EMPTY))).status == OK


@pytest.mark.attack("T13")
async def test_second_process_on_the_port(company):
    """Another process cannot share the port: with one worker the port is not to be reused."""
    with pytest.raises(AssertionError, match="cannot be bound; is another process on it"):
        async with company.worker(settings={"access": company.listener}, port=company.access_port):
            pass

    async with company.worker() as worker:
        assert worker.why == ""
