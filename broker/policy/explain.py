"""Says what was missing where a field is withheld, measured against the nearest rules that allow it.

Invariants:
- a sentence speaks of the policy and never of the ticket's facts: facts are folded, so one
  explanation serves many tickets;
- what it asks for would really be enough: the decision is taken again with it, denials included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from broker.model import Level
from broker.policy.rules import CONDITIONS, Rule
from broker.policy.table import Point

MAX_SENTENCES = 3
"""Most ways that are told; beyond them an answer is a list nobody reads."""

MAX_NEAREST = 60
"""Most rules of one kind of distance that are looked at."""

NOTHING_ALLOWS = "no rule allows this field"

_DIMENSIONS = ("role", *CONDITIONS)
_NOUNS = {
    "role": "role",
    "purpose": "purpose",
    "relation": "relation",
    "ticket_kind": "ticket kind",
    "provenance": "provenance",
    "opened_by": "a ticket opened by",
    "presence": "presence",
}
_GLOSSES = {
    ("presence", "present"): " (the customer is not on the line now)",
    ("presence", "absent"): " (the customer is on the line now)",
    ("provenance", "routed"): " (assigned by the helpdesk, not by an agent)",
    ("provenance", "peer"): " (handed over by a colleague)",
}


def explain(point: Point, field: str) -> tuple[str, ...]:
    """Gives sentences about a withheld field: the denials that refused it, or what would have been enough."""
    return _denials(point, field) or _needs(point, field) or (NOTHING_ALLOWS,)


def _denials(point: Point, field: str) -> tuple[str, ...]:
    """Names denials that took away what a rule allows, and those that leave no level at all."""
    table = point.table
    bits = 0
    for level in (Level.CLEAR, Level.MASKED):
        hits = table.hits(point.ground, field, level)
        if hits & table.allow or level is Level.MASKED:
            bits |= hits & table.deny
    return tuple(f"refused by {rule.place} (explicit deny)" for rule in table.each(bits, MAX_SENTENCES))


def _needs(point: Point, field: str) -> tuple[str, ...]:
    """Finds the allow rules that miss the fewest of the request's words."""
    table = point.table
    candidates = table.allow & table.fields[field]
    matches = [table.role_bits(point.roles)]
    matches += [
        column.get(word, column[""]) for column, word in zip(table.columns, point.conditions, strict=True)
    ]
    for size in range(1, len(_DIMENSIONS) + 1):
        sentences: list[str] = []
        for missing in combinations(range(len(_DIMENSIONS)), size):
            bits = candidates
            for i, match in enumerate(matches):
                bits &= ~match if i in missing else match
            nearest = [rule for rule in table.each(bits, MAX_NEAREST) if _enough(point, field, rule, missing)]
            sentences += _sentences(nearest, missing)
        if sentences:
            return tuple(("or " if i else "") + text for i, text in enumerate(sentences[:MAX_SENTENCES]))
    return ()


def _enough(point: Point, field: str, rule: Rule, missing: Sequence[int]) -> bool:
    """Decides again as if the missing words were what the rule wants."""
    roles = point.roles | {rule.role} if 0 in missing else point.roles
    conditions = tuple(
        rule.conditions[i] if i + 1 in missing else word for i, word in enumerate(point.conditions)
    )
    return point.table.outcome(point.table.ground(roles, conditions), field)[1] is not None


def _sentences(rules: Sequence[Rule], missing: Sequence[int]) -> list[str]:
    """Joins rules that differ in one word only: "needs role billing and ticket kind billing or refund"."""
    wants = {tuple((rule.role, *rule.conditions)[i] for i in missing) for rule in rules}
    if not wants:
        return []
    # The column with the most words is the one worth joining.
    joined = max(range(len(missing)), key=lambda at: len({want[at] for want in wants}))
    groups: dict[tuple[str, ...], list[str]] = {}
    for want in sorted(wants):
        groups.setdefault((*want[:joined], *want[joined + 1 :]), []).append(want[joined])
    sentences = []
    for others, words in groups.items():
        choices = [[word] for word in others]
        choices.insert(joined, words)
        phrases = [_phrase(_DIMENSIONS[i], choice) for i, choice in zip(missing, choices, strict=True)]
        sentences.append("needs " + " and ".join(phrases))
    return sentences


def _phrase(dimension: str, words: Sequence[str]) -> str:
    *most, last = words
    listed = f"{', '.join(most)} or {last}" if most else last
    gloss = _GLOSSES.get((dimension, last), "") if not most else ""
    return f"{_NOUNS[dimension]} {listed}{gloss}"
