"""From PolicyService's messages to the client's values, and nothing else."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from broker.client import policy_values as values
from broker.client import wire
from broker.client.values import AgentName
from broker.v1 import common_pb2
from broker.v1 import policy_service_pb2 as pb


def who_i_am(answer: pb.WhoAmIResponse) -> values.WhoIAm:
    """Gives who calls and what they may do."""
    return values.WhoIAm(
        person=AgentName(answer.person.issuer, answer.person.subject),
        groups=tuple(answer.groups),
        roles=tuple(answer.roles),
        certificate=answer.certificate,
        methods=tuple(answer.methods),
        policy_version=answer.policy_version,
    )


def bundle(policy: values.PolicyText) -> pb.PolicyBundle:
    """Gives the message of a policy."""
    return pb.PolicyBundle(files=policy.files, tests=policy.tests)


def text(message: pb.PolicyBundle) -> values.PolicyText:
    """Gives a policy."""
    return values.PolicyText(dict(message.files), dict(message.tests))


def examination(message: pb.Examination) -> values.Examination:
    """Gives what an examination found."""
    return values.Examination(
        refusals=tuple(message.refusals),
        warnings=tuple(message.warnings),
        widening=tuple(message.widening),
        narrowing=tuple(message.narrowing),
        facts=json.loads(message.facts or "{}"),
    )


def proposal(m: pb.Proposal) -> values.Proposal:
    """Gives a proposal."""
    return values.Proposal(
        proposal_id=m.proposal_id,
        base_version=m.base_version,
        restores_version=m.restores_version,
        digest=m.digest,
        author=AgentName(m.author.issuer, m.author.subject),
        certificate=m.certificate,
        reason=m.reason,
        widens=m.widens,
        create_time=wire.time(m.create_time),
        expire_time=wire.time(m.expire_time),
        state=pb.ProposalState.Name(m.state).removeprefix("PROPOSAL_STATE_").lower(),
        end_person=_person(m.end_person) if m.HasField("end_person") else None,
        end_reason=m.end_reason,
        end_time=_time(m.end_time) if m.HasField("end_time") else None,
        version=m.version,
    )


def proposed(answer: pb.ProposeResponse | pb.RollbackResponse) -> values.Proposed:
    """Gives what came of a draft."""
    return values.Proposed(
        proposal=proposal(answer.proposal) if answer.HasField("proposal") else None,
        examination=examination(answer.examination),
        decision_id=answer.decision_id,
    )


def version(m: pb.PolicyVersion) -> values.PolicyVersion:
    """Gives a version."""
    return values.PolicyVersion(
        version=m.version,
        digest=m.digest,
        tests_digest=m.tests_digest,
        how=m.how,
        base_version=m.base_version,
        restores_version=m.restores_version,
        proposal_id=m.proposal_id,
        author=_person(m.author) if m.HasField("author") else None,
        approver=_person(m.approver) if m.HasField("approver") else None,
        reason=m.reason,
        published_by=m.published_by,
        create_time=wire.time(m.create_time),
    )


def status(answer: pb.GetStatusResponse) -> values.PolicyStatus:
    """Gives the version in force, and the workers."""
    return values.PolicyStatus(
        version=answer.version,
        digest=answer.digest,
        tests_digest=answer.tests_digest,
        alert=answer.alert,
        workers=tuple(
            values.PolicyWorker(
                w.worker,
                w.version,
                wire.time(w.confirm_time),
                _time(w.guard_time) if w.HasField("guard_time") else None,
            )
            for w in answer.workers
        ),
        open_proposals=answer.open_proposals,
        file_digests=dict(answer.file_digests),
    )


def shadow(m: pb.Shadow) -> values.Shadow:
    """Gives a shadow."""
    return values.Shadow(
        shadow_id=m.shadow_id,
        digest=m.digest,
        start_person=_person(m.start_person) if m.HasField("start_person") else None,
        start_time=wire.time(m.start_time),
        end_time=_time(m.end_time) if m.HasField("end_time") else None,
        compared=m.compared,
        differing=m.differing,
        left_out=m.left_out,
        unlisted=m.unlisted,
        trouble=m.trouble,
        count_time=_time(m.count_time) if m.HasField("count_time") else None,
    )


def difference(m: pb.ShadowDifference) -> values.ShadowDifference:
    """Gives where a shadow decides otherwise."""
    return values.ShadowDifference(
        field=m.field,
        active_level=m.active_level,
        shadow_level=m.shadow_level,
        roles=tuple(m.roles),
        ticket_kind=m.ticket_kind,
        purpose=m.purpose,
        uses=m.uses,
        relation=m.relation,
        provenance=m.provenance,
        opened_by=m.opened_by,
        presence=m.presence,
    )


def started_shadow(answer: pb.StartShadowResponse) -> values.StartedShadow:
    """Gives what came of a draft."""
    return values.StartedShadow(
        shadow=shadow(answer.shadow) if answer.HasField("shadow") else None,
        findings=tuple(answer.findings),
        facts=json.loads(answer.facts or "{}"),
        decision_id=answer.decision_id,
    )


class Report(Protocol):
    """An answer with a report in it."""

    @property
    def report(self) -> str:
        """Gives a JSON object."""


def report(answer: Report) -> dict[str, Any]:
    """Gives the object of a report."""
    return dict(json.loads(answer.report))


def _person(message: common_pb2.AgentRef) -> AgentName:
    return AgentName(message.issuer, message.subject)


def _time(message: Timestamp) -> datetime:
    return wire.time(message)
