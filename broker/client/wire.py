"""From the protocol's messages to the client's values, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from broker.client import values
from broker.v1 import access_service_pb2, common_pb2, containment_service_pb2

STATES = {
    common_pb2.FIELD_STATE_CLEAR: values.FieldState.CLEAR,
    common_pb2.FIELD_STATE_MASKED: values.FieldState.MASKED,
}
RELATIONS = {
    common_pb2.RELATION_ASSIGNEE: "assignee",
    common_pb2.RELATION_SUPERVISOR: "supervisor",
    common_pb2.RELATION_COLLABORATOR: "collaborator",
}


def time(stamp: Timestamp) -> datetime:
    """Gives a timestamp as an aware datetime."""
    return stamp.ToDatetime(tzinfo=UTC)


def state(number: common_pb2.FieldState.ValueType) -> values.FieldState:
    """Gives a field's state; one that this client does not know counts as withheld."""
    return STATES.get(number, values.FieldState.WITHHELD)


def grant(answer: access_service_pb2.CreateGrantResponse) -> values.Grant:
    """Gives the grant of an answer, its token inside."""
    message = answer.grant
    return values.Grant(
        grant_id=message.grant_id,
        decision_id=message.decision_id,
        ticket_id=message.ticket_id,
        purpose=message.purpose,
        fields=tuple(
            values.GrantedField(f.name, state(f.state), f.rule, tuple(f.missing)) for f in message.fields
        ),
        policy_version=message.policy_version,
        create_time=time(message.create_time),
        expire_time=time(message.expire_time),
        trace_id=message.trace_id,
        token=answer.grant_token,
    )


def field_value(message: access_service_pb2.FieldValue) -> values.FieldValue:
    """Gives one field of a record; an unset text is NULL."""
    return values.FieldValue(
        name=message.name,
        state=state(message.state),
        values=tuple(v.text if v.HasField("text") else None for v in message.values),
        reason=message.withheld_reason,
        truncated=message.truncated,
    )


def receipt(message: common_pb2.Receipt) -> values.Receipt:
    """Gives a receipt."""
    return values.Receipt(
        leaf=message.leaf,
        leaf_index=message.leaf_index,
        tree_size=message.tree_size,
        path=tuple(message.path),
        signed_root=message.signed_root,
    )


def record(answer: access_service_pb2.ReadRecordResponse, grant: values.Grant) -> values.Record:
    """Gives the record of an answer."""
    return values.Record(
        decision_id=answer.decision_id,
        policy_version=answer.policy_version,
        fields=tuple(field_value(f) for f in answer.fields),
        receipt=receipt(answer.receipt),
        grant=grant,
    )


def assigned_ticket(message: access_service_pb2.AssignedTicket) -> values.AssignedTicket:
    """Gives one of the agent's tickets."""
    return values.AssignedTicket(
        ticket_id=message.ticket_id,
        kind=message.kind,
        relation=RELATIONS.get(message.relation, "none"),
        assign_time=time(message.assign_time),
    )


def explanation(answer: access_service_pb2.ExplainDenialResponse) -> values.Explanation:
    """Gives why a decision went as it did."""
    return values.Explanation(
        decision_id=answer.decision_id,
        reason=answer.reason,
        policy_version=answer.policy_version,
        facts=dict(answer.facts),
        fields=tuple((f.name, tuple(f.missing)) for f in answer.fields),
    )


def agent_ref(agent: values.AgentName) -> common_pb2.AgentRef:
    """Gives the message that names an agent."""
    return common_pb2.AgentRef(issuer=agent.issuer, subject=agent.subject)


def suspension(message: common_pb2.Suspension) -> values.Suspension:
    """Gives a suspension; without an end while it lasts."""
    return values.Suspension(
        agent=values.AgentName(message.agent.issuer, message.agent.subject),
        reason=message.reason,
        suspended_by=message.suspended_by,
        create_time=time(message.create_time),
        end_time=time(message.end_time) if message.HasField("end_time") else None,
    )


def reinstatement(answer: containment_service_pb2.ReinstateAgentResponse) -> values.Reinstatement:
    """Gives when the suspension ended, if there was one."""
    end_time = time(answer.end_time) if answer.HasField("end_time") else None
    return values.Reinstatement(end_time, answer.decision_id)


def revocation(answer: containment_service_pb2.RevokeGrantsResponse) -> values.Revocation:
    """Gives how many grants ended."""
    return values.Revocation(answer.revoked, answer.decision_id)
