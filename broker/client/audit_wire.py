"""Between AuditService's messages and the client's values, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from broker.client import audit_values as values
from broker.client import wire
from broker.v1 import audit_service_pb2 as pb

Selecting = TypeVar("Selecting", pb.ReportExposureRequest, pb.BuildPackRequest)


def event_filter(query: values.EventQuery) -> pb.EventFilter:
    """Gives the message of a query."""
    message = pb.EventFilter(
        tool=query.tool,
        customer=query.customer,
        ticket=query.ticket,
        grant_id=query.grant_id,
        kind=query.kind,
        outcome=query.outcome,
        reason=query.reason,
        policy_version=query.policy_version,
    )
    if query.agent is not None:
        message.agent.CopyFrom(wire.agent_ref(query.agent))
    if query.since is not None:
        message.since.FromDatetime(query.since)
    if query.until is not None:
        message.until.FromDatetime(query.until)
    return message


def event(m: pb.LedgerEvent) -> values.LedgerEvent:
    """Gives an event."""
    return values.LedgerEvent(
        event_id=m.event_id,
        leaf_index=m.leaf_index if m.HasField("leaf_index") else None,
        record_time=wire.time(m.record_time),
        kind=m.kind,
        outcome=m.outcome,
        reason=m.reason,
        agent=m.agent,
        tool=m.tool,
        customer=m.customer,
        ticket=m.ticket,
        grant_id=m.grant_id,
        trace_id=m.trace_id,
        policy_version=m.policy_version,
        leaf=m.leaf,
        leaf_size=m.leaf_size,
    )


def span(m: pb.Span) -> values.MeasuredSpan:
    """Gives a span."""
    return values.MeasuredSpan(
        trace_id=m.trace_id,
        span_id=m.span_id,
        parent_span_id=m.parent_span_id,
        name=m.name,
        kind=m.kind,
        start_ns=m.start_ns,
        end_ns=m.end_ns,
        status=m.status,
        attributes=json.loads(m.attributes or "{}"),
    )


def traced(answer: pb.GetTraceResponse) -> values.TracedThing:
    """Gives both sides of a thing."""
    return values.TracedThing(
        spans=tuple(map(span, answer.spans)),
        events=tuple((event(each.event), each.proof) for each in answer.events),
        truncated=answer.truncated,
    )


def reconciled(m: pb.ReconcileResponse) -> values.Reconciled:
    """Gives one part of a comparison."""
    return values.Reconciled(
        since=wire.time(m.since),
        until=wire.time(m.until),
        events=m.events,
        events_without_spans=m.events_without_spans,
        traces=m.traces,
        traces_without_events=m.traces_without_events,
        missing_spans=tuple(m.missing_spans),
        missing_events=tuple(m.missing_events),
    )


def exposure_request(query: values.ExposureQuery) -> pb.ReportExposureRequest:
    """Gives the message of a question about what was given out."""
    return _selecting(pb.ReportExposureRequest(), query)


def pack_request(query: values.ExposureQuery) -> pb.BuildPackRequest:
    """Gives the message that asks for a pack of it."""
    return _selecting(pb.BuildPackRequest(), query)


def pack_summary(m: pb.PackSummary) -> values.PackSummary:
    """Gives what a pack is."""
    return values.PackSummary(m.decision_id, m.length, m.sha256, m.customers, m.reads, m.leaves, m.log_size)


def _selecting(message: Selecting, query: values.ExposureQuery) -> Selecting:
    message.tool, message.grant_id = query.tool, query.grant_id
    message.customer, message.customer_id = query.customer, query.customer_id
    if query.agent is not None:
        message.agent.CopyFrom(wire.agent_ref(query.agent))
    if query.since is not None:
        message.since.FromDatetime(query.since)
    if query.until is not None:
        message.until.FromDatetime(query.until)
    return message


def exposed_customer(m: pb.ExposedCustomer) -> values.ExposedCustomer:
    """Gives one customer of a report."""
    return values.ExposedCustomer(
        customer=m.customer,
        reads=m.reads,
        first=wire.time(m.first),
        last=wire.time(m.last),
        clear=tuple(m.clear),
        masked=tuple(m.masked),
        classes_clear=tuple(m.classes_clear),
        classes_masked=tuple(m.classes_masked),
        unreadable=m.unreadable,
        tickets=tuple(m.tickets),
        purposes=tuple(m.purposes),
        provenances=tuple(m.provenances),
        agents=tuple(m.agents),
        tools=tuple(m.tools),
    )


def exposure_totals(m: pb.ExposureTotals) -> values.ExposureTotals:
    """Gives a report's counts."""
    return values.ExposureTotals(
        m.customers, m.reads, m.unreadable,
        wire.time(m.first) if m.HasField("first") else None,
        wire.time(m.last) if m.HasField("last") else None,
        _counts(m.fields), _counts(m.classes),
    )  # fmt: skip


def _counts(counts: Iterable[pb.ExposureCount]) -> dict[str, dict[str, int]]:
    return {count.name: {"clear": count.clear, "masked": count.masked} for count in counts}


def leak_ranking(m: pb.AttributeLeakResponse) -> values.LeakRanking:
    """Gives a ranking."""
    return values.LeakRanking(
        decision_id=m.decision_id,
        verdict=m.verdict,
        lines=m.lines,
        matched=m.matched,
        used=m.used,
        tests=m.tests,
        candidates=tuple(map(_candidate, m.candidates)),
        uncovered=tuple(m.uncovered),
        unexplained=tuple(m.unexplained),
        tampered=tuple(m.tampered),
        not_used=tuple((line.line, line.why) for line in m.not_used),
    )


def _candidate(m: pb.LeakCandidate) -> values.LeakCandidate:
    return values.LeakCandidate(
        kind=m.kind,
        names=tuple(m.names),
        named=m.named,
        complaints=tuple(m.complaints),
        expected=m.expected,
        p_value=m.p_value,
        corrected=m.corrected,
        p_among_all=m.p_among_all if m.HasField("p_among_all") else None,
        evidence=tuple(
            values.LeakEvidence(e.line, e.event_id, wire.time(e.time), e.tool, tuple(e.fields))
            for e in m.evidence
        ),
    )
