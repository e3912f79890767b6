"""ContainmentService and TicketFeedService: protobuf to values and back, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

from broker.containment import Administrator, Containment, Suspension
from broker.errors import RequestMalformedError
from broker.model import Agent
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.calls import Call, Method
from broker.tickets import Outcome, TicketFeed
from broker.v1 import audit_service_pb2 as audit_pb
from broker.v1 import common_pb2
from broker.v1 import containment_service_pb2 as pb
from broker.v1 import policy_service_pb2 as policy_pb
from broker.v1 import ticket_feed_service_pb2 as feed_pb

CONTAINMENT = "broker.v1.ContainmentService"
FEED = "broker.v1.TicketFeedService"
METHOD_NAMES = tuple(
    f"{service.full_name}/{method.name}"
    for service in (
        pb.DESCRIPTOR.services_by_name["ContainmentService"],
        feed_pb.DESCRIPTOR.services_by_name["TicketFeedService"],
        policy_pb.DESCRIPTOR.services_by_name["PolicyService"],
        audit_pb.DESCRIPTOR.services_by_name["AuditService"],
    )
    for method in service.methods
)
"""Full names of the admin port's RPCs, as the contract lists them."""

MOST_EVENTS = 500
NAME_LENGTH = 256
PAGE_TOKEN_LENGTH = 19
"""Digits of the largest bigint: one length, whatever it hides (E5)."""

OUTCOMES = {
    Outcome.APPLIED: feed_pb.EVENT_OUTCOME_APPLIED,
    Outcome.DUPLICATE: feed_pb.EVENT_OUTCOME_DUPLICATE,
    Outcome.SUPERSEDED: feed_pb.EVENT_OUTCOME_SUPERSEDED,
}


class ContainmentService:
    """The incident responders' service."""

    def __init__(self, containment: Containment, now: Callable[[], datetime]) -> None:
        """Takes what it translates for, and the clock of `read_time`."""
        self._containment = containment
        self._now = now

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at = f"/{CONTAINMENT}/"
        return (
            Method(at + "SuspendAgent", pb.SuspendAgentRequest, pb.SuspendAgentResponse, self._suspend),
            Method(
                at + "ReinstateAgent", pb.ReinstateAgentRequest, pb.ReinstateAgentResponse, self._reinstate
            ),
            Method(at + "RevokeGrants", pb.RevokeGrantsRequest, pb.RevokeGrantsResponse, self._revoke),
            Method(at + "ListSuspensions", pb.ListSuspensionsRequest, pb.ListSuspensionsResponse, self._list),
        )

    async def _suspend(self, call: Call, request: pb.SuspendAgentRequest) -> pb.SuspendAgentResponse:
        call.decision_id, suspension = await self._containment.suspend(
            _by(call), _agent(request.agent), _reason(request.reason)
        )
        return pb.SuspendAgentResponse(suspension=_suspension(suspension), decision_id=str(call.decision_id))

    async def _reinstate(self, call: Call, request: pb.ReinstateAgentRequest) -> pb.ReinstateAgentResponse:
        call.decision_id, end_time = await self._containment.reinstate(
            _by(call), _agent(request.agent), _reason(request.reason)
        )
        end = timestamp(end_time) if end_time else None
        return pb.ReinstateAgentResponse(decision_id=str(call.decision_id), end_time=end)

    async def _revoke(self, call: Call, request: pb.RevokeGrantsRequest) -> pb.RevokeGrantsResponse:
        selector = request.WhichOneof("selector")
        if selector is None:
            raise RequestMalformedError(field="selector", cause="no selector")
        call.decision_id, count = await self._containment.revoke(
            _by(call),
            agent=_agent(request.agent) if selector == "agent" else None,
            ticket_id=checks.ticket_id(request.ticket_id) if selector == "ticket_id" else None,
            grant_id=checks.uuid(request.grant_id, "grant_id") if selector == "grant_id" else None,
            reason=_reason(request.reason),
        )
        return pb.RevokeGrantsResponse(revoked=count, decision_id=str(call.decision_id))

    async def _list(self, call: Call, request: pb.ListSuspensionsRequest) -> pb.ListSuspensionsResponse:
        token = request.page_token
        if token and not (token.isascii() and token.isdigit() and len(token) == PAGE_TOKEN_LENGTH):
            raise RequestMalformedError(field="page_token", cause="page token")
        rows, more = await self._containment.list(
            _by(call),
            ended=request.include_ended,
            before=int(token) if token else None,
            size=checks.page_size(request.page_size),
        )
        last = f"{rows[-1].suspension_id:0{PAGE_TOKEN_LENGTH}}" if more else ""
        return pb.ListSuspensionsResponse(
            suspensions=[_suspension(row) for row in rows],
            next_page_token=last,
            read_time=timestamp(self._now()),
        )


