"""The clients of the admin port: administrators, and the helpdesk's feed.

Invariants:
- containment and feed know their caller by the client certificate alone; personal services take the
  token of the person too, asked for anew with every call;
- events travel as the helpdesk signed them; nothing is signed or changed on the way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import grpc

from broker.client import wire
from broker.client.channel import (
    DEFAULT_TIMEOUT,
    BrokerChannel,
    Identity,
    Metadata,
    Method,
    StreamedMethod,
)
from broker.client.errors import ClientError, from_rpc
from broker.client.tokens import TokenSource, token_of
from broker.client.values import (
    AgentName,
    Heartbeat,
    Reinstatement,
    Resync,
    Revocation,
    Suspension,
)
from broker.v1 import (
    containment_service_pb2,
    containment_service_pb2_grpc,
    ticket_feed_service_pb2,
    ticket_feed_service_pb2_grpc,
)

Request = TypeVar("Request")
Answer = TypeVar("Answer")

MOST_EVENTS = 500
"""Events of one call, as the protocol allows."""

RESYNC_TIMEOUT = 300.0
"""Seconds for a whole snapshot."""


class AdminPort:
    """A channel to the admin port under one client certificate, and a person where services ask for one."""

    def __init__(
        self,
        target: str,
        *,
        ca_file: Path | str,
        cert_file: Path | str,
        key_file: Path | str,
        token_source: TokenSource | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        server_name: str = "",
    ) -> None:
        """Takes where to and as whom.

        Args:
            target: `host:port` of the admin port.
            ca_file: authority of the broker's certificate, PEM.
            cert_file: the caller's certificate, PEM.
            key_file: its private key, PEM.
            token_source: gives the access token of the person at the console, for personal services; see
                `token_file`, `token_command`.
            timeout: seconds a call may take, retries included.
            server_name: name in the broker's certificate where it differs from the target's host.
        """
        identity = Identity(Path(ca_file), Path(cert_file), Path(key_file))
        self._channel = BrokerChannel(target, identity, timeout=timeout, server_name=server_name)
        self._token_source = token_source

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.__aexit__()

    async def _personal(
        self,
        method: Method[Request, Answer],
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it becomes the call's deadline on the wire
        safe: bool = True,
    ) -> Answer:
        """Calls a method of a personal service with the person's token.

        Args:
            method: of a stub.
            request: its request.
            timeout: seconds for all tries; default: the client's.
            safe: whether the call may be repeated.
        """
        metadata = await self._authorization()
        return await self._channel.call(
            lambda left: method(request, timeout=left, metadata=metadata), timeout=timeout, safe=safe
        )

    async def _personal_stream(
        self,
        method: StreamedMethod[Request, Answer],
        request: Request,
        *,
        timeout: float,  # noqa: ASYNC109 - it becomes the call's deadline on the wire
    ) -> AsyncGenerator[Answer, None]:
        """Calls a method of a personal service that answers in parts; not repeated.

        Raises:
            BrokerCallError: typed by reason or code; parts may have come before.
        """
        answers = method(request, timeout=timeout, metadata=await self._authorization())
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(exc) from None
        finally:
            answers.cancel()  # where nobody takes the rest, nobody makes it

    async def _authorization(self) -> Metadata:
        if self._token_source is None:
            raise ClientError("this call is personal; give the client a token_source")
        return (("authorization", f"Bearer {await token_of(self._token_source)}"),)


class AdminClient(AdminPort):
    """Stops agents at once, for incident responders."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = containment_service_pb2_grpc.ContainmentServiceStub(self._channel.grpc_channel)
        return self

    async def suspend(self, agent: AgentName, *, reason: str) -> Suspension:
        """Suspends an agent; their next grant or read is refused on every replica."""
        request = containment_service_pb2.SuspendAgentRequest(agent=wire.agent_ref(agent), reason=reason)
        answer = await self._channel.call(lambda left: self._stub.SuspendAgent(request, timeout=left))
        return wire.suspension(answer.suspension)

    async def reinstate(self, agent: AgentName, *, reason: str) -> Reinstatement:
        """Ends a suspension; tells when it ended, or that there was none."""
        request = containment_service_pb2.ReinstateAgentRequest(agent=wire.agent_ref(agent), reason=reason)
        answer = await self._channel.call(lambda left: self._stub.ReinstateAgent(request, timeout=left))
        return wire.reinstatement(answer)

    async def revoke_grants(
        self, *, agent: AgentName | None = None, ticket_id: str = "", grant_id: str = "", reason: str
    ) -> Revocation:
        """Revokes the live grants of an agent, on a ticket, or one; name exactly one of them."""
        if (agent is not None) + bool(ticket_id) + bool(grant_id) != 1:
            raise ClientError("name exactly one of agent, ticket and grant")
        request = containment_service_pb2.RevokeGrantsRequest(reason=reason)
        if agent is not None:
            request.agent.CopyFrom(wire.agent_ref(agent))
        elif ticket_id:
            request.ticket_id = ticket_id
        else:
            request.grant_id = grant_id
        # Not repeated: the second answer would count what the first one has left.
        answer = await self._channel.call(
            lambda left: self._stub.RevokeGrants(request, timeout=left), safe=False
        )
        return wire.revocation(answer)

    async def suspensions(self, *, ended: bool = False, page_size: int = 0) -> AsyncIterator[Suspension]:
        """Goes through the suspensions in force, or all that ever were, newest first."""
        page_token = ""
        while True:
            request = containment_service_pb2.ListSuspensionsRequest(
                include_ended=ended, page_size=page_size, page_token=page_token
            )
            answer = await self._list(request)
            for suspension in answer.suspensions:
                yield wire.suspension(suspension)
            page_token = answer.next_page_token
            if not page_token:
                return

    async def _list(
        self, request: containment_service_pb2.ListSuspensionsRequest
    ) -> containment_service_pb2.ListSuspensionsResponse:
        return await self._channel.call(lambda left: self._stub.ListSuspensions(request, timeout=left))


