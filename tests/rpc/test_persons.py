"""Personal services of the admin port: a console's certificate and a person, both allowed, or nobody."""

import pytest

from broker.dev.layout import ADMIN_AUDIENCE, ADMIN_CLIENT, ADMIN_ISSUER, AGENT_ISSUER, CONSOLE_IDENTITY
from broker.dev.oidc import DevelopmentIssuer
from broker.v1 import common_pb2
from broker.v1 import containment_service_pb2 as containment
from broker.v1 import policy_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHO = "PolicyService/WhoAmI"
LIST = "ContainmentService/ListSuspensions"


@pytest.fixture
def issuer(company):
    return DevelopmentIssuer.open(ADMIN_ISSUER, company.world.layout.admin_idp)


def _claims(issuer, **change):
    groups = change.pop("groups", ["security-admins"])
    claims = issuer.claims("anna", audience=ADMIN_AUDIENCE, client_id=ADMIN_CLIENT, groups=groups)
    return claims | change


async def test_a_person_at_a_console(company):
    """Both identities come back, with the roles of the person and what both together may call."""
    async with company.admin("console") as console:
        answer = await console.call(WHO, token=company.world.layout.admin_token("audrey"))
    who = pb.WhoAmIResponse.FromString(answer.data)

    assert answer.code == "OK", answer
    assert (who.person.issuer, who.person.subject) == (ADMIN_ISSUER, "audrey")
    assert list(who.roles) == ["auditor"]
    assert who.certificate == CONSOLE_IDENTITY
    assert "/broker.v1.PolicyService/WhoAmI" in who.methods
    assert "/broker.v1.ContainmentService/ListSuspensions" not in who.methods  # the console's lock is shut


async def test_the_client_of_the_library(company):
    """The library's client says the same."""
    async with company.world.policy("anna") as client:
        who = await client.who_am_i()

    assert who.person.subject == "anna"
    assert who.roles == ("approver", "security-admin")


@pytest.mark.attack("C14")
async def test_two_locks(company, issuer):
    """A person at another certificate, and a stranger at the console, are refused in the same words."""
    anna = company.world.layout.admin_token("anna")
    stranger = issuer.sign(_claims(issuer, groups=["nobody"]))
    async with company.admin("console") as console, company.admin("feed") as feed:
        assert (await console.call(WHO, token=anna)).code == "OK"  # the control arm
        by_feed = await feed.call(WHO, token=anna)
        by_stranger = await console.call(WHO, token=stranger)

    assert by_feed.shape == by_stranger.shape
    assert by_feed.reason == "ADMIN_DENIED"
    assert (await company.recorded(by_stranger))["agent"] == f"{ADMIN_ISSUER}|anna"
    assert (await company.recorded(by_feed))["agent"] == ""  # no token is looked at


async def test_tokens_that_are_no_persons(company, issuer):
    """Machines, agents, other audiences and no token at all are nobody, in one sentence."""
    agents = DevelopmentIssuer.open(AGENT_ISSUER, company.world.layout.idp)
    wrong = {
        "no token": "",
        "a machine": issuer.sign(_claims(issuer, sub=ADMIN_CLIENT)),
        "an agent's token": company.token("alice"),
        "an agent's issuer": agents.sign({**_claims(issuer), "iss": AGENT_ISSUER}),
        "the agents' audience": issuer.sign(_claims(issuer, aud="https://broker.broker.dev")),
        "signed by another": DevelopmentIssuer(ADMIN_ISSUER).sign(_claims(issuer)),
    }
    async with company.admin("console") as console:
        answers = {name: await console.call(WHO, token=token) for name, token in wrong.items()}

    assert {name: answer.reason for name, answer in answers.items()} == dict.fromkeys(wrong, "TOKEN_INVALID")
    assert len({answer.shape for answer in answers.values()}) == 1
    for answer in answers.values():
        leaf = await company.recorded(answer)
        assert (leaf["kind"], leaf["tool"]) == ("login_failure", CONSOLE_IDENTITY)


async def test_containment_goes_on_by_certificate_alone(company):
    """A service that is not personal looks at no token, not even at a wrong one."""
    ref = common_pb2.AgentRef(issuer=AGENT_ISSUER, subject="nobody-here")
    request = containment.SuspendAgentRequest(agent=ref, reason="a drill")
    async with company.admin("admin") as responder:
        assert (await responder.call(LIST)).code == "OK"
        assert (await responder.call("ContainmentService/SuspendAgent", request, token="x")).code == "OK"


async def test_an_administrators_token_is_no_agents(company):
    """The access port takes no administrator's token."""
    async with company.peer("alice") as desk:
        answer = await desk.call(
            "AccessService/ListAssignedTickets", token=company.world.layout.admin_token("anna")
        )

    assert answer.reason == "TOKEN_INVALID"
