"""The client of PolicyService, for a person at a console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from broker.client import policy_wire as wire
from broker.client.administration import AdminPort
from broker.client.policy_values import (
    Examination,
    PolicyStatus,
    PolicyText,
    PolicyVersion,
    Proposal,
    Proposed,
    Shadow,
    ShadowDifference,
    StartedShadow,
    WhoIAm,
)
from broker.v1 import policy_service_pb2 as pb
from broker.v1 import policy_service_pb2_grpc

EXAMINATION = 230.0
"""Seconds of a call that examines a policy."""


class PolicyClient(AdminPort):
    """Administers the policy; every call carries the person's token."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = policy_service_pb2_grpc.PolicyServiceStub(self._channel.grpc_channel)
        return self

    async def who_am_i(self) -> WhoIAm:
        """Tells who calls and what they may do."""
        return wire.who_i_am(await self._personal(self._stub.WhoAmI, pb.WhoAmIRequest()))

    async def propose(
        self,
        policy: PolicyText,
        *,
        reason: str,
        base_version: str = "",
        replaces_tests: bool = False,
        emergency: bool = False,
    ) -> Proposed:
        """Examines a policy and lets it wait for an approver.

        Args:
            policy: files and tests.
            reason: why, for the approver and the ledger.
            base_version: the version that it is meant to follow; empty: whichever is in force.
            replaces_tests: tests of the version in force may fail; what holds of them stays, or it widens.
            emergency: bring it into force at once, where it only narrows.
        """
        request = pb.ProposeRequest(
            bundle=wire.bundle(policy),
            reason=reason,
            base_version=base_version,
            replaces_tests=replaces_tests,
            emergency=emergency,
        )
        # Not repeated: each would be a proposal of its own.
        answer = await self._personal(self._stub.Propose, request, timeout=EXAMINATION, safe=False)
        return wire.proposed(answer)

    async def approve(self, proposal_id: str, *, digest: str, reason: str = "") -> Proposal:
        """Brings a proposal into force that somebody else made; safe to repeat."""
        request = pb.ApproveRequest(proposal_id=proposal_id, digest=digest, reason=reason)
        answer = await self._personal(self._stub.Approve, request, timeout=EXAMINATION)
        return wire.proposal(answer.proposal)

    async def reject(self, proposal_id: str, *, reason: str) -> Proposal:
        """Ends a proposal without bringing it into force."""
        request = pb.RejectRequest(proposal_id=proposal_id, reason=reason)
        return wire.proposal((await self._personal(self._stub.Reject, request, safe=False)).proposal)

    async def withdraw(self, proposal_id: str, *, reason: str) -> Proposal:
        """Takes one's own proposal back."""
        request = pb.WithdrawRequest(proposal_id=proposal_id, reason=reason)
        return wire.proposal((await self._personal(self._stub.Withdraw, request, safe=False)).proposal)

    async def roll_back(self, version: str, *, reason: str) -> Proposed:
        """Proposes an old version's content anew; in force at once where it only narrows."""
        request = pb.RollbackRequest(version=version, reason=reason)
        answer = await self._personal(self._stub.Rollback, request, timeout=EXAMINATION, safe=False)
        return wire.proposed(answer)

    async def proposals(self, *, ended: bool = False, page_size: int = 0) -> AsyncIterator[Proposal]:
        """Goes through the proposals that wait, or all, newest first."""
        page = ""
        while True:
            request = pb.ListProposalsRequest(include_ended=ended, page_size=page_size, page_token=page)
            answer = await self._personal(self._stub.ListProposals, request)
            for proposal in answer.proposals:
                yield wire.proposal(proposal)
            page = answer.next_page_token
            if not page:
                return

    async def proposal(self, proposal_id: str) -> tuple[Proposal, PolicyText, Examination]:
        """Gives a proposal with its files and what the examination found."""
        answer = await self._personal(self._stub.GetProposal, pb.GetProposalRequest(proposal_id=proposal_id))
        return wire.proposal(answer.proposal), wire.text(answer.bundle), wire.examination(answer.examination)

    async def versions(self, *, page_size: int = 0) -> AsyncIterator[PolicyVersion]:
        """Goes through the versions, newest first."""
        page = ""
        while True:
            request = pb.ListVersionsRequest(page_size=page_size, page_token=page)
            answer = await self._personal(self._stub.ListVersions, request)
            for version in answer.versions:
                yield wire.version(version)
            page = answer.next_page_token
            if not page:
                return

    async def version(self, version: str = "") -> tuple[str, PolicyText]:
        """Gives a version's number, files and tests; by default those of the one in force."""
        answer = await self._personal(self._stub.GetVersion, pb.GetVersionRequest(version=version))
        return answer.version, wire.text(answer.bundle)

    # --- questions: each answers with an object for JSON ------------------------------------------------
    async def validate(self, policy: PolicyText) -> dict[str, Any]:
        """Says what is wrong or odd with files."""
        request = pb.ValidateRequest(bundle=wire.bundle(policy))
        return wire.report(await self._personal(self._stub.Validate, request, timeout=EXAMINATION))

    async def test(self, policy: PolicyText) -> dict[str, Any]:
        """Runs the tests of a policy, and those of the incident."""
        request = pb.TestRequest(bundle=wire.bundle(policy))
        return wire.report(await self._personal(self._stub.Test, request, timeout=EXAMINATION))

    async def compare(self, policy: PolicyText, *, base_version: str = "") -> dict[str, Any]:
        """Says what would change for people; by default against the version in force."""
        request = pb.CompareRequest(bundle=wire.bundle(policy), base_version=base_version)
        return wire.report(await self._personal(self._stub.Compare, request, timeout=EXAMINATION))

    async def replay(
        self, policy: PolicyText, *, since: datetime, until: datetime | None = None
    ) -> dict[str, Any]:
        """Takes recorded decisions again under a policy; not repeated, because each keeps a core busy."""
        request = pb.ReplayRequest(bundle=wire.bundle(policy))
        request.since.FromDatetime(since)
        if until is not None:
            request.until.FromDatetime(until)
        return wire.report(await self._personal(self._stub.Replay, request, timeout=EXAMINATION, safe=False))

    async def explain(
        self, roles: Sequence[str], facts: Mapping[str, str], fields: Sequence[str], *, version: str = ""
    ) -> dict[str, Any]:
        """Says why a version decides fields as it does, by default the one in force.

        `facts` have their names in the ledger.
        """
        request = pb.ExplainRequest(roles=roles, fields=fields, version=version, **facts)
        return wire.report(await self._personal(self._stub.Explain, request, timeout=EXAMINATION))

    async def who_can(
        self,
        field: str,
        *,
        level: str = "",
        role_sets: Sequence[str] = (),
        version: str = "",
        **facts: str,
    ) -> dict[str, Any]:
        """Says who can see a field by a version, by default the one in force, and under which conditions."""
        request = pb.WhoCanRequest(field=field, level=level, role_sets=role_sets, version=version, **facts)
        return wire.report(await self._personal(self._stub.WhoCan, request, timeout=EXAMINATION))

    async def matrix(self, *, role_sets: Sequence[str] = (), version: str = "") -> dict[str, Any]:
        """Gives the access matrix of a version, by default the one in force: who sees what, everywhere."""
        request = pb.GetMatrixRequest(role_sets=role_sets, version=version)
        return wire.report(await self._personal(self._stub.GetMatrix, request, timeout=EXAMINATION))

    async def status(self) -> PolicyStatus:
        """Tells which version is in force, and which one every worker has."""
        return wire.status(await self._personal(self._stub.GetStatus, pb.GetStatusRequest()))

    # --- a draft beside the version in force, on live traffic, without effect -------------------------
    async def start_shadow(self, policy: PolicyText) -> StartedShadow:
        """Lets a policy run as shadow, in place of the one that runs; its tests are not looked at."""
        request = pb.StartShadowRequest(bundle=wire.bundle(policy))
        # Not repeated: each begins a new count.
        answer = await self._personal(self._stub.StartShadow, request, timeout=EXAMINATION, safe=False)
        return wire.started_shadow(answer)

    async def stop_shadow(self) -> Shadow | None:
        """Ends the shadow that runs and gives it; None where none ran."""
        # Not repeated: it might end the next one.
        answer = await self._personal(self._stub.StopShadow, pb.StopShadowRequest(), safe=False)
        return wire.shadow(answer.shadow) if answer.HasField("shadow") else None

    async def shadow(self, *, most: int = 0) -> tuple[Shadow, list[ShadowDifference]] | None:
        """Gives the shadow that runs, or the last one, and so many differences, most often first.

        None where there never was one.
        """
        answer = await self._personal(self._stub.GetShadow, pb.GetShadowRequest(max_differences=most))
        if not answer.HasField("shadow"):
            return None
        return wire.shadow(answer.shadow), [wire.difference(each) for each in answer.differences]