class TicketFeedService:
    """The helpdesks' service."""

    def __init__(self, feed: TicketFeed, feeds: Sequence[str]) -> None:
        """Takes what it translates for, and the ids of the configured feeds.

        The admin table says which client identity may call at all; which feed an event belongs to
        says its signature.
        """
        self._feed = feed
        self._feeds = tuple(feeds)

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the unary RPCs by full name."""
        at = f"/{FEED}/"
        return (
            Method(
                at + "PublishEvents",
                feed_pb.PublishEventsRequest,
                feed_pb.PublishEventsResponse,
                self._publish,
            ),
            Method(
                at + "SendHeartbeat", feed_pb.SendHeartbeatRequest, feed_pb.SendHeartbeatResponse, self._beat
            ),
        )

    def streams(self) -> Sequence[Method[Any, Any]]:
        """Lists the client-streaming RPCs by full name."""
        request, answer = feed_pb.ResyncTicketsRequest, feed_pb.ResyncTicketsResponse
        return (Method(f"/{FEED}/ResyncTickets", request, answer, self._resync),)

    async def _publish(self, _: Call, request: feed_pb.PublishEventsRequest) -> feed_pb.PublishEventsResponse:
        if not 1 <= len(request.events) <= MOST_EVENTS:
            raise RequestMalformedError(field="events", cause="number of events")
        done = await self._feed.publish(self._feeds, request.events)
        return feed_pb.PublishEventsResponse(
            outcomes=[OUTCOMES[outcome] for outcome in done.outcomes], contiguous_seq=done.contiguous_seq
        )

    async def _beat(self, _: Call, request: feed_pb.SendHeartbeatRequest) -> feed_pb.SendHeartbeatResponse:
        fresh = await self._feed.heartbeat(self._feeds, request.heartbeat)
        return feed_pb.SendHeartbeatResponse(
            resync_needed=fresh.resync_needed,
            contiguous_seq=fresh.contiguous_seq,
            stale_time=timestamp(fresh.stale_time) if fresh.stale_time else None,
        )

    async def _resync(
        self, _: Call, requests: AsyncIterator[feed_pb.ResyncTicketsRequest]
    ) -> feed_pb.ResyncTicketsResponse:
        async def parts() -> AsyncIterator[Sequence[str]]:
            async for request in requests:
                yield request.events

        done = await self._feed.resync(self._feeds, parts())
        return feed_pb.ResyncTicketsResponse(
            tickets=done.tickets, closed=done.closed, contiguous_seq=done.contiguous_seq
        )


def _by(call: Call) -> Administrator:
    return Administrator(call.identity.tool, call.trace.trace_id)


def _agent(ref: common_pb2.AgentRef) -> Agent:
    issuer = checks.bounded(ref.issuer, "agent.issuer", NAME_LENGTH)
    if "|" in issuer:
        raise RequestMalformedError(field="agent.issuer", cause="bar in issuer")
    return Agent(issuer, checks.bounded(ref.subject, "agent.subject", NAME_LENGTH))


def _reason(text: str) -> str:
    return checks.bounded(text, "reason", checks.REASON_LENGTH)


def _suspension(s: Suspension) -> common_pb2.Suspension:
    return common_pb2.Suspension(
        agent=common_pb2.AgentRef(issuer=s.agent.issuer, subject=s.agent.subject),
        reason=s.reason,
        suspended_by=s.suspended_by,
        create_time=timestamp(s.create_time),
        end_time=timestamp(s.end_time) if s.end_time else None,
    )