class FeedClient(AdminPort):
    """Brings a helpdesk's signed events to the broker; every call is safe to repeat."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = ticket_feed_service_pb2_grpc.TicketFeedServiceStub(self._channel.grpc_channel)
        return self

    async def publish(self, events: Sequence[str]) -> list[str]:
        """Publishes events in the order of their `seq`.

        Returns:
            What became of each: `applied`, `duplicate` or `superseded`.
        """
        outcomes: list[str] = []
        for start in range(0, len(events), MOST_EVENTS):
            outcomes += await self._publish(events[start : start + MOST_EVENTS])
        return outcomes

    async def _publish(self, events: Sequence[str]) -> list[str]:
        request = ticket_feed_service_pb2.PublishEventsRequest(events=events)
        answer = await self._channel.call(lambda left: self._stub.PublishEvents(request, timeout=left))
        return [
            ticket_feed_service_pb2.EventOutcome.Name(o).removeprefix("EVENT_OUTCOME_").lower()
            for o in answer.outcomes
        ]

    async def heartbeat(self, heartbeat: str) -> Heartbeat:
        """Says that the feed is alive; the answer says whether events are missing."""
        request = ticket_feed_service_pb2.SendHeartbeatRequest(heartbeat=heartbeat)
        answer = await self._channel.call(lambda left: self._stub.SendHeartbeat(request, timeout=left))
        stale = wire.time(answer.stale_time) if answer.HasField("stale_time") else None
        return Heartbeat(answer.resync_needed, answer.contiguous_seq, stale)

    async def resync(self, events: Iterable[str]) -> Resync:
        """Replaces what the broker knows of all open tickets; all or nothing.

        Args:
            events: `ticket` events, and as the last one `snapshot-end`.
        """
        everything = list(events)

        async def parts() -> AsyncIterator[ticket_feed_service_pb2.ResyncTicketsRequest]:
            for start in range(0, len(everything), MOST_EVENTS):
                yield ticket_feed_service_pb2.ResyncTicketsRequest(
                    events=everything[start : start + MOST_EVENTS]
                )

        answer = await self._channel.call(
            lambda left: self._stub.ResyncTickets(parts(), timeout=left), timeout=RESYNC_TIMEOUT
        )
        return Resync(answer.tickets, answer.closed, answer.contiguous_seq)
