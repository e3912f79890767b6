"""A shadow over the admin port: who may start, end and see one, and what the ledger says of it."""

from __future__ import annotations

import contextlib

import pytest

from broker.client import PolicyText
from broker.dev.layout import ADMIN_AUDIENCE, ADMIN_CLIENT, ADMIN_ISSUER, CONSOLE_IDENTITY
from broker.dev.oidc import DevelopmentIssuer
from broker.v1 import policy_service_pb2 as pb
from tests.replaying.test_shadowing import ASKED, BROKEN, STARTING, allowing_everything
from tests.rpc.company import eventually
from tests.rpc.contract_policy import NAMES

pytestmark = pytest.mark.asyncio(loop_scope="session")

START, STOP, GET = (f"PolicyService/{name}Shadow" for name in ("Start", "Stop", "Get"))


def policy(files) -> PolicyText:
    """Gives files as the client takes them."""
    return PolicyText(files.texts)


def starting(files=STARTING) -> pb.StartShadowRequest:
    """Writes a request."""
    return pb.StartShadowRequest(bundle=pb.PolicyBundle(files=files.texts))


@contextlib.asynccontextmanager
async def running(company, files=STARTING):
    """Lets a shadow run that anna started; gives it."""
    async with company.world.policy("anna") as anna:
        started = await anna.start_shadow(policy(files))
        assert started.shadow is not None, started
        try:
            yield started
        finally:
            await anna.stop_shadow()


def token(company, *groups: str, **change: object) -> str:
    """Signs a token of the administrators' issuer."""
    issuer = DevelopmentIssuer.open(ADMIN_ISSUER, company.world.layout.admin_idp)
    claims = issuer.claims("zoe", audience=ADMIN_AUDIENCE, client_id=ADMIN_CLIENT, groups=list(groups))
    return str(issuer.sign({**claims, **change}))


async def test_from_start_to_end(company):
    """Anna starts it, the live traffic is counted, audrey and boris see it, anna ends it; all on record."""
    async with (
        company.world.policy("anna") as anna,
        company.world.policy("boris") as boris,
        company.world.policy("audrey") as audrey,
        company.peer("alice") as alice,
    ):
        started = await anna.start_shadow(policy(allowing_everything()))
        assert started.shadow is not None, started
        assert (started.findings, started.facts["rules"]) == ((), 20)

        async def counted() -> bool:
            await company.grant(alice, await company.ticket("alice", customers=("31",)), *ASKED)
            found = await audrey.shadow()
            return found is not None and found[0].differing > 0

        await eventually(counted, 15.0)
        shadow, [difference, *_] = await boris.shadow(most=1)
        ended = await anna.stop_shadow()
        again = await anna.stop_shadow()

    assert shadow.shadow_id == started.shadow.shadow_id
    assert (shadow.start_person.issuer, shadow.start_person.subject) == (ADMIN_ISSUER, "anna")
    assert (shadow.digest, shadow.end_time) == (allowing_everything().digest, None)
    assert (difference.active_level, difference.shadow_level) == ("masked", "clear")
    assert (difference.roles, difference.relation, difference.presence) == (("tier1",), "assignee", "absent")
    assert (ended.shadow_id, ended.end_time is None, again) == (shadow.shadow_id, False, None)
    leaf = await company.event(started.decision_id)
    assert (leaf["agent"], leaf["tool"]) == (f"{ADMIN_ISSUER}|anna", CONSOLE_IDENTITY)
    assert leaf["detail"] == {"act": "start shadow", "digest": shadow.digest}
    for who, act in (("anna", "stop shadow"), ("audrey", "get shadow"), ("boris", "get shadow")):
        named = f"{ADMIN_ISSUER}|{who}"
        assert await company.count(f"agent = '{named}' AND leaf LIKE '%\"act\":\"{act}\"%'"), (who, act)


