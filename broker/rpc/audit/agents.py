"""ReportAccess and ListUnexplainedReads: what agents could read, and who reads without need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from broker.audit.access_at import AccessAt, Could, Did, access_at
from broker.audit.unexplained import ALPHA, Standing, UnexplainedReport, unexplained_reads
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import auditor_of
from broker.rpc.audit.reporting import Reporting, identifiers_of_the_day
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

SECONDS = 120.0
"""Longest time: the index is brought up to now, and days that are due are judged."""

DAY = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", re.ASCII)
MILLION = 1_000_000
MOST_MILLIONTHS = 500_000


class AgentMethods:
    """The RPCs over what agents do."""

    def __init__(self, reporting: Reporting) -> None:
        """Takes where they read."""
        self._reporting = reporting

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(
                at + "ReportAccess", pb.ReportAccessRequest, pb.ReportAccessResponse, self._access, SECONDS
            ),
            Method(
                at + "ListUnexplainedReads", pb.ListUnexplainedReadsRequest, pb.ListUnexplainedReadsResponse,
                self._unexplained, SECONDS,
            ),
        )  # fmt: skip

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        return ()

    async def _access(self, call: Call, request: pb.ReportAccessRequest) -> pb.ReportAccessResponse:
        customer = checks.bounded(request.customer_id, "customer_id", checks.CUSTOMER_ID_LENGTH)
        time = checks.moment(request, "time", "time")
        if time is None:
            raise RequestMalformedError(field="time", cause="no time")
        at = self._reporting
        with identifiers_of_the_day():
            found = await access_at(at.reports, at.records, at.ids, auditor_of(call), customer, time)
        call.decision_id = found.event_id
        return _accesses(found)

    async def _unexplained(
        self, call: Call, request: pb.ListUnexplainedReadsRequest
    ) -> pb.ListUnexplainedReadsResponse:
        since = _day(request.since)
        millionths = request.alpha_millionths
        if not 0 <= millionths <= MOST_MILLIONTHS:
            raise RequestMalformedError(field="alpha_millionths", cause="chance")
        at = self._reporting
        report = await unexplained_reads(
            at.reports, since, by=auditor_of(call), ids=at.ids,
            alpha=millionths / MILLION if millionths else ALPHA,
        )  # fmt: skip
        call.decision_id = report.event_id
        return pb.ListUnexplainedReadsResponse(
            decision_id=str(report.event_id),
            days=[day.isoformat() for day in report.days],
            unjudged=report.unjudged,
            agents=[_standing(one, report) for one in report.standings],
        )


def _day(text: str) -> date:
    if DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise RequestMalformedError(field="since", cause="day")


def _accesses(found: AccessAt) -> pb.ReportAccessResponse:
    return pb.ReportAccessResponse(
        pseudonym=found.pseudonym,
        policy_version=found.policy_version,
        could=map(_could, found.could),
        did=map(_did, found.did),
        not_knowable=found.not_knowable,
        decision_id=str(found.event_id),
    )


def _could(one: Could) -> pb.PossibleAccess:
    return pb.PossibleAccess(
        agent=one.agent,
        ticket_id=one.ticket_id,
        ticket_kind=one.ticket_kind,
        relation=one.relation,
        provenance=one.provenance,
        opened_by=one.opened_by,
        since=timestamp(one.since),
        suspended=one.suspended,
        groups_time=timestamp(one.groups_time) if one.groups_time else None,
        roles=one.roles,
        absent=_open(one.absent),
        present=_open(one.present),
    )


def _open(purposes: Mapping[str, Mapping[str, str]]) -> list[pb.OpenField]:
    return [
        pb.OpenField(purpose=purpose, field=name, level=level)
        for purpose, fields in purposes.items()
        for name, level in fields.items()
    ]


def _did(one: Did) -> pb.ActualAccess:
    return pb.ActualAccess(
        agent=one.agent,
        reads=one.reads,
        first=timestamp(one.first),
        last=timestamp(one.last),
        last_before=timestamp(one.last_before) if one.last_before else None,
    )


def _standing(one: Standing, report: UnexplainedReport) -> pb.ReaderStanding:
    return pb.ReaderStanding(
        agent=one.agent,
        visits=one.visits,
        unexplained=one.unexplained,
        expected=one.expected,
        log_evidence=one.evidence,
        called_on=one.called_on.isoformat() if one.called_on else "",
        recent_visits=[
            pb.UnexplainedVisit(
                event_id=str(visit.event_id), day=visit.day.isoformat(), queue=visit.queue, reads=visit.reads,
                customer=visit.customer, ticket=visit.ticket,
            )
            for visit in report.visits.get(one.agent, ())
        ],
    )  # fmt: skip
