"""The client of a support tool: asks for a ticket's record and gets what is justified.

Invariants:
- a cached grant serves one agent, ticket, customer, purpose and set of fields, and no other;
- its end is counted from when it was asked for, on this machine's clock alone: clocks may differ;
- a grant that the broker refuses is forgotten at once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from broker.client import wire
from broker.client.channel import DEFAULT_TIMEOUT, BrokerChannel, Identity, Metadata, Method
from broker.client.errors import DeniedError, TokenInvalidError
from broker.client.tokens import TokenSource, claims, token_of
from broker.client.values import (
    AssignedTicket,
    Explanation,
    FieldState,
    FieldValue,
    Grant,
    GrantStatus,
    Record,
)
from broker.v1 import access_service_pb2 as pb
from broker.v1 import access_service_pb2_grpc, key_service_pb2, key_service_pb2_grpc

Request = TypeVar("Request")
Answer = TypeVar("Answer")

RENEW_BEFORE = 5.0
"""Seconds before its end at which a grant is no longer used, so that none runs out on the way."""

MOST_GRANTS = 10_000
"""Cached grants; beyond it the oldest goes, which is also the one that ends first."""


@dataclass(frozen=True, slots=True)
class GrantKey:
    """What a cached grant is good for."""

    agent: str
    ticket_id: str
    customer_id: str
    purpose: str
    fields: frozenset[str]


@dataclass(slots=True)
class CachedGrant:
    """A grant under way, or at hand with its end on the client's clock."""

    creation: asyncio.Task[pb.CreateGrantResponse]
    grant: Grant | None = None
    end: float = float("inf")