@pytest.mark.attack("C14")
async def test_who_may(company):
    """Approvers, auditors, operators and responders start none and end none; who may look looks."""
    async with running(company) as started, company.admin("console") as console:
        for groups, looks in (
            (["approvers"], "OK"),
            (["auditors"], "OK"),
            (["operators"], "PERMISSION_DENIED"),
            (["incident-responders"], "PERMISSION_DENIED"),
            ([], "PERMISSION_DENIED"),
        ):
            whose = token(company, *groups)
            for name, request in ((START, starting()), (STOP, pb.StopShadowRequest())):
                refused = await console.call(name, request, token=whose)
                assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "ADMIN_DENIED"), groups
                assert (await company.recorded(refused))["agent"] == f"{ADMIN_ISSUER}|zoe"
            assert (await console.call(GET, pb.GetShadowRequest(), token=whose)).code == looks, groups
        found = await console.call(GET, pb.GetShadowRequest(), token=token(company, "auditors"))

    shadow = pb.GetShadowResponse.FromString(found.data).shadow
    assert (shadow.shadow_id, shadow.HasField("end_time")) == (started.shadow.shadow_id, False)


async def test_nobody_and_machines(company):
    """Without a person, with an agent's token or a machine's, no method answers, whatever the certificate."""
    wrong = {
        "no token": "",
        "a machine": token(company, "security-admins", sub=ADMIN_CLIENT),
        "an agent": company.token("alice"),
    }
    requests = {START: starting(), STOP: pb.StopShadowRequest(), GET: pb.GetShadowRequest()}
    async with (
        company.admin("console") as console,
        company.admin("admin") as responder,
        company.admin("feed") as feed,
    ):
        for name, request in requests.items():
            for sentence, whose in wrong.items():
                refused = await console.call(name, request, token=whose)
                assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID"), sentence
                assert (await company.recorded(refused))["kind"] == "login_failure", sentence
            for peer in (responder, feed):
                refused = await peer.call(name, request, token=token(company, "security-admins"))
                assert refused.reason == "ADMIN_DENIED"


async def test_texts_that_are_no_policy(company):
    """They are told with file and line, that somebody tried is on record, and what runs goes on running."""
    files = {
        "a rule that is none": (BROKEN.texts, "policy.csv:1"),
        "nothing but a letter": (dict.fromkeys(NAMES, "x"), "model.conf"),
        "hidden characters": ({**STARTING.texts, "policy.csv": "\u202e"}, "policy.csv:1"),
        "a nest of brackets": ({**STARTING.texts, "catalog.yaml": "[" * 200_000}, "catalog.yaml"),
    }
    async with running(company) as started, company.world.policy("anna") as anna:
        for sentence, (texts, named) in files.items():
            refused = await anna.start_shadow(PolicyText(texts))
            assert refused.shadow is None, sentence
            assert any(named in finding for finding in refused.findings), refused
            assert all(len(finding) < 500 for finding in refused.findings), sentence
            leaf = await company.event(refused.decision_id)
            assert (leaf["outcome"], leaf["reason"]) == ("refused", "POLICY_REFUSED"), sentence
            assert (leaf["agent"], leaf["detail"]["act"]) == (f"{ADMIN_ISSUER}|anna", "start shadow")
            assert leaf["detail"]["refusals"] == len(refused.findings), sentence
        shadow, _ = await anna.shadow()

    assert (shadow.shadow_id, shadow.end_time) == (started.shadow.shadow_id, None)


async def test_texts_that_are_too_large(company):
    """Over a file's bound the request is malformed, over the port's it is not even read."""
    async with company.admin("console", "anna") as console:
        over_file = await console.call(
            START,
            pb.StartShadowRequest(
                bundle=pb.PolicyBundle(files={**STARTING.texts, "policy.csv": "#" * 2_200_000})
            ),
        )
        over_port = await console.call(
            START,
            pb.StartShadowRequest(
                bundle=pb.PolicyBundle(files={**STARTING.texts, "policy.csv": "#" * 5_000_000})
            ),
        )

    assert (over_file.code, over_file.fields) == ("INVALID_ARGUMENT", ["bundle"])
    assert (await company.recorded(over_file))["agent"] == f"{ADMIN_ISSUER}|anna"
    assert over_port.code == "RESOURCE_EXHAUSTED"
