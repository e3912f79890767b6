"""Every decision is recorded with everything it saw, so that it can be taken again."""

from __future__ import annotations

import pytest

from broker.model import Facts
from broker.policy import PolicyFiles
from broker.v1 import access_service_pb2 as pb
from tests.published import activate_in
from tests.rpc.company import creation

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"

SEEN = {
    "purpose": "resolve-ticket",
    "relation": "assignee",
    "ticket_kind": "general",
    "provenance": "routed",
    "opened_by": "customer",
    "presence": "absent",
}
CLEAR, WITHHELD = "customer.name", "customer.id_document"


def check(leaf: dict, version: str, fields: dict[str, str]) -> None:
    """Holds what an event tells of its decision against what was so."""
    detail = leaf["detail"]
    assert leaf["policy_version"] == version
    assert detail["facts"] == SEEN
    assert detail["roles"] == ["tier1"]
    assert detail["groups"] == ["support-tier1"]
    assert {name: said[0] for name, said in detail["fields"].items()} == fields
    assert leaf["customer"], "whose exposure it was is what a replay counts"


async def test_grants_reads_and_denials_tell_what_they_saw(company):
    """Facts, roles, mapped groups, policy version, customer and each field's level, on all four kinds."""
    ticket = await company.ticket("alice")
    async with company.peer("alice") as alice:
        granted = await company.grant(alice, ticket, CLEAR, "customer.email", WITHHELD)
        read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=[CLEAR, "customer.email"])
        answer = pb.ReadRecordResponse.FromString((await alice.call(READ, read)).data)
        refused = await alice.call(CREATE, creation(ticket, WITHHELD))
        version = granted.grant.policy_version

        both = {CLEAR: "clear", "customer.email": "masked"}
        check(await company.event(granted.grant.decision_id), version, {**both, WITHHELD: "withheld"})
        check(await company.event(answer.decision_id), version, both)
        check(await company.recorded(refused), version, {WITHHELD: "withheld"})

        tightened = await activate_without(company, ", profile, clear, allow")
        read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=[CLEAR])
        try:
            denied = await alice.call(READ, read)
        finally:
            await activate_without(company, "")
        assert denied.reason == "POLICY_DENIED"
        leaf = await company.recorded(denied)
        check(leaf, tightened, {CLEAR: "withheld"})
        assert leaf["grant"] == granted.grant.grant_id


async def activate_without(company, ending: str) -> str:
    """Makes the policy the active one without the lines of this ending; gives its version."""
    texts = dict(PolicyFiles.from_directory(company.settings()["policies_dir"]).texts)
    if ending:
        lines = texts["policy.csv"].splitlines(keepends=True)
        texts["policy.csv"] = "".join(line for line in lines if not line.rstrip().endswith(ending))
    return await activate_in(company.world, PolicyFiles.from_mapping(texts))


async def test_the_facts_recorded_are_all_there_are():
    """A fact that a rule may see and the ledger does not tell could never be replayed."""
    assert set(Facts.__slots__) - {"kind"} | {"ticket_kind"} == set(SEEN)