class BrokerClient:
    """A tool's client for one agent, or for several where the token source changes.

    Example:
        async with BrokerClient("broker:8443", ca_file="ca.pem", cert_file="tool.pem",
                                key_file="tool.key", token_source=token_file("agent.jwt")) as client:
            record = await client.read("T-1", ["customer.name"], purpose="resolve-ticket")
            print(record["customer.name"].value)
    """

    def __init__(
        self,
        target: str,
        *,
        ca_file: Path | str,
        cert_file: Path | str,
        key_file: Path | str,
        token_source: TokenSource,
        timeout: float = DEFAULT_TIMEOUT,
        server_name: str = "",
        audience: str = "",
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        """Takes where to, as which tool, and for whom.

        Args:
            target: `host:port` of the access port.
            ca_file: authority of the broker's certificate, PEM.
            cert_file: the tool's certificate, PEM.
            key_file: its private key, PEM.
            token_source: gives the agent's OIDC access token; see `token_file`, `token_command`.
            timeout: seconds a call may take, retries included.
            server_name: name in the broker's certificate where it differs from the target's host.
            audience: who else shall accept the grants; default: the broker alone.
            clock: seconds that only grow.
            new_id: makes request ids, UUIDs of version 4.
        """
        identity = Identity(Path(ca_file), Path(cert_file), Path(key_file))
        self._channel = BrokerChannel(target, identity, timeout=timeout, server_name=server_name)
        self._token_source = token_source
        self._audience = audience
        self._clock = clock
        self._new_id = new_id
        self._grants: dict[GrantKey, CachedGrant] = {}

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        channel = self._channel.grpc_channel
        self._stub = access_service_pb2_grpc.AccessServiceStub(channel)
        self._keys = key_service_pb2_grpc.KeyServiceStub(channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        for cached in self._grants.values():
            cached.creation.cancel()
        self._grants.clear()
        await self._channel.__aexit__()

    # --- the one call that most tools need ---------------------------------------------------------
    async def read(
        self, ticket_id: str, fields: Sequence[str], *, purpose: str, customer_id: str = ""
    ) -> Record:
        """Reads a ticket's customer; the grant is created, kept and renewed on the way.

        Args:
            ticket_id: the ticket that justifies it.
            fields: names as `customer.email`, each once.
            purpose: a purpose that the catalog declares.
            customer_id: which customer, where the ticket has several.

        Returns:
            Every field asked for, in that order; the withheld ones with the reason.

        Raises:
            BrokerCallError: typed by reason.
        """
        token = await self._token()
        key = GrantKey(claims(token).agent, ticket_id, customer_id, purpose, frozenset(fields))
        cached = self._kept(key)
        if cached is not None:
            try:
                return await self._read_kept(key, cached, fields, token)
            except TokenInvalidError:
                # It was revoked meanwhile, or its key was withdrawn: ask once whether it is still
                # justified. Who is refused a new one hears that instead.
                pass
        return await self._read_kept(key, self._create(key, fields, token), fields, token)

    async def _read_kept(
        self, key: GrantKey, cached: CachedGrant, fields: Sequence[str], token: str
    ) -> Record:
        # Shielded: a caller that gives up must not fail the others that wait for the same grant.
        grant = cached.grant or wire.grant(await asyncio.shield(cached.creation))
        try:
            read = await self._read(grant, [f for f in fields if f in grant.readable], token)
        except (TokenInvalidError, DeniedError):
            self._forget(key, cached)
            raise
        answered = {f.name: f for f in (*withheld(grant), *read)}
        unanswered = FieldValue("", FieldState.WITHHELD, reason="the broker did not answer for this field")
        return replace(
            read, fields=tuple(answered.get(name) or replace(unanswered, name=name) for name in fields)
        )

    # --- the single calls --------------------------------------------------------------------------
    async def create_grant(
        self,
        ticket_id: str,
        fields: Sequence[str],
        *,
        purpose: str,
        customer_id: str = "",
        seconds: float | None = None,
    ) -> Grant:
        """Creates a grant that the caller keeps; `read_with` and `revoke` take it.

        Args:
            ticket_id: the ticket that justifies it.
            fields: names as `customer.email`, each once.
            purpose: a purpose that the catalog declares.
            customer_id: which customer, where the ticket has several.
            seconds: how long it shall live; default and cap are the broker's.
        """
        request = self._grant_request(ticket_id, customer_id, purpose, fields)
        if seconds is not None:
            request.requested_duration.FromNanoseconds(int(seconds * 1e9))
        return wire.grant(await self._call(self._stub.CreateGrant, request, await self._token()))

    async def read_with(self, grant: Grant, fields: Sequence[str]) -> Record:
        """Reads exactly these fields with a grant of `create_grant`."""
        return await self._read(grant, fields, await self._token())

    async def revoke(self, grant: Grant | str) -> str:
        """Ends a grant, given it or its id, for every broker at once.

        Returns:
            The decision id.
        """
        grant_id = grant if isinstance(grant, str) else grant.grant_id
        for key, cached in list(self._grants.items()):
            if cached.grant is not None and cached.grant.grant_id == grant_id:
                self._forget(key, cached)
        request = pb.RevokeGrantRequest(grant_id=grant_id)
        answer = await self._call(self._stub.RevokeGrant, request, await self._token())
        return answer.decision_id

    async def status(self, grant_id: str) -> GrantStatus:
        """Tells whether a grant is usable now, its ground included."""
        request = pb.GetGrantStatusRequest(grant_id=grant_id)
        answer = await self._call(self._stub.GetGrantStatus, request, await self._token())
        if not answer.active:
            return GrantStatus(active=False)
        return GrantStatus(True, wire.time(answer.expire_time), answer.ticket_id)

    async def assigned_tickets(self, *, page_size: int = 0) -> AsyncIterator[AssignedTicket]:
        """Goes through the agent's open tickets, newest first, page by page."""
        page_token = ""
        while True:
            request = pb.ListAssignedTicketsRequest(page_size=page_size, page_token=page_token)
            answer = await self._call(self._stub.ListAssignedTickets, request, await self._token())
            for ticket in answer.tickets:
                yield wire.assigned_ticket(ticket)
            page_token = answer.next_page_token
            if not page_token:
                return

    async def explain(self, decision_id: str) -> Explanation:
        """Tells what was missing in a denial, or in a grant that withheld fields."""
        request = pb.ExplainDenialRequest(decision_id=decision_id)
        return wire.explanation(await self._call(self._stub.ExplainDenial, request, await self._token()))

    async def jwks(self) -> str:
        """Gives the broker's public keys, a JWK Set as JSON text, for `verify_receipt`."""
        answer = await self._call(self._keys.GetJwks, key_service_pb2.GetJwksRequest(), await self._token())
        return answer.jwks

    # --- the grants that are kept ------------------------------------------------------------------
    def _kept(self, key: GrantKey) -> CachedGrant | None:
        """Gives the grant at hand or under way, unless it is about to end."""
        cached = self._grants.get(key)
        if cached is None or self._clock() < cached.end - RENEW_BEFORE:
            return cached
        self._forget(key, cached)
        return None

    def _create(self, key: GrantKey, fields: Sequence[str], token: str) -> CachedGrant:
        """Starts the creation that all who ask for the same will wait for."""
        existing = self._grants.get(key)
        if existing is not None:  # another caller was refused with the same grant and came first
            return existing
        asked = self._clock()
        while len(self._grants) >= MOST_GRANTS:
            del self._grants[next(iter(self._grants))]
        request = self._grant_request(key.ticket_id, key.customer_id, key.purpose, fields)
        creation = asyncio.create_task(self._call(self._stub.CreateGrant, request, token))
        cached = self._grants[key] = CachedGrant(creation)

        def arrived(task: asyncio.Task[pb.CreateGrantResponse]) -> None:
            if task.cancelled() or task.exception() is not None:
                self._forget(key, cached)
                return
            cached.grant = wire.grant(task.result())
            cached.end = asked + (cached.grant.expire_time - cached.grant.create_time).total_seconds()

        creation.add_done_callback(arrived)
        return cached

    def _forget(self, key: GrantKey, cached: CachedGrant) -> None:
        """Drops a grant, unless another one has taken its place meanwhile."""
        if self._grants.get(key) is cached:
            del self._grants[key]

    # --- the wire ----------------------------------------------------------------------------------
    async def _read(self, grant: Grant, fields: Sequence[str], token: str) -> Record:
        request = pb.ReadRecordRequest(grant_token=grant.token, fields=fields)
        return wire.record(await self._call(self._stub.ReadRecord, request, token), grant)

    def _grant_request(
        self, ticket_id: str, customer_id: str, purpose: str, fields: Sequence[str]
    ) -> pb.CreateGrantRequest:
        """Makes a request with an id of its own; its retries are the same request."""
        return pb.CreateGrantRequest(
            request_id=str(self._new_id()),
            ticket_id=ticket_id,
            customer_id=customer_id,
            purpose=purpose,
            fields=fields,
            audience=self._audience,
        )

    async def _call(self, method: Method[Request, Answer], request: Request, token: str) -> Answer:
        """Makes a call for the agent; all of AccessService is safe to repeat.

        CreateGrant is idempotent by its request id, RevokeGrant by nature, and a read that is
        repeated is put on record each time.
        """
        metadata: Metadata = (("authorization", f"Bearer {token}"),)
        return await self._channel.call(lambda left: method(request, timeout=left, metadata=metadata))

    async def _token(self) -> str:
        return await token_of(self._token_source)


def withheld(grant: Grant) -> list[FieldValue]:
    """Gives the fields that a grant withholds, as a record shows them."""
    return [
        FieldValue(f.name, FieldState.WITHHELD, reason="; ".join(f.missing))
        for f in grant.fields
        if f.state is FieldState.WITHHELD
    ]
