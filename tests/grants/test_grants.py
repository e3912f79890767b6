"""Grant tokens: what they say, to whom, and that any JOSE library can read them."""

import json
import uuid

import pytest
from joserfc import jwt as other_jwt
from joserfc.jwk import KeySet as OtherKeySet

from broker import jose
from broker.errors import RequestMalformedError, TokenInvalidError
from broker.grants import CLAIMS, GrantTokens
from broker.keys import KeyFolder, SigningKeys
from broker.model import Agent, Level
from tests.jose.forge import AGENT, BROKER, NOW, TOOL, GrantWorld, with_claim


@pytest.fixture
def world(tmp_path):
    return GrantWorld(tmp_path)


def read_elsewhere(world, token):
    keys = OtherKeySet.import_key_set(json.loads(world.keys.jwks()))
    return other_jwt.decode(token, keys, algorithms=["ES256"])


class TestMint:
    def test_says_what_the_design_says(self, world):
        """Header and claims are exactly these, read by another library from the JWK Set alone."""
        decoded = read_elsewhere(world, world.grants.mint(world.grant()))

        assert decoded.header == {"alg": "ES256", "typ": "broker-grant+jwt", "kid": world.header()["kid"]}
        assert decoded.claims == {
            "iss": BROKER,
            "aud": BROKER,
            "sub": "https://id.example|alice",
            "sub_id": {"format": "iss_sub", "iss": "https://id.example", "sub": "alice"},
            "act": {"sub": "spiffe://support.example/desk"},
            "cnf": {"x5t#S256": "A" * 43},
            "jti": "018f0000-0000-7000-8000-000000000001",
            "iat": 1_800_000_000,
            "nbf": 1_800_000_000,
            "exp": 1_800_000_300,
            "authorization_details": [
                {
                    "type": "broker_record_read",
                    "ticket": "T-1",
                    "purpose": "resolve-ticket",
                    "fields": {"customer.email": "masked", "customer.name": "clear"},
                }
            ],
            "policy_version": "7",
        }
        assert tuple(decoded.claims) == CLAIMS

    async def test_reads_back(self, world):
        """What was granted is what is verified."""
        grant = world.grant()
        claims = await world.accept(world.grants.mint(grant))

        assert claims.grant_id == grant.grant_id
        assert claims.agent == grant.agent
        assert claims.levels == grant.levels
        assert (claims.ticket_id, claims.purpose, claims.policy_version) == ("T-1", "resolve-ticket", "7")
        assert (claims.begin_time, claims.expire_time) == (NOW, NOW + 300)

    def test_no_roles_and_no_trace(self, world):
        """What the token's reader has no need of stays in the database (P10)."""
        token = world.grants.mint(world.grant(roles=frozenset({"sekret-role"}), trace_id="f" * 32))
        text = json.dumps(read_elsewhere(world, token).claims)

        assert "sekret-role" not in text
        assert "f" * 32 not in text

    def test_too_many_fields(self, world):
        """A grant that no request could carry is refused before it is made."""
        levels = {f"customer.field_{n:04}": Level.MASKED for n in range(300)}
        with pytest.raises(RequestMalformedError):
            world.grants.check_length(world.grant(levels=levels))

        few = dict(list(levels.items())[:100])
        world.grants.check_length(world.grant(levels=few))
        assert len(world.grants.mint(world.grant(levels=few))) < jose.MAX_TOKEN_BYTES

    @pytest.mark.parametrize(
        "unusual",
        [
            {"agent": Agent("https://id.example", "auth0|\u00e9|x")},
            {"agent": Agent("https://id.example", "auth0|x")},
            {"agent": Agent("https://id.example", "\u00e9" * 255)},
            {"purpose": "\x01" * 1500},
            {"purpose": '"' * 1500},
            {"purpose": "\\" * 3000},
            {"levels": {f"{n:02}": Level.MASKED for n in range(64)}},
            {"levels": {f"k.{'f' * 60}{n:02}": Level.CLEAR for n in range(64)}},
            {"ticket_id": "T"},
        ],
        ids=[
            "not ASCII",
            "ASCII",
            "much not ASCII",
            "control characters",
            "quotation marks",
            "backslashes",
            "levels",
            "names",
            "little",
        ],
    )
    def test_length_is_exact(self, world, monkeypatch, unusual):
        """What is told before a grant is made is what its token then takes, to the byte."""
        grant = world.grant(**unusual)
        length = len(world.grants.mint(grant))
        monkeypatch.setattr(jose, "MAX_TOKEN_BYTES", length)
        world.grants.check_length(grant)
        monkeypatch.setattr(jose, "MAX_TOKEN_BYTES", length - 1)

        with pytest.raises(RequestMalformedError):
            world.grants.check_length(grant)

    async def test_unusual_subjects(self, world):
        """A subject may hold what separates issuer and subject: it is cut at the first."""
        agent = Agent("https://id.example", "auth0|é|x")
        token = world.grants.mint(world.grant(agent=agent))

        assert world.grants.verify(token, tool=TOOL, agent=agent, audience=BROKER).agent == agent


