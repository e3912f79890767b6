"""CreateGrant, step by step; the numbers are those of the story in `__init__.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from broker import telemetry
from broker.access.ground import ATTEMPTS, STALE, facts_of, refused_by_append, standing_refusal
from broker.access.opened import Bases, Basis, OpenGrant, OpenGrants
from broker.access.prepared import Prepared, PreparedDecisions, said
from broker.access.refusals import Refusals, decision_detail
from broker.access.values import GrantAnswer, GrantRequest
from broker.errors import (
    AudienceDeniedError,
    BrokerError,
    FieldUnknownError,
    PolicyDeniedError,
    PolicyUnavailableError,
    PurposeUnknownError,
    RequestMalformedError,
    TicketDeniedError,
)
from broker.grants import GrantTokens
from broker.ledger import EventIds, EventKind, GrantAppend, Ledger, head, rest_of
from broker.model import Caller, Decision, FieldDecision, Grant
from broker.policy import Policy, PolicyHolder, Tally
from broker.records import RecordReader
from broker.telemetry import CompactTrace
from broker.tickets import Standing, Tickets

_PLANNED = {"create_time": datetime.now(UTC), "expire_time": datetime.now(UTC), "trace_id": ""}
"""Of a grant's row, what is not known before it is made; times have ten digits until the year 2286."""


