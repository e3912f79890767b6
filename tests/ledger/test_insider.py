"""What somebody who took over a worker, or its DSN, gets out of the ledger's functions."""

from __future__ import annotations

import uuid
from dataclasses import replace

import asyncpg
import pytest

from broker.ledger import read_arguments, read_values

APPEND = "SELECT reason, leaf FROM broker.append_read($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
APPEND_GROUP = (
    "SELECT reason, leaf FROM broker.append_reads($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[],"
    " $6::bigint[], $7::boolean[], $8::bigint[], $9::integer[], $10::integer[], $11::bytea[])"
)


class TestRefusedGrants:
    @pytest.mark.parametrize("asked", [{"request_hash": b"x" * 32}, {"thumbprint": "another"}])
    async def test_no_pass_beside_a_refusal(self, ground, asked):
        """A request id that is used again is recorded as refused, and no pass leaves with the refusal."""
        case = await ground.case()
        ledger = await ground.ledger()
        first = case.grant()
        control = await ledger.append(first)
        assert control.row["pass"].count("|") == 5
        verdict = await ledger.append(case.grant(request_id=first.request_id, **asked))

        assert verdict.reason == "REQUEST_ID_REUSED"
        assert not verdict.row["pass"]


class TestInventedReads:
    @pytest.mark.parametrize("role", ["broker_access", "broker_reader"])
    @pytest.mark.parametrize("grouped", [False, True])
    async def test_a_read_on_no_grant_names_nobody(self, ground, role, grouped):
        """Through a worker's DSN no read comes on record that names an agent on a grant not theirs."""
        case, victim = await ground.case(), await ground.case()
        ledger = await ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        invented = replace(case.read(grant), grant_id=uuid.uuid4(), agent=victim.agent)
        others = replace(case.read(grant), agent=victim.agent)
        own = case.read(grant)
        conn = await asyncpg.connect(ground.database.dsn(role))
        try:
            told = [
                await conn.fetchrow(APPEND_GROUP, *read_arguments([r]))
                if grouped
                else await conn.fetchrow(APPEND, *read_values(r))
                for r in (invented, others, own)
            ]
        finally:
            await conn.close()

        assert [row["reason"] for row in told] == ["TOKEN_INVALID", "TOKEN_INVALID", ""]
        assert [bool(row["leaf"]) for row in told] == [False, False, True]
        assert await ground.event(invented.id) is None
        assert await ground.event(others.id) is None
        assert (await ground.event(own.id))["agent"] == case.agent


class TestBlanks:
    @pytest.mark.parametrize(
        ("blank", "reason"),
        [("facts_version", "FACTS_STALE"), ("present", "FACTS_STALE"), ("policy_version", "POLICY_STALE")],
    )
    async def test_what_is_not_said_is_not_equal(self, own_ground, blank, reason):
        """A read or grant that leaves out what its decision saw is decided again, never let through."""
        case = await own_ground.case()
        ledger = await own_ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        assert (await ledger.append(case.read(grant))).reason == ""
        assert (await ledger.append(case.read(grant, **{blank: None}))).reason == reason
        assert (await ledger.append(case.grant(**{blank: None}))).reason == reason

    async def test_without_a_policy_nothing_is(self, own_ground):
        """With no active policy a blank version is not the active one."""
        case = await own_ground.case()
        ledger = await own_ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        assert (await ledger.append(case.read(grant))).reason == ""
        await own_ground.conn.execute("SET session_replication_role = replica")  # no trigger minds
        await own_ground.conn.execute("DELETE FROM broker.policy_active")
        assert (await ledger.append(case.read(grant, policy_version=None))).reason == "POLICY_STALE"
        assert (await ledger.append(case.grant(policy_version=None))).reason == "POLICY_STALE"