class TestForm:
    """Whoever holds a key of ours still cannot make a grant of another form."""

    @pytest.mark.parametrize("name", CLAIMS)
    async def test_every_claim_is_needed(self, world, name):
        """A grant without one of its claims, or with one more, is refused."""
        for claims in (world.claims(**{name: None}), {**world.claims(), f"{name}2": 1}):
            with pytest.raises(TokenInvalidError):
                await world.accept(world.token(claims=claims))

        assert await world.accept(world.token())

    @pytest.mark.attack("J15", "J16", "J25")
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("aud", '["https://broker.example"]'),
            ("sub", '"https://id.example|mallory"'),
            ("sub_id", '{"format":"iss_sub","iss":"https://id.example","sub":"mallory"}'),
            ("sub_id", '{"format":"email","iss":"https://id.example","sub":"alice"}'),
            ("sub_id", '{"format":"iss_sub","iss":"https://id.example","sub":"alice","x":1}'),
            ("act", '{"sub":"spiffe://support.example/desk","act":{"sub":"x"}}'),
            ("act", '"spiffe://support.example/desk"'),
            ("cnf", '{"jkt":"AAAA"}'),
            ("cnf", '{"x5t#S256":["A"]}'),
            ("cnf", "{}"),
            ("jti", '"018F0000-0000-7000-8000-000000000001"'),
            ("jti", '"018f0000000070008000000000000001"'),
            ("jti", '"{018f0000-0000-7000-8000-000000000001}"'),
            ("jti", '"one"'),
            ("exp", "1800003601"),
            ("nbf", "1799999999"),
            ("policy_version", "7"),
            ("policy_version", '""'),
            ("authorization_details", "[]"),
            ("authorization_details", "{}"),
            ("authorization_details", "[1]"),
            ("authorization_details",
             '[{"type":"other","ticket":"T-1","purpose":"p","fields":{"a.b":"clear"}}]'),
            ("authorization_details",
             '[{"type":"broker_record_read","ticket":"T-1","purpose":"p","fields":{}}]'),
            ("authorization_details",
             '[{"type":"broker_record_read","ticket":"T-1","purpose":"p","fields":{"a.b":"CLEAR"}}]'),
            ("authorization_details",
             '[{"type":"broker_record_read","ticket":"","purpose":"p","fields":{"a.b":"clear"}}]'),
            ("authorization_details",
             '[{"type":"broker_record_read","ticket":"T-1","purpose":"p","fields":["a.b"]}]'),
        ],
    )  # fmt: skip
    async def test_every_claim_has_one_form(self, world, name, text):
        """A claim of another form is refused though the signature is good."""
        with pytest.raises(TokenInvalidError):
            await world.accept(world.token(claims=with_claim(world.claims(), name, text)))

        same = json.dumps(world.claims()[name])
        assert await world.accept(world.token(claims=with_claim(world.claims(), name, same)))


class TestKeys:
    @pytest.mark.attack("J27", "R8")
    async def test_rotated(self, world, tmp_path):
        """A grant outlives the rotation of its key, and not the key; remembered or not."""
        folder = KeyFolder(tmp_path / "keys")
        old = world.grants.mint(world.grant())
        assert await world.accept(old)
        folder.rotate(world.now)
        world.now += 601
        late = world.grants.mint(world.grant(grant_id=uuid.uuid4()))
        assert jose.peek(late).kid != jose.peek(old).kid
        world.now -= 600  # the old one would be good, were it for its times
        assert world.grants.read(old)
        world.now += 600 + 3900
        with pytest.raises(TokenInvalidError) as caught:
            world.grants.read(old)

        assert caught.value.cause == "kid is unknown"
        assert world.grants.read(late)

    async def test_revoked_key(self, world, tmp_path):
        """A grant that is remembered is refused once its key is revoked."""
        token = world.grants.mint(world.grant())
        assert await world.accept(token)
        KeyFolder(tmp_path / "keys").revoke(jose.peek(token).kid, world.now)
        world.now += 1
        with pytest.raises(TokenInvalidError):
            await world.accept(token)

        assert await world.accept(world.grants.mint(world.grant()))

    async def test_another_broker(self, world, tmp_path):
        """A broker of another name refuses our grants, though it had our keys."""
        token = world.grants.mint(world.grant())
        keys = SigningKeys(tmp_path / "keys", world.clock)
        other = GrantTokens(keys, "https://other.example", world.clock)
        with pytest.raises(TokenInvalidError):
            other.verify(token, tool=TOOL, agent=AGENT, audience=BROKER)

        same = GrantTokens(keys, BROKER, world.clock)
        assert same.verify(token, tool=TOOL, agent=AGENT, audience=BROKER)
