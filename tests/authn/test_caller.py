"""Tool and agent together, and the clock both are held against."""

import pytest

from broker.authn import Authenticator, SteadyClock, ToolVerifier
from broker.errors import TokenInvalidError, ToolIdentityError
from broker.settings import ToolSettings
from tests.jose.forge import AgentWorld

DESK = "spiffe://support.example/desk"
PHONE = "spiffe://support.example/phone"


@pytest.mark.attack("K12")
async def test_client_belongs_to_the_tool(tmp_path, authority):
    """A tool carries tokens that were issued to its own clients, and no others."""
    world = AgentWorld(tmp_path)
    tools = [
        ToolSettings(identity=DESK, client_ids=("desk",)),
        ToolSettings(identity=PHONE, client_ids=("phone", "phone-beta")),
    ]
    known = {tool.identity for tool in tools}
    world.now = authority.client(DESK).certificate.not_valid_before_utc.timestamp() + 60
    verifier = ToolVerifier("support.example", known.__contains__, world.clock)
    authenticator = Authenticator(verifier, world.verifier, tools)
    desk, phone = authority.client(DESK).cert_pem, authority.client(PHONE).cert_pem

    def entry(client):
        return [f"Bearer {world.token(claims=world.claims(client_id=client))}"]

    for certificate, client in ((phone, "desk"), (desk, "phone"), (desk, "Desk"), (desk, "other")):
        with pytest.raises(TokenInvalidError) as caught:
            await authenticator.authenticate(certificate, entry(client))
        assert "client" in caught.value.cause
    with pytest.raises(ToolIdentityError):
        await authenticator.authenticate(b"", entry("desk"))

    for certificate, client in ((desk, "desk"), (phone, "phone"), (phone, "phone-beta")):
        caller = await authenticator.authenticate(certificate, entry(client))
        assert caller.principal.client_id == client


class TestSteadyClock:
    def test_follows_the_wall(self):
        """While wall and machine agree, the clock is the wall clock."""
        now = {"wall": 1000.0, "steady": 5.0}
        clock = SteadyClock(lambda: now["wall"], lambda: now["steady"])
        now.update(wall=1060.0, steady=65.0)

        assert clock() == 1060.0

    @pytest.mark.attack("W2")
    async def test_wall_clock_set_back(self, tmp_path):
        """A wall clock set back an hour brings no expired token back to life."""
        now = {"wall": 1_800_000_000.0, "steady": 5.0}
        clock = SteadyClock(lambda: now["wall"], lambda: now["steady"])
        world = AgentWorld(tmp_path)
        world.verifier._clock = clock
        token = world.token()
        assert await world.accept(token)
        now.update(wall=now["wall"] + 3600, steady=now["steady"] + 3600)
        with pytest.raises(TokenInvalidError):
            await world.accept(token)
        now["wall"] -= 3600
        with pytest.raises(TokenInvalidError):
            await world.accept(token)

        world.now += 3600
        assert await world.accept(world.token())

    @pytest.mark.attack("W3")
    async def test_wall_clock_set_forward(self, tmp_path):
        """A wall clock a day ahead refuses every token, and none of it stays when it is set right."""
        now = {"wall": 1_800_000_000.0, "steady": 5.0}
        clock = SteadyClock(lambda: now["wall"], lambda: now["steady"])
        world = AgentWorld(tmp_path)
        world.verifier._clock = clock
        token = world.token()
        now["wall"] += 86400
        with pytest.raises(TokenInvalidError):
            await world.accept(token)
        now["wall"] -= 86400

        assert await world.accept(token)
