"""Refusals on record: an agent hears "no" only once the ledger has it.

Invariants:
- a refusal's decision id is its event's id;
- beyond a rate per peer and reason, refusals are counted into one event, so that nobody can fill the
  ledger by being refused (their decision ids then name no event);
- when the record cannot be written the answer is UNAVAILABLE, whatever it would have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from broker.errors import BrokerError
from broker.ledger import NO_TRACE, DenialRate, Event, EventIds, EventKind, Ledger
from broker.model import Caller, Decided

UNRECORDED = frozenset({"UNAVAILABLE", "INTERNAL"})
"""Codes that say nothing about the caller; they are metrics and log lines, not events."""


class Refusals:
    """Puts refusals on record."""

    def __init__(self, ledger: Ledger, ids: EventIds, rate: DenialRate) -> None:
        """Takes the ledger, the ids and the rate beyond which refusals are counted."""
        self._ledger = ledger
        self._ids = ids
        self._rate = rate

    async def record(
        self,
        error: BrokerError,
        *,
        trace_id: str,
        caller: Caller | None = None,
        agent: str = "",
        tool: str = "",
        method: str = "",
        grant_id: UUID | None = None,
        customer: str = "",
        ticket: str = "",
        policy_version: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> BrokerError:
        """Puts a refusal on record, once, and gives it back with its decision id.

        Args:
            error: the refusal; one that is on record already is given back as it is.
            trace_id: of the request's trace.
            caller: who, where both identities are known.
            agent: who, as `issuer|subject`, where there is no caller; an administrator.
            tool: the tool's identity where only that is known.
            method: full name of the RPC.
            grant_id: of the grant that was used.
            customer: the customer's pseudonym, where the agent works on a ticket that is about them.
            ticket: the ticket's pseudonym.
            policy_version: what decided, if anything did.
            detail: what the ledger shall tell beyond the reason; no personal data.

        Raises:
            LedgerUnavailableError: it could not be put on record.
        """
        if error.decision_id is not None:
            return error
        error.decision_id = self._ids.new()
        if error.code in UNRECORDED:
            return error
        peer = caller.tool.identity if caller else tool
        agent = caller.principal.agent.key if caller else agent
        if not self._rate.admit(f"{peer}\n{agent}", error.reason):
            return error
        kind = EventKind.LOGIN_FAILURE if error.code == "UNAUTHENTICATED" else EventKind.DENIAL
        told = {"method": method, **({"cause": error.cause} if error.cause else {}), **(detail or {})}
        await self._ledger.append(
            Event(
                id=error.decision_id,
                kind=kind,
                outcome="refused",
                trace_id=trace_id,
                agent=agent,
                tool=peer,
                grant_id=grant_id,
                customer=customer,
                ticket=ticket,
                reason=error.reason,
                policy_version=policy_version,
                detail=told,
            )
        )
        return error

    async def record_counts(self, *, everything: bool = False) -> None:
        """Appends one event per peer and reason whose refusals were only counted; call it often.

        Args:
            everything: also those whose minute still runs; at shutdown.

        Raises:
            LedgerUnavailableError: the ledger does not take them; the counts are kept for the next call.
        """
        due = self._rate.due(everything=everything)
        while due:
            peer, reason, count = due[-1]
            tool, _, agent = peer.partition("\n")
            event = Event(
                id=self._ids.new(),
                kind=EventKind.DENIALS,
                outcome="refused",
                trace_id=NO_TRACE,
                agent=agent,
                tool=tool,
                reason=reason,
                detail={"count": count},
            )
            try:
                await self._ledger.append(event)
            except BrokerError:
                for held in due:  # counted on until the ledger takes them
                    self._rate.give_back(*held)
                raise
            due.pop()


def decision_detail(decided: Decided) -> dict[str, Any]:
    """Says what a decision saw and said, for the ledger: enough to decide it again, no personal data.

    Equal decisions have equal details, to the byte: a replay decides them once (`replaying.py`).
    """
    return {
        "facts": decided.facts.as_mapping(),
        "roles": sorted(decided.roles),
        "groups": sorted(decided.mapped_groups),
        "fields": {
            f.name: [f.level.value, f.rule] if f.level else ["withheld", *f.missing]
            for f in decided.decision.fields
        },
    }
