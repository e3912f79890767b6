"""ResolvePseudonyms and EraseCustomer: the two RPCs that know a customer's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from broker.audit.erasing import erase
from broker.audit.naming import resolve
from broker.errors import RequestMalformedError
from broker.ledger import EventIds
from broker.rpc import checks
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import auditor_of
from broker.rpc.audit.filters import pseudonym
from broker.rpc.audit.reporting import identifiers_of_the_day
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

MOST_PSEUDONYMS = 1000
"""Pseudonyms of one request; a whole pack takes some."""

SECONDS = 60.0
"""Longest time: looking for pseudonyms is one scan over all salts, and erasing waits for the feed's turn."""


class CustomerMethods:
    """The RPCs over customers."""

    def __init__(
        self, admin: asyncpg.Pool, auditor: asyncpg.Pool, records: asyncpg.Pool, ids: EventIds
    ) -> None:
        """Takes the broker's database as broker_admin and broker_auditor, the records' as broker_auditor."""
        self._pools = (admin, auditor, records)
        self._ids = ids

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(
                at + "ResolvePseudonyms", pb.ResolvePseudonymsRequest, pb.ResolvePseudonymsResponse,
                self._resolve, SECONDS,
            ),
            Method(
                at + "EraseCustomer", pb.EraseCustomerRequest, pb.EraseCustomerResponse, self._erase, SECONDS
            ),
        )  # fmt: skip

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        return ()

    async def _resolve(
        self, call: Call, request: pb.ResolvePseudonymsRequest
    ) -> pb.ResolvePseudonymsResponse:
        names = tuple(request.pseudonyms)
        if not 1 <= len(names) <= MOST_PSEUDONYMS or len(set(names)) != len(names):
            raise RequestMalformedError(field="pseudonyms", cause="number, or one twice")
        for index, name in enumerate(names):
            pseudonym(name, f"pseudonyms[{index}]")
        reason = checks.bounded(request.reason, "reason", checks.REASON_LENGTH)
        admin, _, records = self._pools
        event, found = await resolve(admin, records, self._ids, auditor_of(call), names, reason)
        call.decision_id = event
        return pb.ResolvePseudonymsResponse(
            customers=[
                pb.ResolvedCustomer(pseudonym=name, customer_id=customer) for name, customer in found.items()
            ],
            decision_id=str(event),
        )

    async def _erase(self, call: Call, request: pb.EraseCustomerRequest) -> pb.EraseCustomerResponse:
        customer = checks.customer_id(
            checks.bounded(request.customer_id, "customer_id", checks.CUSTOMER_ID_LENGTH)
        )
        reason = checks.bounded(request.reason, "reason", checks.REASON_LENGTH)
        with identifiers_of_the_day():
            done = await erase(self._pools, self._ids, auditor_of(call), customer, reason)
        call.decision_id = done.event_id
        return pb.EraseCustomerResponse(
            pseudonym=done.pseudonym,
            revoked=done.live_grants,
            grants=done.grants,
            tickets=done.tickets,
            salt_destroyed=done.salt,
            decision_id=str(done.event_id),
        )
