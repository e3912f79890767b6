"""PolicyService: protobuf to values and back, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.errors import PolicyInvalidError, VersionNotFoundError
from broker.policy import PolicyHolder
from broker.policy.store import PolicyStore
from broker.publishing import (
    Draft,
    Examination,
    Publisher,
    Reading,
    telling,
)
from broker.rpc import checks
from broker.rpc import policy_messages as messages
from broker.rpc.access import timestamp
from broker.rpc.calls import Call, Method
from broker.rpc.gates import is_personal
from broker.v1 import common_pb2
from broker.v1 import policy_service_pb2 as pb

POLICY = "broker.v1.PolicyService"

EXAMINATION = 220.0
"""Seconds of a call that examines a policy; waiting, examination and replay have a little less."""

DIGEST_LENGTH = 64


class PolicyService:
    """The security admins' service."""

    def __init__(
        self, holder: PolicyHolder, store: PolicyStore, publisher: Publisher, reading: Reading
    ) -> None:
        """Takes the policy in force, and what it translates for."""
        self._holder = holder
        self._store = store
        self._publisher = publisher
        self._reading = reading

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at = f"/{POLICY}/"
        long: dict[str, Any] = {"seconds": EXAMINATION}
        return (
            Method(at + "WhoAmI", pb.WhoAmIRequest, pb.WhoAmIResponse, self._who_am_i),
            Method(at + "Propose", pb.ProposeRequest, pb.ProposeResponse, self._propose, **long),
            Method(at + "Approve", pb.ApproveRequest, pb.ApproveResponse, self._approve, **long),
            Method(at + "Reject", pb.RejectRequest, pb.RejectResponse, self._reject),
            Method(at + "Withdraw", pb.WithdrawRequest, pb.WithdrawResponse, self._withdraw),
            Method(at + "Rollback", pb.RollbackRequest, pb.RollbackResponse, self._roll_back, **long),
            Method(at + "ListProposals", pb.ListProposalsRequest, pb.ListProposalsResponse, self._proposals),
            Method(at + "GetProposal", pb.GetProposalRequest, pb.GetProposalResponse, self._proposal),
            Method(at + "ListVersions", pb.ListVersionsRequest, pb.ListVersionsResponse, self._versions),
            Method(at + "GetVersion", pb.GetVersionRequest, pb.GetVersionResponse, self._version),
            Method(at + "GetStatus", pb.GetStatusRequest, pb.GetStatusResponse, self._status),
        )

    async def _who_am_i(self, call: Call, _: pb.WhoAmIRequest) -> pb.WhoAmIResponse:
        policy, person, certificate = self._holder.current, call.person, call.identity.tool
        await self._looked(call, "who am i")
        theirs = policy.admin.allowed_methods(policy.admin.roles(certificate))
        own = policy.admin.allowed_methods(person.roles)
        return pb.WhoAmIResponse(
            person=common_pb2.AgentRef(issuer=person.agent.issuer, subject=person.agent.subject),
            groups=sorted(person.groups),
            roles=sorted(person.roles),
            certificate=certificate,
            methods=sorted(m for m in theirs if not is_personal(m) or m in own),
            policy_version=policy.version,
        )

    # --- what changes something ------------------------------------------------------------------
    async def _propose(self, call: Call, request: pb.ProposeRequest) -> pb.ProposeResponse:
        draft = Draft(
            bundle=messages.bundle(request.bundle),
            reason=messages.reason(request.reason),
            base=messages.number(request.base_version, "base_version") if request.base_version else 0,
            replaces_tests=request.replaces_tests,
            alone=request.emergency,
        )
        call.decision_id, proposal, found = await self._publisher.propose(messages.by(call), draft)
        return pb.ProposeResponse(
            proposal=messages.proposal(proposal) if proposal else None,
            examination=messages.examination(found),
            decision_id=str(call.decision_id),
        )

    async def _approve(self, call: Call, request: pb.ApproveRequest) -> pb.ApproveResponse:
        digest = checks.bounded(request.digest, "digest", DIGEST_LENGTH)
        reason = messages.reason(request.reason) if request.reason else ""
        call.decision_id, proposal = await self._publisher.approve(
            messages.by(call), checks.uuid(request.proposal_id, "proposal_id"), digest, reason
        )
        return pb.ApproveResponse(proposal=messages.proposal(proposal), decision_id=str(call.decision_id))

    async def _reject(self, call: Call, request: pb.RejectRequest) -> pb.RejectResponse:
        call.decision_id, proposal = await self._publisher.end(
            messages.by(call),
            checks.uuid(request.proposal_id, "proposal_id"),
            messages.reason(request.reason),
            withdraw=False,
        )
        return pb.RejectResponse(proposal=messages.proposal(proposal), decision_id=str(call.decision_id))

    async def _withdraw(self, call: Call, request: pb.WithdrawRequest) -> pb.WithdrawResponse:
        call.decision_id, proposal = await self._publisher.end(
            messages.by(call),
            checks.uuid(request.proposal_id, "proposal_id"),
            messages.reason(request.reason),
            withdraw=True,
        )
        return pb.WithdrawResponse(proposal=messages.proposal(proposal), decision_id=str(call.decision_id))

    async def _roll_back(self, call: Call, request: pb.RollbackRequest) -> pb.RollbackResponse:
        call.decision_id, proposal, found = await self._publisher.roll_back(
            messages.by(call), messages.number(request.version, "version"), messages.reason(request.reason)
        )
        return pb.RollbackResponse(
            proposal=messages.proposal(proposal) if proposal else None,
            examination=messages.examination(found),
            decision_id=str(call.decision_id),
        )

    # --- what only looks -------------------------------------------------------------------------
    async def _proposals(self, call: Call, request: pb.ListProposalsRequest) -> pb.ListProposalsResponse:
        before = checks.uuid(request.page_token, "page_token") if request.page_token else None
        size = checks.page_size(request.page_size)
        await self._looked(call, "list proposals")
        found, more = await self._reading.proposals(ended=request.include_ended, before=before, size=size)
        return pb.ListProposalsResponse(
            proposals=[messages.proposal(proposal) for proposal in found],
            next_page_token=str(found[-1].proposal_id) if more else "",
        )

    async def _proposal(self, call: Call, request: pb.GetProposalRequest) -> pb.GetProposalResponse:
        proposal_id = checks.uuid(request.proposal_id, "proposal_id")
        proposal = await self._publisher.proposal(proposal_id)
        await self._looked(call, "get proposal", proposal=str(proposal_id))
        return pb.GetProposalResponse(
            proposal=messages.proposal(proposal),
            bundle=messages.texts(proposal.bundle),
            examination=messages.examination(Examination.from_mapping(proposal.report)),
        )

    async def _versions(self, call: Call, request: pb.ListVersionsRequest) -> pb.ListVersionsResponse:
        before = messages.number(request.page_token, "page_token") if request.page_token else None
        size = checks.page_size(request.page_size)
        await self._looked(call, "list versions")
        found, more = await self._reading.versions(before=before, size=size)
        return pb.ListVersionsResponse(
            versions=[messages.version(version) for version in found],
            next_page_token=str(found[-1].version) if more else "",
        )

    async def _version(self, call: Call, request: pb.GetVersionRequest) -> pb.GetVersionResponse:
        if request.version:
            number = messages.number(request.version, "version")
            with telling():
                bundle = await self._store.version(number)
            if bundle is None:
                raise VersionNotFoundError
            name = str(number)
        else:
            with telling():
                name, bundle = await self._store.active()
        await self._looked(call, "get version", version=name)
        return pb.GetVersionResponse(version=name, bundle=messages.texts(bundle))

    async def _status(self, call: Call, _: pb.GetStatusRequest) -> pb.GetStatusResponse:
        await self._looked(call, "get status")
        version, alert = await self._store.active_version(), self._holder.alert
        digest = tests_digest = ""
        file_digests: Mapping[str, str] = {}
        try:  # whoever mends a version that is not what was published begins here
            version, bundle = await self._store.active()
            digest, tests_digest = bundle.files.digest, bundle.tests_digest
            file_digests = bundle.file_digests
        except PolicyInvalidError as exc:
            alert = alert or exc.findings[0]
        waiting, _more = await self._reading.proposals(ended=False, before=None, size=checks.MOST_PAGE)
        workers = [
            pb.PolicyWorker(
                worker=w.worker,
                version=str(w.version),
                confirm_time=timestamp(w.confirm_time),
                guard_time=timestamp(w.guard_time) if w.guard_time else None,
            )
            for w in await self._reading.workers()
        ]
        return pb.GetStatusResponse(
            version=version,
            digest=digest,
            tests_digest=tests_digest,
            alert=alert,
            workers=workers,
            open_proposals=len(waiting),
            file_digests=file_digests,
        )

    async def _looked(self, call: Call, act: str, **detail: object) -> None:
        call.policy_version = self._holder.current.version
        call.decision_id = await self._publisher.looked(messages.by(call), act, **detail)
