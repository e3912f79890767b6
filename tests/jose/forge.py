"""Tokens made by hand, byte for byte: what no library would sign is what has to be refused."""

import base64
import datetime as dt
import json
import uuid

from cryptography.hazmat.primitives.asymmetric import ec

from broker import jose
from broker.authn import AgentVerifier, FileKeys
from broker.dev.oidc import DevelopmentIssuer
from broker.grants import GrantTokens
from broker.keys import FileSigner, KeyFolder, SigningKeys
from broker.model import Agent, Grant, Level, Tool
from broker.settings import IssuerSettings

NOW = 1_800_000_000.0
ISSUER = "https://id.example"
BROKER = "https://broker.example"
AGENT = Agent(ISSUER, "alice")
TOOL = Tool("spiffe://support.example/desk", "A" * 43)


def base64url(data):
    """Encodes without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def raw(part):
    """Gives a part's bytes: bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode("utf-8", "surrogatepass")
    return json.dumps(part).encode()


def forge(header, claims, sign):
    """Puts a token together; `sign` gets the signing input."""
    signing_input = f"{base64url(raw(header))}.{base64url(raw(claims))}"
    return f"{signing_input}.{base64url(sign(signing_input.encode()))}"


def with_claim(claims, name, text):
    """Gives the claims as JSON text with one member spelt exactly so."""
    members = [f"{json.dumps(n)}:{json.dumps(v)}" for n, v in claims.items() if n != name]
    return "{" + ",".join([*members, f"{json.dumps(name)}:{text}"]) + "}"


class World:
    """One verifier with its keys and a clock: what the agent's and the grant's tokens have in common."""

    typ = ""

    def __init__(self):
        self.now = NOW
        self.key = ec.generate_private_key(ec.SECP256R1())

    def clock(self):
        """Gives the world's time."""
        return self.now

    @property
    def public(self):
        """Gives the public half of the signing key."""
        return self.key.public_key()

    def header(self, **changes):
        """Gives a good header, changed; None takes a member away."""
        kid = jose.key_from_public(self.public).kid
        members = {"alg": "ES256", "typ": self.typ, "kid": kid, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, data):
        """Signs with the good key."""
        return FileSigner("", self.key).sign(data)

    def token(self, header=None, claims=None, sign=None):
        """Makes a token, good where nothing is given."""
        return forge(
            self.header() if header is None else header,
            self.claims() if claims is None else claims,
            sign or self.sign,
        )


class AgentWorld(World):
    """An issuer of agents' tokens, and the verifier that is told of it."""

    typ = "at+jwt"

    def __init__(self, folder, **block):
        super().__init__()
        self.issuer = DevelopmentIssuer(ISSUER, self.key)
        self.jwks = folder / "issuer.json"
        self.jwks.write_text(self.issuer.jwks())
        fields = {"issuer": ISSUER, "audience": BROKER, "algorithms": ("ES256",), "jwks_file": self.jwks}
        self.settings = IssuerSettings(**{**fields, **block})
        self.verifier = AgentVerifier([self.settings], {ISSUER: FileKeys(self.jwks)}, self.clock)

    def claims(self, **changes):
        """Gives good claims, changed; None takes one away."""
        good = self.issuer.claims("alice", audience=BROKER, client_id="desk", groups=["tier1"], now=self.now)
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    async def accept(self, token):
        """Verifies as the broker does."""
        return await self.verifier.verify([f"Bearer {token}"])


class GrantWorld(World):
    """The broker's own keys, and its grants."""

    typ = "broker-grant+jwt"

    def __init__(self, folder, **_):
        super().__init__()
        keys = KeyFolder(folder / "keys")
        first = keys.rotate(self.now, immediately=True)
        self.key = keys.private_key(first.kid)
        self.keys = SigningKeys(keys, self.clock)
        self.grants = GrantTokens(self.keys, BROKER, self.clock)

    def grant(self, **changes):
        """Gives a grant as the database would hold it."""
        start = dt.datetime.fromtimestamp(self.now, dt.UTC)
        fields = {
            "grant_id": uuid.UUID("018f0000-0000-7000-8000-000000000001"),
            "agent": AGENT,
            "tool_identity": TOOL.identity,
            "tool_thumbprint": TOOL.thumbprint,
            "ticket_id": "T-1",
            "purpose": "resolve-ticket",
            "audience": BROKER,
            "levels": {"customer.email": Level.MASKED, "customer.name": Level.CLEAR},
            "policy_version": "7",
            "create_time": start,
            "expire_time": start + dt.timedelta(seconds=300),
            "roles": frozenset({"tier1"}),
            "trace_id": "",
        }
        return Grant(**{**fields, **changes})

    def claims(self, **changes):
        """Gives the claims of a good grant, changed; None takes one away."""
        payload = self.grants.mint(self.grant()).split(".")[1]
        good = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    async def accept(self, token):
        """Verifies as the broker does."""
        return self.grants.verify(token, tool=TOOL, agent=AGENT, audience=BROKER)
