"""PolicyService: protobuf to values and back, nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from broker.errors import PolicyInvalidError, RequestMalformedError, VersionNotFoundError
from broker.policy import PolicyFiles, PolicyHolder
from broker.policy.bundle import Bundle
from broker.policy.store import PolicyStore
from broker.publishing import (
    Administrator,
    Draft,
    Examination,
    Proposal,
    ProposalState,
    Publisher,
    Reading,
    Version,
)
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.calls import Call, Method
from broker.rpc.gates import is_personal
from broker.v1 import common_pb2
from broker.v1 import policy_service_pb2 as pb

POLICY = "broker.v1.PolicyService"

EXAMINATION = 110.0
"""Seconds of a call that examines a policy; the examination itself has a little less."""

VERSION_DIGITS = 15
DIGEST_LENGTH = 64

STATES = {state: pb.ProposalState.Value(f"PROPOSAL_STATE_{state.name}") for state in ProposalState}


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
            bundle=_bundle(request.bundle),
            reason=_reason(request.reason),
            base=_number(request.base_version, "base_version") if request.base_version else 0,
            replaces_tests=request.replaces_tests,
            alone=request.emergency,
        )
        call.decision_id, proposal, found = await self._publisher.propose(_by(call), draft)
        return pb.ProposeResponse(
            proposal=_proposal(proposal) if proposal else None,
            examination=_examination(found),
            decision_id=str(call.decision_id),
        )

    async def _approve(self, call: Call, request: pb.ApproveRequest) -> pb.ApproveResponse:
        digest = checks.bounded(request.digest, "digest", DIGEST_LENGTH)
        reason = _reason(request.reason) if request.reason else ""
        call.decision_id, proposal = await self._publisher.approve(
            _by(call), checks.uuid(request.proposal_id, "proposal_id"), digest, reason
        )
        return pb.ApproveResponse(proposal=_proposal(proposal), decision_id=str(call.decision_id))

    async def _reject(self, call: Call, request: pb.RejectRequest) -> pb.RejectResponse:
        call.decision_id, proposal = await self._publisher.end(
            _by(call),
            checks.uuid(request.proposal_id, "proposal_id"),
            _reason(request.reason),
            withdraw=False,
        )
        return pb.RejectResponse(proposal=_proposal(proposal), decision_id=str(call.decision_id))

    async def _withdraw(self, call: Call, request: pb.WithdrawRequest) -> pb.WithdrawResponse:
        call.decision_id, proposal = await self._publisher.end(
            _by(call), checks.uuid(request.proposal_id, "proposal_id"), _reason(request.reason), withdraw=True
        )
        return pb.WithdrawResponse(proposal=_proposal(proposal), decision_id=str(call.decision_id))

    async def _roll_back(self, call: Call, request: pb.RollbackRequest) -> pb.RollbackResponse:
        call.decision_id, proposal, found = await self._publisher.roll_back(
            _by(call), _number(request.version, "version"), _reason(request.reason)
        )
        return pb.RollbackResponse(
            proposal=_proposal(proposal) if proposal else None,
            examination=_examination(found),
            decision_id=str(call.decision_id),
        )

    # --- what only looks -------------------------------------------------------------------------
    async def _proposals(self, call: Call, request: pb.ListProposalsRequest) -> pb.ListProposalsResponse:
        before = checks.uuid(request.page_token, "page_token") if request.page_token else None
        size = checks.page_size(request.page_size)
        await self._looked(call, "list proposals")
        found, more = await self._reading.proposals(ended=request.include_ended, before=before, size=size)
        return pb.ListProposalsResponse(
            proposals=[_proposal(proposal) for proposal in found],
            next_page_token=str(found[-1].proposal_id) if more else "",
        )

    async def _proposal(self, call: Call, request: pb.GetProposalRequest) -> pb.GetProposalResponse:
        proposal_id = checks.uuid(request.proposal_id, "proposal_id")
        proposal = await self._publisher.proposal(proposal_id)
        await self._looked(call, "get proposal", proposal=str(proposal_id))
        return pb.GetProposalResponse(
            proposal=_proposal(proposal),
            bundle=_texts(proposal.bundle),
            examination=_examination(Examination.from_mapping(proposal.report)),
        )

    async def _versions(self, call: Call, request: pb.ListVersionsRequest) -> pb.ListVersionsResponse:
        before = _number(request.page_token, "page_token") if request.page_token else None
        size = checks.page_size(request.page_size)
        await self._looked(call, "list versions")
        found, more = await self._reading.versions(before=before, size=size)
        return pb.ListVersionsResponse(
            versions=[_version(version) for version in found],
            next_page_token=str(found[-1].version) if more else "",
        )

    async def _version(self, call: Call, request: pb.GetVersionRequest) -> pb.GetVersionResponse:
        if request.version:
            number = _number(request.version, "version")
            bundle = await self._store.version(number)
            if bundle is None:
                raise VersionNotFoundError
            name = str(number)
        else:
            name, bundle = await self._store.active()
        await self._looked(call, "get version", version=name)
        return pb.GetVersionResponse(version=name, bundle=_texts(bundle))

    async def _status(self, call: Call, _: pb.GetStatusRequest) -> pb.GetStatusResponse:
        await self._looked(call, "get status")
        version, bundle = await self._store.active()
        waiting, _more = await self._reading.proposals(ended=False, before=None, size=checks.MOST_PAGE)
        workers = [
            pb.PolicyWorker(
                worker=w.worker,
                version=str(w.version),
                confirm_time=timestamp(w.confirm_time),
                guard_time=_time(w.guard_time),
            )
            for w in await self._reading.workers()
        ]
        return pb.GetStatusResponse(
            version=version,
            digest=bundle.files.digest,
            tests_digest=bundle.tests_digest,
            alert=self._holder.alert,
            workers=workers,
            open_proposals=len(waiting),
        )

    async def _looked(self, call: Call, act: str, **detail: object) -> None:
        call.policy_version = self._holder.current.version
        call.decision_id = await self._publisher.looked(_by(call), act, **detail)


def _by(call: Call) -> Administrator:
    return Administrator(call.person, call.identity.tool, call.trace.trace_id)


def _bundle(message: pb.PolicyBundle) -> Bundle:
    try:
        return Bundle.of(PolicyFiles.from_mapping(message.files), message.tests)
    except PolicyInvalidError:
        raise RequestMalformedError(field="bundle", cause="no bundle") from None


def _texts(bundle: Bundle | None) -> pb.PolicyBundle | None:
    return pb.PolicyBundle(files=dict(bundle.files.texts), tests=dict(bundle.tests)) if bundle else None


def _number(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS and not text.startswith("0")):
        raise RequestMalformedError(field=field, cause="version")
    return int(text)


def _reason(text: str) -> str:
    return checks.bounded(text, "reason", checks.REASON_LENGTH)


def _time(moment: datetime | None) -> Timestamp | None:
    return timestamp(moment) if moment else None


def _ref(key: str) -> common_pb2.AgentRef | None:
    issuer, _, subject = key.partition("|")
    return common_pb2.AgentRef(issuer=issuer, subject=subject) if key else None


def _examination(found: Examination) -> pb.Examination:
    return pb.Examination(
        refusals=found.refusals,
        warnings=found.warnings,
        widening=found.widening,
        narrowing=found.narrowing,
        facts=json.dumps(dict(found.facts), ensure_ascii=False),
    )


def _proposal(p: Proposal) -> pb.Proposal:
    return pb.Proposal(
        proposal_id=str(p.proposal_id),
        base_version=str(p.base_version),
        restores_version=_text(p.restores_version),
        digest=p.digest,
        author=_ref(p.author),
        certificate=p.console,
        reason=p.reason,
        widens=p.widens,
        create_time=timestamp(p.create_time),
        expire_time=timestamp(p.expire_time),
        state=STATES[p.state],
        end_person=_ref(p.end_person),
        end_reason=p.end_reason,
        end_time=_time(p.end_time),
        version=_text(p.version),
    )


def _version(v: Version) -> pb.PolicyVersion:
    return pb.PolicyVersion(
        version=str(v.version),
        digest=v.digest,
        tests_digest=v.tests_digest,
        how=v.how,
        base_version=_text(v.base_version),
        restores_version=_text(v.restores_version),
        proposal_id=_text(v.proposal_id),
        author=_ref(v.author),
        approver=_ref(v.approver),
        reason=v.reason,
        published_by=v.loaded_by,
        create_time=timestamp(v.create_time),
    )


def _text(value: int | UUID | None) -> str:
    return "" if value is None else str(value)
