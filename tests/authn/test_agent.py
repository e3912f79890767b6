"""Access tokens: which agent, of which issuer, and how little is taken on trust for a second time."""

import pytest

from broker.authn import AgentVerifier, FileKeys
from broker.errors import KeysUnavailableError, StartupError, TokenInvalidError
from broker.jose import KeySet
from broker.model import Agent
from tests.jose.forge import BROKER, ISSUER, NOW, AgentWorld


@pytest.fixture
def world(tmp_path):
    return AgentWorld(tmp_path)


class TestPrincipal:
    async def test_says_what_the_token_says(self, world):
        """Agent, groups, client and expiry are the token's."""
        principal = await world.accept(world.token())

        assert principal.agent == Agent(ISSUER, "alice")
        assert principal.groups == frozenset({"tier1"})
        assert principal.client_id == "desk"
        assert principal.expire_time == NOW + 3600

    async def test_without_groups(self, world):
        """A token that names no groups gives none."""
        principal = await world.accept(world.token(claims=world.claims(groups=None)))

        assert principal.groups == frozenset()

    @pytest.mark.parametrize("groups", ["tier1", [1], [""], [["tier1"]], {"tier1": 1}, [None], ["a\nb"]])
    async def test_groups_of_another_form(self, world, groups):
        """Groups are a list of texts; a single text is not taken for a list."""
        with pytest.raises(TokenInvalidError):
            await world.accept(world.token(claims=world.claims(groups=groups)))

        assert await world.accept(world.token(claims=world.claims(groups=[])))

    async def test_names_of_claims_by_the_block(self, tmp_path):
        """An issuer's block says which claims hold groups and client, and no other is looked at."""
        world = AgentWorld(tmp_path, groups_claim="roles", client_id_claim="azp")
        claims = world.claims(roles=["tier2"], azp="other")
        principal = await world.accept(world.token(claims=claims))
        assert (principal.groups, principal.client_id) == (frozenset({"tier2"}), "other")

        with pytest.raises(TokenInvalidError):
            await world.accept(world.token(claims=world.claims(roles=["tier2"])))

    async def test_lives_too_long(self, tmp_path):
        """A token that lives longer than its issuer's block allows is refused."""
        world = AgentWorld(tmp_path, max_age=600)
        with pytest.raises(TokenInvalidError) as caught:
            await world.accept(world.token(claims=world.claims(exp=int(NOW) + 601)))
        assert caught.value.cause == "lifetime is not accepted"

        assert await world.accept(world.token(claims=world.claims(exp=int(NOW) + 600)))


class TestAuthorizationEntry:
    @pytest.mark.attack("J23")
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda token: [f"Bearer  {token}"],
            lambda token: [f"Bearer\t{token}"],
            lambda token: [f" Bearer {token}"],
            lambda token: [f"Bearer {token} "],
            lambda token: [f"Bearer {token}\n"],
            lambda token: [f"Bearer {token}"] * 2,
            lambda token: [f"Bearer {token}", "Bearer x"],
            lambda token: [f"Bearer {token},Bearer {token}"],
            lambda token: [f"Bearer {token}, {token}"],
            lambda token: [f"Bearer{token}"],
            lambda token: [f"Basic {token}"],
            lambda token: [f"DPoP {token}"],
            lambda token: [f'Bearer "{token}"'],
            lambda token: [token],
            lambda _token: ["Bearer "],
            lambda _token: ["Bearer"],
            lambda _token: [""],
            lambda _token: [],
            lambda token: [f"Bearer {token}" + "A" * 8192],
        ],
    )
    async def test_exactly_one(self, world, spoil):
        """There is exactly one entry, with one scheme, one space and one token."""
        token = world.token()
        with pytest.raises(TokenInvalidError):
            await world.verifier.verify(spoil(token))

        for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
            assert await world.verifier.verify([f"{scheme} {token}"])


