"""Reads rules, conditions and changes of facts aloud: sentences for people who do not read tables.

Invariants:
- what a sentence does not mention does not matter (`any`);
- a sentence says all that its words say: two different boxes never read the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.catalog import Catalog
from broker.policy.boxes import Side, Space
from broker.policy.everywhere import OTHER_KIND
from broker.policy.lines import ANY
from broker.policy.rules import CONDITIONS, Rule

_RELATIONS = {
    "assignee": "its assignee",
    "supervisor": "its supervisor",
    "collaborator": "a collaborator",
    "none": "somebody without a relation to it",
}
_PROVENANCES = {
    "routed": "routed to the agent",
    "peer": "handed over by a colleague",
    "self": "taken by the agent",
    "imported": "imported",
    "unknown": "assigned in a way that nobody recorded",
}
_OPENERS = {
    "customer": "the customer",
    "peer": "a colleague",
    "self": "the agent",
    "system": "a system",
    "imported": "an import",
    "unknown": "somebody whom nobody recorded",
}
_BUT = {
    "roles": "any role but {}",
    "purpose": "any purpose but {}",
    "relation": "anybody but {}",
    "ticket_kind": "any but {}",
    "provenance": "anything but {}",
    "opened_by": "anybody but {}",
    "presence": "anything but {}",
}
_KINDS = {OTHER_KIND: "one that the catalog lacks"}
LEVELS_ALOUD = {"clear": "in clear", "masked": "masked"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The words of one dimension: these, or all but these, whichever are fewer to say."""

    words: tuple[str, ...]
    but: bool = False

    @classmethod
    def of(cls, space: Space, at: int, side: Side) -> Choice | None:
        """Makes the choice that a side of a box is; None where any word will do."""
        left_out = tuple(word for word in space.words[at] if word not in side)
        if not left_out and len(side) > 1:
            return None
        # All but one or two: said in place of at least twice as many.
        if left_out and 2 * len(left_out) <= len(side):
            return cls(left_out, but=True)
        return cls(tuple(space.ordered(at, side)))


Words = Mapping[str, Choice]
"""The choice in each dimension that is not `any`, by its name."""


def either(words: Sequence[str]) -> str:
    """Lists alternatives: `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def rule_aloud(rule: Rule, catalog: Catalog) -> str:
    """Reads a rule aloud."""
    words = {
        name: Choice((word,)) for name, word in zip(CONDITIONS, rule.conditions, strict=True) if word != ANY
    }
    what = field_aloud(rule.field, catalog)
    if rule.effect == "deny":
        who = "Nobody" if rule.role == ANY else f"No agent with {rule.role}"
        sees = f"sees {what} {LEVELS_ALOUD.get(rule.level, 'at all')}"
    else:
        who = "Agents" if rule.role == ANY else f"Agents with {rule.role}"
        sees = f"see {what} {LEVELS_ALOUD.get(rule.level, 'in clear or masked')}"
    end = f", until the end of {rule.until}" if rule.until else ""
    return f"{_sentence(who, words, sees)}{end}."


def way_aloud(role_sets: Sequence[str], words: Words) -> str:
    """Says who may do something, and under which conditions."""
    return f"{_sentence(f'agents with {either(role_sets)}', words, '')}"


def change_aloud(words: Words, *, more_roles: bool) -> str:
    """Says what would have to be otherwise: `the ticket were routed to the agent and …`.

    Args:
        words: the words that would do, by dimension; for `roles`, the roles to have, for `without`, those to
            lose, either of which is enough.
        more_roles: the agent has roles already.
    """
    also = "also " if more_roles else ""
    parts = {
        "roles": f"the agent {also}had {{}}",
        "without": "the agent were without {}",
        "purpose": "the purpose were {}",
        "relation": "the agent were {}",
        "ticket_kind": "the ticket were of kind {}",
        "provenance": "the ticket were {}",
        "opened_by": "the ticket were opened by {}",
        "presence": "the customer were {}",
    }
    return " and ".join(parts[name].format(_told(name, some)) for name, some in words.items())


def places(rules: Sequence[Rule]) -> str:
    """Names rules by their lines: `policy.csv:12, 15 until 2027-01-31`."""
    first, *more = rules
    return ", ".join([first.place + ending(first), *(f"{rule.line}{ending(rule)}" for rule in more)])


def ending(rule: Rule) -> str:
    """Says until when a rule holds, where it ends: ` until 2027-01-31`."""
    return f" until {rule.until}" if rule.until else ""


def field_aloud(field: str, catalog: Catalog) -> str:
    """Reads a rule's field: `contact fields`, `any field`, or its name."""
    if field == ANY:
        return "any field"
    return f"{field} fields" if field in catalog.field_classes else field


def _sentence(who: str, words: Words, what: str) -> str:
    clauses = {
        "purpose": "to {}",
        "ticket_kind": "on a ticket of kind {}",
        "relation": "as {}",
        "provenance": "where it was {}",
        "opened_by": "opened by {}",
        "presence": "while the customer is {}",
    }
    told = [
        clause.format(_told(name, words[name]))
        if name in words
        else ("on any ticket" if name == "ticket_kind" else "")
        for name, clause in clauses.items()
    ]
    return ", ".join(text for text in (who, *told, what) if text)


def _told(name: str, choice: Choice) -> str:
    phrases: Mapping[str, str] = {
        "relation": _RELATIONS,
        "ticket_kind": _KINDS,
        "provenance": _PROVENANCES,
        "opened_by": _OPENERS,
    }.get(name, {})
    listed = [phrases.get(word, word) for word in choice.words]
    told = " or without ".join(choice.words) if name == "without" else either(listed)
    return _BUT[name].format(told) if choice.but else told
