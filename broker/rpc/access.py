"""AccessService and KeyService: protobuf to values and back, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from broker.access import Access, GrantAnswer, GrantRequest, RecordAnswer
from broker.errors import RequestMalformedError
from broker.model import FieldDecision, Level, Relation
from broker.rpc import checks
from broker.rpc.calls import Call, Method
from broker.v1 import access_service_pb2 as pb
from broker.v1 import common_pb2
from broker.v1 import key_service_pb2 as keys_pb

SERVICE = "broker.v1.AccessService"
KEYS = "broker.v1.KeyService"

METHOD_NAMES = tuple(
    f"{service.full_name}/{method.name}"
    for service in (
        pb.DESCRIPTOR.services_by_name["AccessService"],
        keys_pb.DESCRIPTOR.services_by_name["KeyService"],
    )
    for method in service.methods
)
"""Full names of the access port's RPCs, as the contract lists them."""

AUDIENCE_LENGTH = 256

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

SHORTEST_GRANT = 1.0
"""Seconds; a JWT counts whole ones, so a shorter grant would be over before it began."""

STATES = {
    Level.CLEAR: common_pb2.FIELD_STATE_CLEAR,
    Level.MASKED: common_pb2.FIELD_STATE_MASKED,
    None: common_pb2.FIELD_STATE_WITHHELD,
}
RELATIONS = {
    Relation.ASSIGNEE: common_pb2.RELATION_ASSIGNEE,
    Relation.SUPERVISOR: common_pb2.RELATION_SUPERVISOR,
    Relation.COLLABORATOR: common_pb2.RELATION_COLLABORATOR,
    Relation.NONE: common_pb2.RELATION_UNSPECIFIED,
}


class AccessService:
    """The tools' service."""

    def __init__(self, access: Access, jwks: Callable[[], str]) -> None:
        """Takes the story and the public keys."""
        self._access = access
        self._jwks = jwks

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at = f"/{SERVICE}/"
        return (
            Method(at + "CreateGrant", pb.CreateGrantRequest, pb.CreateGrantResponse, self._create),
            Method(at + "ReadRecord", pb.ReadRecordRequest, pb.ReadRecordResponse, self._read),
            Method(at + "RevokeGrant", pb.RevokeGrantRequest, pb.RevokeGrantResponse, self._revoke),
            Method(at + "GetGrantStatus", pb.GetGrantStatusRequest, pb.GetGrantStatusResponse, self._status),
            Method(
                at + "ListAssignedTickets",
                pb.ListAssignedTicketsRequest,
                pb.ListAssignedTicketsResponse,
                self._list,
            ),
            Method(at + "ExplainDenial", pb.ExplainDenialRequest, pb.ExplainDenialResponse, self._explain),
            Method(f"/{KEYS}/GetJwks", keys_pb.GetJwksRequest, keys_pb.GetJwksResponse, self._keys),
        )

    async def _create(self, call: Call, request: pb.CreateGrantRequest) -> pb.CreateGrantResponse:
        duration = request.requested_duration
        seconds = duration.seconds + duration.nanos / 1e9
        if request.HasField("requested_duration") and seconds < SHORTEST_GRANT:
            raise RequestMalformedError(field="requested_duration", cause="duration")
        answer = await self._access.create_grant(
            call.caller,
            GrantRequest(
                request_id=checks.uuid(request.request_id, "request_id", version=4),
                ticket_id=checks.ticket_id(request.ticket_id),
                customer_id=checks.customer_id(request.customer_id),
                purpose=checks.word(request.purpose, "purpose"),
                fields=checks.field_names(request.fields),
                audience=checks.bounded(request.audience, "audience", AUDIENCE_LENGTH)
                if request.audience
                else "",
                seconds=seconds,
            ),
            call.compact,
        )
        call.decision_id, call.grant_id = answer.decision_id, answer.grant_id
        call.policy_version = answer.policy_version
        return pb.CreateGrantResponse(grant=_grant(answer), grant_token=answer.token)

    async def _read(self, call: Call, request: pb.ReadRecordRequest) -> pb.ReadRecordResponse:
        answer = await self._access.read_record(
            call.caller,
            checks.token(request.grant_token, "grant_token"),
            checks.field_names(request.fields),
            call.compact,
        )
        call.decision_id, call.grant_id = answer.decision_id, answer.grant_id
        call.policy_version = answer.policy_version
        return _record(answer)

    async def _revoke(self, call: Call, request: pb.RevokeGrantRequest) -> pb.RevokeGrantResponse:
        grant_id = checks.uuid(request.grant_id, "grant_id")
        call.decision_id, revoke_time = await self._access.revoke_grant(call.caller, grant_id, call.tree)
        call.grant_id = grant_id
        return pb.RevokeGrantResponse(decision_id=str(call.decision_id), revoke_time=timestamp(revoke_time))

    async def _status(self, call: Call, request: pb.GetGrantStatusRequest) -> pb.GetGrantStatusResponse:
        found = await self._access.grant_status(call.caller, checks.uuid(request.grant_id, "grant_id"))
        if found is None:
            return pb.GetGrantStatusResponse(active=False)
        ticket_id, expire_time = found
        return pb.GetGrantStatusResponse(active=True, expire_time=timestamp(expire_time), ticket_id=ticket_id)

    async def _list(
        self, call: Call, request: pb.ListAssignedTicketsRequest
    ) -> pb.ListAssignedTicketsResponse:
        size = checks.page_size(request.page_size)
        page = await self._access.assigned_tickets(call.caller, size, request.page_token)
        return pb.ListAssignedTicketsResponse(
            tickets=[
                pb.AssignedTicket(
                    ticket_id=ticket.ticket_id,
                    kind=ticket.kind,
                    relation=RELATIONS[ticket.relation],
                    assign_time=timestamp(ticket.assign_time),
                )
                for ticket in page.tickets
            ],
            next_page_token=page.next_page_token,
        )

    async def _explain(self, call: Call, request: pb.ExplainDenialRequest) -> pb.ExplainDenialResponse:
        why = await self._access.explain_denial(call.caller, checks.uuid(request.decision_id, "decision_id"))
        return pb.ExplainDenialResponse(
            decision_id=str(why.decision_id),
            reason=why.reason,
            policy_version=why.policy_version,
            facts=why.facts,
            fields=[pb.FieldExplanation(name=name, missing=missing) for name, missing in why.fields.items()],
        )

    async def _keys(self, _: Call, __: keys_pb.GetJwksRequest) -> keys_pb.GetJwksResponse:
        return keys_pb.GetJwksResponse(jwks=self._jwks())


