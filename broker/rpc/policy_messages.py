"""PolicyService's messages: from protobuf to values, checked, and back."""

from __future__ import annotations

import json
from datetime import datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from broker.errors import PolicyInvalidError, RequestMalformedError
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.publishing import Administrator, Examination, Proposal, ProposalState, Version
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.calls import Call
from broker.v1 import common_pb2
from broker.v1 import policy_service_pb2 as pb

VERSION_DIGITS = 15

STATES = {state: pb.ProposalState.Value(f"PROPOSAL_STATE_{state.name}") for state in ProposalState}


def by(call: Call) -> Administrator:
    """Gives the person at the console, in this call."""
    return Administrator(call.person, call.identity.tool, call.trace.trace_id)


def bundle(message: pb.PolicyBundle) -> Bundle:
    """Reads a policy with its tests."""
    try:
        return Bundle.of(PolicyFiles.from_mapping(message.files), message.tests)
    except PolicyInvalidError:
        raise RequestMalformedError(field="bundle", cause="no bundle") from None


def texts(bundle: Bundle | None) -> pb.PolicyBundle | None:
    """Gives a policy with its tests."""
    return pb.PolicyBundle(files=dict(bundle.files.texts), tests=dict(bundle.tests)) if bundle else None


def number(text: str, field: str) -> int:
    """Checks a version's number."""
    if not (text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS and not text.startswith("0")):
        raise RequestMalformedError(field=field, cause="version")
    return int(text)


def reason(text: str) -> str:
    """Checks the words for approver and ledger."""
    return checks.bounded(text, "reason", checks.REASON_LENGTH)


def _time(moment: datetime | None) -> Timestamp | None:
    return timestamp(moment) if moment else None


def ref(key: str) -> common_pb2.AgentRef | None:
    """Gives a person of `issuer|subject`; None where there is nobody."""
    issuer, _, subject = key.partition("|")
    return common_pb2.AgentRef(issuer=issuer, subject=subject) if key else None


def examination(found: Examination) -> pb.Examination:
    """Gives what an examination found."""
    return pb.Examination(
        refusals=found.refusals,
        warnings=found.warnings,
        widening=found.widening,
        narrowing=found.narrowing,
        facts=json.dumps(dict(found.facts), ensure_ascii=False),
    )


def proposal(p: Proposal) -> pb.Proposal:
    """Gives a proposal."""
    return pb.Proposal(
        proposal_id=str(p.proposal_id),
        base_version=str(p.base_version),
        restores_version=_text(p.restores_version),
        digest=p.digest,
        author=ref(p.author),
        certificate=p.console,
        reason=p.reason,
        widens=p.widens,
        create_time=timestamp(p.create_time),
        expire_time=timestamp(p.expire_time),
        state=STATES[p.state],
        end_person=ref(p.end_person),
        end_reason=p.end_reason,
        end_time=_time(p.end_time),
        version=_text(p.version),
    )


def version(v: Version) -> pb.PolicyVersion:
    """Gives a version."""
    return pb.PolicyVersion(
        version=str(v.version),
        digest=v.digest,
        tests_digest=v.tests_digest,
        how=v.how,
        base_version=_text(v.base_version),
        restores_version=_text(v.restores_version),
        proposal_id=_text(v.proposal_id),
        author=ref(v.author),
        approver=ref(v.approver),
        reason=v.reason,
        published_by=v.loaded_by,
        create_time=timestamp(v.create_time),
    )


def _text(value: int | UUID | None) -> str:
    return "" if value is None else str(value)
