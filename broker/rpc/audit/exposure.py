"""ReportExposure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from broker.audit.exposed import CustomerExposure, Totals
from broker.audit.exposure import Selection, classes_for, exposed, put_question
from broker.audit.naming import pseudonym_of
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import auditor_of
from broker.rpc.audit.filters import NAME_LENGTH, agent_of, pseudonym
from broker.rpc.audit.reporting import Reporting, identifiers_of_the_day
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

SECONDS = 280.0


class ExposureMethods:
    """The RPC over what was given out."""

    def __init__(self, reporting: Reporting) -> None:
        """Takes where it reads."""
        self._reporting = reporting

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        return ()

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        asked, told = pb.ReportExposureRequest, pb.ReportExposureResponse
        return (StreamedMethod(f"/{AUDIT}/ReportExposure", asked, told, self._report, SECONDS),)

    async def _report(
        self, call: Call, request: pb.ReportExposureRequest
    ) -> AsyncIterator[pb.ReportExposureResponse]:
        asked = _asked(request)
        at, by = self._reporting, auditor_of(call)
        if request.customer_id:
            with identifiers_of_the_day():
                found = await pseudonym_of(
                    at.questions, at.records, at.ids, by, "exposure", request.customer_id
                )
            if found.pseudonym is None:  # no agent was ever granted anything of them, or they were erased
                call.decision_id = found.event_id
                yield pb.ReportExposureResponse(totals=_totals(Totals(), {}))
                return
            asked["customer"] = found.pseudonym
        selection = Selection(**asked)
        call.decision_id = await put_question(at.questions, at.ids, by, selection)
        totals = Totals()
        async for batch in exposed(at.reports, selection, totals):
            classes = await classes_for(at.questions, totals)
            for one in batch:
                yield pb.ReportExposureResponse(customer=_customer(one, classes))
        classes = await classes_for(at.questions, totals)
        yield pb.ReportExposureResponse(totals=_totals(totals, classes))


def _asked(request: pb.ReportExposureRequest) -> dict[str, Any]:
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


def _customer(one: CustomerExposure, classes: Mapping[str, str]) -> pb.ExposedCustomer:
    times = {"first": timestamp(one.first), "last": timestamp(one.last)}
    return pb.ExposedCustomer(**{**one.as_mapping(classes), **times})


def _totals(totals: Totals, classes: Mapping[str, str]) -> pb.ExposureTotals:
    counted = totals.as_mapping(classes)
    return pb.ExposureTotals(
        customers=totals.customers,
        reads=totals.reads,
        unreadable=totals.unreadable,
        first=timestamp(totals.first) if totals.first else None,
        last=timestamp(totals.last) if totals.last else None,
        fields=[pb.ExposureCount(name=name, **count) for name, count in counted["fields"].items()],
        classes=[pb.ExposureCount(name=name, **count) for name, count in counted["classes"].items()],
    )
