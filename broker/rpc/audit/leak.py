"""AttributeLeak."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from broker.audit.complaints import ComplaintFileError, read_complaints
from broker.audit.leak import LeakReport, Suspect, attribute_leak, known_fields
from broker.errors import RequestMalformedError
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import auditor_of
from broker.rpc.audit.reporting import Reporting, identifiers_of_the_day
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

SECONDS = 120.0
"""Longest time: one scan over the customers' contacts, and the index brought up to now."""


class LeakMethods:
    """The RPC over complaints; what is in them stays in the request."""

    def __init__(self, reporting: Reporting) -> None:
        """Takes where it reads."""
        self._reporting = reporting

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        asked, told = pb.AttributeLeakRequest, pb.AttributeLeakResponse
        return (Method(f"/{AUDIT}/AttributeLeak", asked, told, self._attribute, SECONDS),)

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        return ()

    async def _attribute(self, call: Call, request: pb.AttributeLeakRequest) -> pb.AttributeLeakResponse:
        at = self._reporting
        known = await known_fields(at.reports)
        try:
            complaints = await asyncio.to_thread(
                read_complaints, request.complaints, now=datetime.now(UTC), known=known
            )
        except ComplaintFileError as exc:  # says what is wrong with the file, by no word of its
            raise RequestMalformedError(field="complaints", cause="complaint file", detail=str(exc)) from None
        with identifiers_of_the_day():
            report = await attribute_leak(
                at.reports, at.records, complaints, by=auditor_of(call), ids=at.ids,
                conditioned=not request.among_all,
            )  # fmt: skip
        call.decision_id = report.event_id
        return _answer(report)


def _answer(report: LeakReport) -> pb.AttributeLeakResponse:
    found = report.attribution
    return pb.AttributeLeakResponse(
        decision_id=str(report.event_id),
        verdict=found.verdict.name.lower(),
        lines=report.lines,
        matched=report.matched,
        used=found.used,
        tests=found.tests,
        candidates=map(_candidate, report.suspects),
        uncovered=found.uncovered,
        unexplained=found.unnamed,
        tampered=map(str, report.tampered),
        not_used=[pb.UnusedLine(line=u.line, why=u.why) for u in report.unused],
    )


def _candidate(suspect: Suspect) -> pb.LeakCandidate:
    one = suspect.candidate
    return pb.LeakCandidate(
        kind=one.kind,
        names=suspect.names,
        named=one.named,
        complaints=one.lines,
        expected=one.expected,
        p_value=one.p_value,
        corrected=one.corrected,
        p_among_all=one.p_unconditioned,
        evidence=[
            pb.LeakEvidence(
                line=e.line, event_id=str(e.event_id), time=timestamp(e.time), tool=e.tool, fields=e.fields
            )
            for e in suspect.evidence
        ],
    )
