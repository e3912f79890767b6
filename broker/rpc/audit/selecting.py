"""Which disclosures are meant: checked, the customer behind a key found, and the question put on record."""

from __future__ import annotations

from typing import Any

from broker.audit.exposure import Selection, put_question
from broker.audit.naming import pseudonym_of
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.audit.asking import auditor_of
from broker.rpc.audit.filters import NAME_LENGTH, agent_of, pseudonym
from broker.rpc.audit.reporting import Reporting, identifiers_of_the_day
from broker.rpc.calls import Call
from broker.v1 import audit_service_pb2 as pb


async def selected(
    call: Call, request: pb.ReportExposureRequest | pb.BuildPackRequest, at: Reporting, query: str
) -> Selection | None:
    """Gives what is asked for once the question is on record, which is the call's decision.

    Returns:
        None: no agent was ever granted anything of the customer whose key is given, or they were erased.
    """
    asked = _asked(request)
    by = auditor_of(call)
    if request.customer_id:
        with identifiers_of_the_day():
            found = await pseudonym_of(at.questions, at.records, at.ids, by, query, request.customer_id)
        if found.pseudonym is None:
            call.decision_id = found.event_id
            return None
        asked["customer"] = found.pseudonym
    selection = Selection(**asked)
    call.decision_id = await put_question(at.questions, at.ids, by, selection, query)
    return selection


def _asked(request: pb.ReportExposureRequest | pb.BuildPackRequest) -> dict[str, Any]:
    """Checks what is asked; gives the selection's parts, of a customer's key no pseudonym yet."""
    since = checks.moment(request, "since", "since")
    until = checks.moment(request, "until", "until")
    if since and until and since >= until:
        raise RequestMalformedError(field="until", cause="no time between")
    checks.customer_id(request.customer_id)
    if request.customer and request.customer_id:
        raise RequestMalformedError(field="customer_id", cause="customer twice")
    asked = {
        "agent": agent_of(request.agent, "agent").key if request.HasField("agent") else None,
        "tool": checks.bounded(request.tool, "tool", NAME_LENGTH) if request.tool else None,
        "customer": pseudonym(request.customer, "customer") if request.customer else None,
        "grant_id": checks.uuid(request.grant_id, "grant_id") if request.grant_id else None,
    }
    if not (any(asked.values()) or request.customer_id):
        raise RequestMalformedError(field="agent", cause="nothing selected")
    return {**asked, "since": since, "until": until}
