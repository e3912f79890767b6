"""Between AuditService's messages about agents and the client's values, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from broker.client import audit_values as values
from broker.client import wire
from broker.v1 import audit_service_pb2 as pb


def access_report(m: pb.ReportAccessResponse, time: datetime) -> values.AccessReport:
    """Gives who could and who did, at the time that was asked about."""
    return values.AccessReport(
        time, m.pseudonym, m.policy_version, tuple(map(_could, m.could)), tuple(map(_did, m.did)),
        tuple(m.not_knowable), m.decision_id,
    )  # fmt: skip


def unexplained(m: pb.ListUnexplainedReadsResponse) -> values.UnexplainedReads:
    """Gives every agent's standing."""
    return values.UnexplainedReads(
        m.decision_id, tuple(map(date.fromisoformat, m.days)), m.unjudged, tuple(map(_standing, m.agents))
    )


def _could(m: pb.PossibleAccess) -> values.PossibleAccess:
    return values.PossibleAccess(
        agent=m.agent,
        ticket_id=m.ticket_id,
        ticket_kind=m.ticket_kind,
        relation=m.relation,
        provenance=m.provenance,
        opened_by=m.opened_by,
        since=wire.time(m.since),
        suspended=m.suspended,
        groups_time=wire.time(m.groups_time) if m.HasField("groups_time") else None,
        roles=tuple(m.roles),
        absent=_open(m.absent),
        present=_open(m.present),
    )


def _open(fields: Iterable[pb.OpenField]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for each in fields:
        found.setdefault(each.purpose, {})[each.field] = each.level
    return found


def _did(m: pb.ActualAccess) -> values.ActualAccess:
    return values.ActualAccess(
        m.agent, m.reads, wire.time(m.first), wire.time(m.last),
        wire.time(m.last_before) if m.HasField("last_before") else None,
    )  # fmt: skip


def _standing(m: pb.ReaderStanding) -> values.ReaderStanding:
    return values.ReaderStanding(
        agent=m.agent,
        visits=m.visits,
        unexplained=m.unexplained,
        expected=m.expected,
        log_evidence=m.log_evidence,
        called_on=date.fromisoformat(m.called_on) if m.called_on else None,
        recent_visits=tuple(
            values.UnexplainedVisit(
                v.event_id, date.fromisoformat(v.day), v.queue, v.reads, v.customer, v.ticket
            )
            for v in m.recent_visits
        ),
    )