def timestamp(moment: datetime) -> Timestamp:
    """Turns an aware datetime into a protobuf timestamp."""
    micros = (moment - EPOCH) // MICROSECOND  # whole numbers: protobuf's own way takes ten times as long
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _grant(answer: GrantAnswer) -> pb.Grant:
    return pb.Grant(
        grant_id=str(answer.grant_id),
        decision_id=str(answer.decision_id),
        ticket_id=answer.ticket_id,
        purpose=answer.purpose,
        fields=[_granted(field) for field in answer.fields],
        policy_version=answer.policy_version,
        create_time=timestamp(answer.create_time),
        expire_time=timestamp(answer.expire_time),
        trace_id=answer.trace_id,
    )


def _granted(field: FieldDecision) -> pb.GrantedField:
    return pb.GrantedField(name=field.name, state=STATES[field.level], rule=field.rule, missing=field.missing)


def _record(answer: RecordAnswer) -> pb.ReadRecordResponse:
    """Builds the answer in place: messages that are made first and copied in cost twice as much."""
    response = pb.ReadRecordResponse(
        decision_id=str(answer.decision_id), policy_version=answer.policy_version
    )
    for field in answer.fields:
        said = response.fields.add(name=field.name, state=STATES[field.level])
        for value in field.values:
            said.values.add(text=value)
        if field.withheld:
            said.withheld_reason = field.withheld
        if field.truncated:
            said.truncated = True
    proof, said_proof = answer.receipt, response.receipt
    said_proof.leaf = proof.leaf
    said_proof.leaf_index = proof.leaf_index
    said_proof.tree_size = proof.tree_size
    said_proof.path.extend(proof.path)
    said_proof.signed_root = proof.signed_root
    return response