class TestIssuers:
    async def test_by_equality_alone(self, tmp_path):
        """Each issuer vouches for its own tokens; one issuer's key signs nothing for another."""
        (tmp_path / "b").mkdir()
        one, two = AgentWorld(tmp_path), AgentWorld(tmp_path / "b")
        second = two.settings.model_copy(update={"issuer": "https://id2.example"})
        sources = {ISSUER: FileKeys(one.jwks), second.issuer: FileKeys(two.jwks)}
        verifier = AgentVerifier([one.settings, second], sources, one.clock)
        for claims in (two.claims(), two.claims(iss="https://id3.example"), two.claims(iss="")):
            with pytest.raises(TokenInvalidError):
                await verifier.verify([f"Bearer {two.token(claims=claims)}"])
        with pytest.raises(TokenInvalidError):
            await verifier.verify([f"Bearer {one.token(claims=one.claims(iss=second.issuer))}"])

        assert (await verifier.verify([f"Bearer {one.token()}"])).agent.issuer == ISSUER
        other = await verifier.verify([f"Bearer {two.token(claims=two.claims(iss=second.issuer))}"])
        assert other.agent == Agent(second.issuer, "alice")

    def test_settings_that_refuse_to_start(self, world):
        """No issuer, two blocks for one, or an issuer that would blur who is who: no start."""
        source = FileKeys(world.jwks)
        barred = world.settings.model_copy(update={"issuer": "https://a|b"})
        for blocks in ([], [world.settings] * 2, [barred]):
            with pytest.raises(StartupError):
                AgentVerifier(blocks, {ISSUER: source, "https://a|b": source}, world.clock)
        with pytest.raises(StartupError):
            AgentVerifier([world.settings], {}, world.clock)

        assert AgentVerifier([world.settings], {ISSUER: source}, world.clock)


class TestRemembering:
    async def test_the_signature_alone(self, world, monkeypatch):
        """The second use of a token costs no signature check, and its time is looked at again."""
        token = world.token()
        assert await world.accept(token)
        monkeypatch.setattr("broker.jose.peek", None)
        assert await world.accept(token)
        world.now += 3600
        with pytest.raises(TokenInvalidError) as caught:
            await world.accept(token)

        assert caught.value.cause == "expired"

    async def test_until_the_key_goes(self, world, tmp_path):
        """A remembered token is refused at the first call after its key has left the file."""
        token = world.token()
        assert await world.accept(token)
        (tmp_path / "other").mkdir()
        other = AgentWorld(tmp_path / "other")
        world.jwks.write_text(other.issuer.jwks())
        with pytest.raises(TokenInvalidError) as caught:
            await world.accept(token)

        assert caught.value.cause == "kid is unknown"
        assert await world.accept(other.token())

    async def test_not_while_keys_are_missing(self, world):
        """A remembered token does not outlive the last moment at which we knew the issuer's keys."""

        class Source:
            down = False
            keys = KeySet.from_jwks(world.issuer.jwks())

            def current(self):
                if self.down:
                    raise KeysUnavailableError
                return self.keys

            async def for_kid(self, kid):
                return self.current()

        source = Source()
        verifier = AgentVerifier([world.settings], {ISSUER: source}, world.clock)
        entry = [f"Bearer {world.token()}"]
        assert await verifier.verify(entry)
        source.down = True
        with pytest.raises(KeysUnavailableError):
            await verifier.verify(entry)
        source.down = False

        assert await verifier.verify(entry)

    async def test_not_before(self, world):
        """A token used too early is not remembered as good, and is good in time."""
        token = world.token(claims=world.claims(nbf=int(NOW) + 60))
        for _ in range(2):
            with pytest.raises(TokenInvalidError):
                await world.accept(token)
        world.now += 60
        assert await world.accept(token)
        world.now = NOW + 50  # ten seconds that clocks may differ
        assert await world.accept(token)
        world.now = NOW + 49
        with pytest.raises(TokenInvalidError) as caught:
            await world.accept(token)

        assert caught.value.cause == "not yet valid"


async def test_audience_is_the_brokers(world):
    """The token was made for us."""
    assert world.settings.audience == BROKER
    with pytest.raises(TokenInvalidError):
        await world.accept(world.token(claims=world.claims(aud="https://crm.example")))

    assert await world.accept(world.token())