class GrantCreation:
    """Creates grants."""

    def __init__(
        self,
        *,
        policy: PolicyHolder,
        tickets: Tickets,
        records: RecordReader,
        ledger: Ledger,
        tokens: GrantTokens,
        refusals: Refusals,
        ids: EventIds,
        opened: OpenGrants,
        shadow: Tally,
        audience: str,
        audiences: Callable[[str], tuple[str, ...]],
        grant_seconds: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what it uses.

        Args:
            policy: the policy in force, swapped whole.
            tickets: the ground of agents on tickets.
            records: derives pseudonyms in the records database.
            ledger: the record.
            tokens: makes grants' JWTs.
            refusals: puts refusals on record.
            ids: event ids.
            opened: grants that this worker keeps open for the reads to come.
            shadow: counts what a shadow policy is to be held against.
            audience: the broker's own audience.
            audiences: which further audiences a tool may ask for, by tool identity.
            grant_seconds: longest life of a grant, whatever the policy's limits say.
            steady: seconds that only count up; lets go what is remembered.
        """
        self._policy = policy
        self._tickets = tickets
        self._records = records
        self._ledger = ledger
        self._tokens = tokens
        self._refusals = refusals
        self._ids = ids
        self._opened = opened
        self._shadow = shadow
        self._audience = audience
        self._audiences = audiences
        self._grant_seconds = grant_seconds
        self._bases = Bases(steady)
        self._prepared = PreparedDecisions()

    async def create(self, caller: Caller, request: GrantRequest, trace: CompactTrace) -> GrantAnswer:
        """Creates a grant, or gives again the one that stands under the request's id.

        Raises:
            BrokerError: the grant is refused; the refusal is on record.
        """
        audience = self._check_request(caller, request)
        grant_id = uuid4()
        agent = caller.principal.agent.key
        for _ in range(ATTEMPTS):
            policy = self._policy.current
            seconds = self._seconds(policy, request)
            # (1), (3): remembered from the grant before on this ticket, or asked now
            remembered = self._bases.get((agent, request.ticket_id, request.customer_id))
            basis = remembered or await self._resolve(caller, request, trace)
            facts = facts_of(basis.standing, request.purpose)
            # (2)
            with trace.step(telemetry.DECIDE):
                prepared = self._prepared.get(policy, caller.principal.groups, facts, request.fields)
                decided = prepared.decided
                decision = decided.decision
            if not decision.allowed:
                if remembered is not None:  # nobody compares the facts of a denial: ask for those of now
                    self._bases.drop((agent, request.ticket_id, request.customer_id))
                    continue
                self._shadow.saw(decided)
                raise await self._refusals.record(
                    PolicyDeniedError(metadata=_missing_metadata(decision)),
                    trace_id=trace.trace_id,
                    caller=caller,
                    method="CreateGrant",
                    customer=basis.customer_pseudonym,
                    ticket=basis.ticket_pseudonym,
                    policy_version=decision.policy_version,
                    detail=decision_detail(decided),
                )
            # (4)
            planned = {**_PLANNED, "grant_id": grant_id, "policy_version": policy.version}
            self._tokens.check_length(
                _grant(caller, request, audience, decided.roles, decision.fields, planned)
            )
            append = self._grant_append(
                caller, request, basis, prepared, trace,
                grant_id=grant_id, audience=audience, seconds=seconds,
            )  # fmt: skip
            with trace.step(telemetry.APPEND):
                verdict = await self._ledger.append(append)
            if verdict.reason:
                self._bases.drop((agent, request.ticket_id, request.customer_id))
            if verdict.reason in STALE:
                if verdict.reason == "POLICY_STALE":
                    await self._policy.refresh()
                continue
            if verdict.reason:
                raise refused_by_append(append.id, verdict)
            self._shadow.saw(decided)
            self._bases.put((agent, request.ticket_id, request.customer_id), basis)
            if verdict.row["grant_id"] == grant_id:
                self._opened.put(
                    grant_id,
                    agent,
                    OpenGrant(
                        guard_pass=verdict.row["pass"],
                        customer_pseudonym=basis.customer_pseudonym,
                        ticket_pseudonym=basis.ticket_pseudonym,
                        levels=decision.allowed,
                        expire_time=verdict.row["expire_time"],
                        facts=facts,
                        facts_version=basis.standing.ground.facts_version,
                        present=basis.standing.present,
                    ),
                )
            # (5)
            with trace.step(telemetry.SIGN):
                row = verdict.row
                fields = decision.fields if row["grant_id"] == grant_id else said(row["answer"])
                return self._answer(caller, request, audience, decided.roles, fields, row)
        raise PolicyUnavailableError(cause="facts or policy kept changing")

    async def _resolve(self, caller: Caller, request: GrantRequest, trace: CompactTrace) -> Basis:
        """Asks what the agent has to do with the ticket, and for the pseudonyms of what it is about."""
        with trace.step(telemetry.RESOLVE):
            standing = await self._tickets.ground(request.ticket_id, caller.principal.agent)
        if refusal := standing_refusal(standing):
            raise await self._refuse_ticket(caller, request, refusal, trace)
        customer = _choose_customer(standing, request.customer_id)
        if customer is None:
            raise await self._refuse_ticket(caller, request, TicketDeniedError(), trace)
        with trace.step(telemetry.DERIVE_PSEUDONYMS):
            of_customer, of_ticket = await self._records.pseudonyms(customer, request.ticket_id)
        return Basis(standing, customer, of_customer, of_ticket)

    def _seconds(self, policy: Policy, request: GrantRequest) -> float:
        limits = policy.limits
        longest = min(limits.maximum_grant_minutes * 60, self._grant_seconds)
        return min(request.seconds or limits.default_grant_minutes * 60, longest)

    def _check_request(self, caller: Caller, request: GrantRequest) -> str:
        catalog = self._policy.current.catalog
        if request.purpose not in catalog.purposes:
            raise PurposeUnknownError(field="purpose")
        for index, name in enumerate(request.fields):
            if name not in catalog.fields:
                raise FieldUnknownError(field=f"fields[{index}]")
        audience = request.audience or self._audience
        if audience != self._audience and audience not in self._audiences(caller.tool.identity):
            raise AudienceDeniedError(field="audience")
        return audience

    async def _refuse_ticket(
        self, caller: Caller, request: GrantRequest, error: BrokerError, trace: CompactTrace
    ) -> BrokerError:
        """Records a refusal on a ticket under a pseudonym that links it to no customer."""
        with trace.step(telemetry.DERIVE_PSEUDONYMS):
            _, ticket = await self._records.pseudonyms("", request.ticket_id)
        with trace.step(telemetry.APPEND):
            return await self._refusals.record(
                error,
                trace_id=trace.trace_id,
                caller=caller,
                method="CreateGrant",
                ticket=ticket,
                detail={"purpose": request.purpose},
            )

    def _grant_append(
        self,
        caller: Caller,
        request: GrantRequest,
        basis: Basis,
        prepared: Prepared,
        trace: CompactTrace,
        *,
        grant_id: UUID,
        audience: str,
        seconds: float,
    ) -> GrantAppend:
        event_id = self._ids.new()
        policy_version = prepared.decided.decision.policy_version
        agent = caller.principal.agent.key
        rest = rest_of(
            EventKind.GRANT,
            agent=agent,
            tool=caller.tool.identity,
            grant_id=grant_id,
            customer=basis.customer_pseudonym,
            ticket=basis.ticket_pseudonym,
            policy_version=policy_version,
            detail=prepared.detail,
        )
        return GrantAppend(
            id=event_id,
            grant_id=grant_id,
            request_id=request.request_id,
            request_hash=request.digest(caller.tool.identity),
            agent=agent,
            tool=caller.tool.identity,
            thumbprint=caller.tool.thumbprint,
            ticket_id=request.ticket_id,
            customer_id=basis.customer,
            customer_pseudonym=basis.customer_pseudonym,
            ticket_pseudonym=basis.ticket_pseudonym,
            purpose=request.purpose,
            audience=audience,
            fields=prepared.fields,
            levels=prepared.levels,
            answer=prepared.answer(request.purpose, audience),
            policy_version=int(policy_version),
            facts_version=basis.standing.ground.facts_version,
            present=basis.standing.present,
            seconds=seconds,
            per_hour=prepared.budget.per_hour,
            per_day=prepared.budget.per_day,
            trace_id=trace.trace_id,
            head=head(event_id, trace.trace_id, rest),
        )

    def _answer(
        self,
        caller: Caller,
        request: GrantRequest,
        audience: str,
        roles: frozenset[str],
        fields: tuple[FieldDecision, ...],
        row: Any,
    ) -> GrantAnswer:
        grant = _grant(caller, request, audience, roles, fields, row)
        return GrantAnswer(
            grant_id=grant.grant_id,
            decision_id=row["decision_id"],
            token=self._tokens.mint(grant),
            ticket_id=grant.ticket_id,
            purpose=grant.purpose,
            fields=fields,
            policy_version=grant.policy_version,
            create_time=grant.create_time,
            expire_time=grant.expire_time,
            trace_id=grant.trace_id,
        )


def _grant(
    caller: Caller,
    request: GrantRequest,
    audience: str,
    roles: frozenset[str],
    fields: tuple[FieldDecision, ...],
    row: Any,
) -> Grant:
    return Grant(
        grant_id=row["grant_id"],
        agent=caller.principal.agent,
        tool_identity=caller.tool.identity,
        tool_thumbprint=caller.tool.thumbprint,
        ticket_id=request.ticket_id,
        purpose=request.purpose,
        audience=audience,
        levels={f.name: f.level for f in fields if f.level is not None},
        policy_version=str(row["policy_version"]),
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        roles=roles,
        trace_id=row["trace_id"],
    )


def _choose_customer(standing: Standing, wanted: str) -> str | None:
    customers = standing.ground.customers
    if wanted:
        return wanted if wanted in customers else None
    if len(customers) > 1:
        raise RequestMalformedError(
            field="customer_id", detail="The ticket links several customers; name one in customer_id."
        )
    return customers[0] if customers else None


def _missing_metadata(decision: Decision) -> dict[str, str]:
    """Tells what was missing right in the error, for the first few fields."""
    return {f"missing.{f.name}": "; ".join(f.missing)[:200] for f in decision.fields[:8] if f.missing}
