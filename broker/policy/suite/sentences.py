"""A failure as a sentence: who, on which ticket, would see what, and which rule lets them."""

from __future__ import annotations

from collections.abc import Iterable

from broker.model import Facts, FieldDecision, Level, Relation
from broker.policy.suite.cases import Expected

_CAME = {
    "routed": "that was routed to them",
    "peer": "that a colleague handed to them",
    "self": "that they took themselves",
    "imported": "that came to them by an import",
    "unknown": "that came to them in a way nobody recorded",
}
_RELATION = {
    "assignee": "a ticket",
    "supervisor": "a ticket that they supervise",
    "collaborator": "a ticket that they help with",
    "none": "a ticket that is not theirs",
}
_OPENED = {
    "customer": "opened by the customer",
    "peer": "opened by a colleague",
    "self": "opened by themselves",
    "system": "opened by a system",
    "imported": "opened by an import",
    "unknown": "opened by nobody knows whom",
}
_PRESENCE = {"present": "with the customer there", "absent": "with the customer away"}
_EXPECTED = {
    Expected.CLEAR: "clear",
    Expected.MASKED: "masked",
    Expected.WITHHELD: "withheld",
    Expected.NOT_CLEAR: "masked or withheld",
}


def failure_sentence(
    roles: Iterable[str],
    facts: Facts,
    mentioned: Iterable[str],
    decision: FieldDecision,
    expected: Expected,
) -> str:
    """Says what came out otherwise than expected.

    Args:
        roles: of the agent.
        facts: of one situation in which it happens.
        mentioned: the facts that the sentence tells, by name; whatever is not told makes no difference.
        decision: what came out.
        expected: what should have.
    """
    sees = {
        Level.CLEAR: f"would see {decision.name} in clear",
        Level.MASKED: f"would see {decision.name} masked",
        None: f"would not see {decision.name}",
    }[decision.level]
    why = f"allowed by {decision.rule}" if decision.rule else ", ".join(decision.missing)
    who = " with ".join(sorted(roles)) or "an agent without a role"
    return f"{who}, {_situation(facts, frozenset(mentioned))}, {sees}; expected {_EXPECTED[expected]}; {why}"


def _situation(facts: Facts, mentioned: frozenset[str]) -> str:
    ticket = _RELATION[facts.relation]
    if "ticket_kind" in mentioned:
        ticket = ticket.replace("a ticket", f"a ticket of kind {facts.kind}", 1)
    if "provenance" in mentioned and facts.relation is not Relation.NONE:
        joint = "" if facts.relation is Relation.ASSIGNEE else "and "
        ticket += f" {joint}{_CAME[facts.provenance]}"
    parts = [f"on {ticket}"]
    if "opened_by" in mentioned:
        parts.append(_OPENED[facts.opened_by])
    if "presence" in mentioned:
        parts.append(_PRESENCE[facts.presence])
    if "purpose" in mentioned:
        parts.append(f"for {facts.purpose}")
    return ", ".join(parts)
