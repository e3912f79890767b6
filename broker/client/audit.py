"""The client of AuditService, for a person at a console."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import date, datetime
from typing import Self

from broker.client import audit_agents_wire as agents_wire
from broker.client import audit_wire as wire
from broker.client.administration import AdminPort
from broker.client.audit_values import (
    AccessReport,
    ErasedCustomer,
    EventBatch,
    EventPage,
    EventQuery,
    ExposedCustomer,
    ExposureQuery,
    ExposureTotals,
    LeakRanking,
    LedgerEvent,
    MeasuredSpan,
    PackSummary,
    Reconciled,
    TracedThing,
    UnexplainedReads,
)
from broker.client.errors import ClientError, TimedOutError, UnavailableError
from broker.v1 import audit_service_pb2 as pb
from broker.v1 import audit_service_pb2_grpc

MOST_PSEUDONYMS = 1000
"""Pseudonyms of one call, as the protocol allows."""

CUSTOMER_SECONDS = 60.0
"""Longest time of a call that needs the records database."""

MOST_PAGE = 500
"""Events or spans of one page, as the protocol allows."""

RECONCILE_TIMEOUT = 300.0
EXPOSURE_TIMEOUT = 300.0
PACK_TIMEOUT = 300.0
LEAK_TIMEOUT = 130.0
AGENTS_TIMEOUT = 130.0
STREAM_TIMEOUT = 290.0
"""Seconds of one call that answers in parts; the broker ends it before."""

FIRST_PAUSE, MOST_PAUSE = 0.2, 10.0
"""Seconds between tries to reach a broker that does not answer."""


class AuditClient(AdminPort):
    """Asks the ledger; every call carries the person's token and is on record itself."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = audit_service_pb2_grpc.AuditServiceStub(self._channel.grpc_channel)
        return self

    async def event(self, event_id: str) -> LedgerEvent:
        """Gives one event."""
        answer = await self._personal(self._stub.GetEvent, pb.GetEventRequest(event_id=event_id))
        return wire.event(answer.event)

    async def event_page(
        self, query: EventQuery, *, oldest_first: bool = False, page_size: int = 0, page_token: str = ""
    ) -> EventPage:
        """Gives one page of events; it may be short, even empty, and have a next one.

        Args:
            query: which events.
            oldest_first: the order; newest first otherwise.
            page_size: at most how many; 0 for the broker's choice.
            page_token: `next_token` of the page before, for the same query and order.
        """
        request = pb.ListEventsRequest(
            filter=wire.event_filter(query),
            oldest_first=oldest_first,
            page_size=page_size,
            page_token=page_token,
        )
        answer = await self._personal(self._stub.ListEvents, request)
        return EventPage(tuple(map(wire.event, answer.events)), answer.next_page_token)

    async def events(
        self, query: EventQuery, *, oldest_first: bool = False, most: int | None = None
    ) -> AsyncIterator[LedgerEvent]:
        """Goes through events, page by page as they are taken.

        Args:
            query: which events.
            oldest_first: the order; newest first otherwise.
            most: at most how many; None for all.
        """
        token = ""
        while most is None or most > 0:
            size = MOST_PAGE if most is None else min(most, MOST_PAGE)
            page = await self.event_page(query, oldest_first=oldest_first, page_size=size, page_token=token)
            for event in page.events:
                yield event
            token = page.next_token
            if not token:
                return
            if most is not None:
                most -= len(page.events)

    async def trace(self, thing: str) -> TracedThing:
        """Gives spans and events of a trace, a grant, an event, or a ticket."""
        request = pb.GetTraceRequest(id=thing)
        return wire.traced(await self._personal(self._stub.GetTrace, request))

    async def spans(
        self, *, attributes: Mapping[str, str], name: str, since: datetime, until: datetime, most: int
    ) -> AsyncIterator[MeasuredSpan]:
        """Goes through spans, newest first, at most so many."""
        request = pb.SearchSpansRequest(name=name)
        request.attributes.extend(pb.SpanAttribute(key=k, value=v) for k, v in attributes.items())
        request.since.FromDatetime(since)
        request.until.FromDatetime(until)
        while most > 0:
            request.page_size = min(most, MOST_PAGE)
            answer = await self._personal(self._stub.SearchSpans, request)
            for message in answer.spans:
                yield wire.span(message)
            most -= len(answer.spans)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return

    async def reconcile(self, since: datetime, until: datetime) -> AsyncIterator[Reconciled]:
        """Compares ledger and spans, part by part, newest first."""
        request = pb.ReconcileRequest()
        request.since.FromDatetime(since)
        while since < until:
            request.until.FromDatetime(until)
            reached = until
            answers = self._personal_stream(self._stub.Reconcile, request, timeout=RECONCILE_TIMEOUT)
            try:
                async with aclosing(answers):
                    async for answer in answers:
                        part = wire.reconciled(answer)
                        yield part
                        reached = part.since
            except TimedOutError:  # a long time takes several calls
                if reached == until:
                    raise
            until = reached

    async def checkpoint(self) -> tuple[str, tuple[str, ...]]:
        """Gives the newest published checkpoint, and the records of rotation that lead to its key."""
        answer = await self._personal(self._stub.GetCheckpoint, pb.GetCheckpointRequest())
        return answer.checkpoint, tuple(answer.rotations)

    async def log_key(self) -> tuple[str, tuple[str, ...]]:
        """Gives the log's first public key, and the records by which each handed over to the next."""
        answer = await self._personal(self._stub.GetCheckpoint, pb.GetCheckpointRequest())
        return answer.key, tuple(answer.rotations)

    async def prove(self, event_id: str) -> str:
        """Gives the proof that an event is in the log, as JSON for `broker audit verify-proof`."""
        request = pb.ProveInclusionRequest(event_id=event_id)
        return (await self._personal(self._stub.ProveInclusion, request)).proof

    async def prove_consistency(self, old_size: int, new_size: int = 0) -> str:
        """Gives the proof that the log only grew from one size to another, or to the newest, as JSON."""
        request = pb.ProveConsistencyRequest(old_size=old_size, new_size=new_size)
        return (await self._personal(self._stub.ProveConsistency, request)).proof

    async def stream(
        self, from_index: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[EventBatch]:
        """Gives events in the order of the transparency log, each once, over all reconnections.

        Args:
            from_index: of the first leaf; None: what comes from now on.
            follow: go on for ever; without it, up to the newest leaf.

        Raises:
            BrokerCallError: the broker refuses; one that does not answer is waited for when following.
        """
        at, pause = from_index, FIRST_PAUSE
        while True:
            behind = False
            request = pb.StreamEventsRequest(from_index=at, follow=follow)
            try:
                answers = self._personal_stream(self._stub.StreamEvents, request, timeout=STREAM_TIMEOUT)
                async with aclosing(answers):
                    async for answer in answers:
                        at, pause = answer.next_index, FIRST_PAUSE
                        behind = bool(answer.events)
                        yield EventBatch(tuple(map(wire.event, answer.events)), at)
            except (UnavailableError, TimedOutError):
                if not follow:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, MOST_PAUSE)
                continue
            if not follow and not behind:
                return

    async def exposure(self, query: ExposureQuery) -> AsyncIterator[ExposedCustomer | ExposureTotals]:
        """Reports whose data was given out: customers in the order of their pseudonyms, the counts last.

        Raises:
            ClientError: the broker refuses, or the report broke off; customers may have come before.
        """
        request = wire.exposure_request(query)
        whole = False
        answers = self._personal_stream(self._stub.ReportExposure, request, timeout=EXPOSURE_TIMEOUT)
        async with aclosing(answers):
            async for answer in answers:
                if answer.HasField("customer"):
                    yield wire.exposed_customer(answer.customer)
                else:
                    whole = True
                    yield wire.exposure_totals(answer.totals)
        if not whole:
            raise ClientError("the report ended without its counts")

    async def build_pack(self, query: ExposureQuery, write: Callable[[bytes], object]) -> PackSummary:
        """Takes the notification pack of a report: an archive that anybody checks with the log's public key.

        Args:
            query: whose disclosures.
            write: takes the archive, part by part; it is one only once this has returned.

        Raises:
            ClientError: the broker refuses, or the pack broke off; parts may have come before.
        """
        digest, length = hashlib.sha256(), 0
        parts = self._personal_stream(self._stub.BuildPack, wire.pack_request(query), timeout=PACK_TIMEOUT)
        async with aclosing(parts):
            async for part in parts:
                if part.HasField("summary"):
                    summary = wire.pack_summary(part.summary)
                    whole = digest.digest() if length else b""
                    if (summary.length, summary.sha256) != (length, whole):
                        break
                    return summary
                digest.update(part.chunk)
                length += len(part.chunk)
                write(part.chunk)
        raise ClientError("the pack broke off; ask for it again")

    async def attribute_leak(self, complaints: bytes, *, among_all: bool = False) -> LeakRanking:
        """Ranks whose reads explain complaints; not repeated, as identifiers are counted.

        Args:
            complaints: a complaint file, as `broker audit attribute` reads it.
            among_all: compare among all customers, not within the same queues and weeks.
        """
        request = pb.AttributeLeakRequest(complaints=complaints, among_all=among_all)
        answer = await self._personal(self._stub.AttributeLeak, request, timeout=LEAK_TIMEOUT, safe=False)
        return wire.leak_ranking(answer)

    async def access(self, customer_id: str, time: datetime) -> AccessReport:
        """Reports who could have read a customer at a time, beside who did; not repeated, as it is counted.

        Args:
            customer_id: the customer's key.
            time: when.
        """
        request = pb.ReportAccessRequest(customer_id=customer_id)
        request.time.FromDatetime(time)
        answer = await self._personal(self._stub.ReportAccess, request, timeout=AGENTS_TIMEOUT, safe=False)
        return agents_wire.access_report(answer, time)

    async def unexplained(self, since: date, *, alpha: float = 0.01) -> UnexplainedReads:
        """Lists agents by how much they read without working on the ticket, against their peers.

        Args:
            since: first day.
            alpha: chance that any honest agent is ever called, in steps of a millionth.
        """
        request = pb.ListUnexplainedReadsRequest(
            since=since.isoformat(), alpha_millionths=round(alpha * 1_000_000)
        )
        answer = await self._personal(self._stub.ListUnexplainedReads, request, timeout=AGENTS_TIMEOUT)
        return agents_wire.unexplained(answer)

    async def resolve(self, pseudonyms: Sequence[str], *, reason: str) -> dict[str, str]:
        """Gives the customers' keys behind pseudonyms, for notifying them; erased people have none.

        Args:
            pseudonyms: any number; each thousand is a call, and an event.
            reason: why, for the ledger; no personal data of customers.
        """
        names = list(dict.fromkeys(pseudonyms))
        found: dict[str, str] = {}
        for start in range(0, len(names), MOST_PSEUDONYMS):
            request = pb.ResolvePseudonymsRequest(
                pseudonyms=names[start : start + MOST_PSEUDONYMS], reason=reason
            )
            answer = await self._personal(self._stub.ResolvePseudonyms, request, timeout=CUSTOMER_SECONDS)
            found |= {each.pseudonym: each.customer_id for each in answer.customers}
        return found

    async def erase(self, customer_id: str, *, reason: str) -> ErasedCustomer:
        """Erases a customer for ever; safe to repeat, to be repeated where it failed.

        Args:
            customer_id: the customer's key.
            reason: why, for the ledger; no personal data of customers.
        """
        answer = await self._personal(
            self._stub.EraseCustomer,
            pb.EraseCustomerRequest(customer_id=customer_id, reason=reason),
            timeout=CUSTOMER_SECONDS,
        )
        return ErasedCustomer(
            answer.pseudonym, answer.revoked, answer.grants, answer.tickets, answer.salt_destroyed,
            answer.decision_id,
        )  # fmt: skip
