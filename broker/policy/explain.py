"""Says why: what was missing where a field is withheld, and for whoever edits the policy, all there is.

Two forms. `explain` answers agents, beside the decision: quick, measured against the nearest rules that
allow the field. `explain_point` answers administrators: it looks at every point of the domain.

Invariants:
- a sentence for agents speaks of the policy and never of the ticket's facts: facts are folded, so one
  explanation serves many tickets;
- what it asks for would really be enough: the decision is taken again with it, denials included;
- `explain_point` tells every smallest change that gives a higher level, and no other; a change of the roles
  is one role more or one role less, because a denial may name a role that the agent has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from broker.model import Facts, Level
from broker.policy.aloud import LEVELS_ALOUD, Choice, change_aloud, either, places, rule_aloud
from broker.policy.boxes import Box, Space, cover
from broker.policy.everywhere import (
    OTHER_KIND,
    RANK,
    deciding,
    everywhere,
    level_of,
    name_of,
    space_of,
)
from broker.policy.rules import CONDITIONS, Rule
from broker.policy.table import Point

if TYPE_CHECKING:
    from broker.policy.decision import Policy

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


@dataclass(frozen=True, slots=True)
class Change:
    """A smallest change of the request that gives a level: any combination of these words does."""

    level: Level
    words: Mapping[str, tuple[str, ...]]  # by dimension; `roles`: one of these more, `without`: one less
    told: str  # "the ticket were routed to the agent and …"
    rules: tuple[Rule, ...]  # that would decide


@dataclass(frozen=True, slots=True)
class PointExplanation:
    """Why one field is seen as it is by one set of roles under given facts."""

    field: str
    roles: frozenset[str]
    level: Level | None
    rule: Rule | None  # that allows the level
    denials: tuple[Rule, ...]  # that refuse a higher level which some rule allows, or every level
    changes: tuple[Change, ...]  # to a higher level, the smallest there are
    sentences: tuple[str, ...]

    def as_mapping(self) -> dict[str, object]:
        """Gives what a program reads."""
        return {
            "field": self.field,
            "roles": sorted(self.roles),
            "level": self.level.value if self.level else "withheld",
            "rule": self.rule.place if self.rule else None,
            "denials": [rule.place for rule in self.denials],
            "changes": [
                {
                    "level": change.level.value,
                    "words": {name: list(words) for name, words in change.words.items()},
                    "rules": [rule.place for rule in change.rules],
                }
                for change in self.changes
            ],
            "sentences": list(self.sentences),
        }


def explain_point(policy: Policy, roles: frozenset[str], facts: Facts, field: str) -> PointExplanation:
    """Says which rule decides, which denials refuse more, and what would give a higher level.

    Args:
        policy: any that loads.
        roles: the agent's.
        facts: of the request.
        field: a field's full name.
    """
    decision = policy.decide(roles, facts, [field]).fields[0]
    point = policy.table.point(roles, facts)
    if point.refused or field not in policy.table.fields:
        return PointExplanation(field, roles, None, None, (), (), decision.missing)
    level, rule = policy.table.outcome(point.ground, field)
    denials = _refusals(point, field, level)
    changes = () if level is Level.CLEAR else _changes(policy, roles, facts, field, level)
    told = _tell(policy, level, rule, denials)
    told += [f"would be {change.level.value} if {change.told} ({places(change.rules)})" for change in changes]
    if not changes and level is not Level.CLEAR:
        told.append(_nothing(policy, level, field))
    return PointExplanation(field, roles, level, rule, denials, changes, tuple(told))


def _nothing(policy: Policy, level: Level | None, field: str) -> str:
    """Says why no change gives more; who would see more, where it is agents with roles quite different.

    Whatever several roles see, one of them sees alone, because allows add up and denials take away.
    """
    space = Space({**space_of(policy.catalog).dimensions, "field": (field,)})
    alone: dict[Level, list[str]] = {}
    for role in sorted(policy.book.mapped_roles):
        seen = everywhere(policy.table, space, level_of(policy.table), roles=[role])
        best = max(seen, key=RANK.__getitem__)
        if best is not None and RANK[best] > RANK[level]:
            alone.setdefault(best, []).append(role)
    if not alone:
        return f"nothing would give more: {NO_CHANGE[level]}"
    who = [
        f"agents with {either(roles)} alone see it {LEVELS_ALOUD[best]}"
        for best, roles in sorted(alone.items(), key=lambda each: -RANK[each[0]])
    ]
    return f"no other facts and no role more or less would give more; {', '.join(who)}"


NO_CHANGE = {
    None: "no rule allows this field to anybody, or denials always refuse it",
    Level.MASKED: "no rule allows this field in clear to anybody, or denials always refuse it",
}
"""Why no change of the request helps."""


def _refusals(point: Point, field: str, level: Level | None) -> tuple[Rule, ...]:
    """Gives the denials that refuse more than the level."""
    table = point.table
    bits = 0
    for higher in (Level.CLEAR, Level.MASKED):
        hits = table.hits(point.ground, field, higher)
        if RANK[higher] > RANK[level] and (hits & table.allow or higher is Level.MASKED):
            bits |= hits & table.deny
    return tuple(table.each(bits, bits.bit_count()))


def _changes(
    policy: Policy, roles: frozenset[str], facts: Facts, field: str, level: Level | None
) -> tuple[Change, ...]:
    """Finds the smallest changes that give more than the level.

    All points where more is seen are boxes; what must change to enter a box are the dimensions whose
    side lacks the word of now. The nearest boxes are those with the fewest of them.
    """
    held = frozenset().union(*(policy.book.closure(role) for role in roles))
    more = {name_of(roles | {role}): role for role in sorted(policy.book.mapped_roles - held)}
    less = {name_of(roles - {role}): role for role in sorted(roles)}
    now = name_of(roles)
    space = Space({"roles": (now, *more, *less), **space_of(policy.catalog).dimensions, "field": (field,)})
    words = facts.as_mapping()
    if facts.kind not in policy.catalog.ticket_kinds:
        words["ticket_kind"] = OTHER_KIND
    here = (now, *words.values(), field)

    # What is seen more of, and the dimensions in which here is not in the box.
    found = [
        (seen, tuple(i for i, side in enumerate(box.sides) if here[i] not in side), box, rule)
        for (seen, rule), boxes in everywhere(policy.table, space, deciding(policy.table)).items()
        if rule is not None and seen is not None and RANK[seen] > RANK[level]
        for box in boxes
    ]
    least = min((len(missing) for _, missing, _, _ in found), default=0)
    nearest: dict[tuple[Level, tuple[str, ...]], list[tuple[Box, Rule]]] = {}
    for seen, missing, box, rule in found:
        if len(missing) != least:
            continue
        for names, part in _parts(space, missing, box, more, less):
            nearest.setdefault((seen, names), []).append((part, rule))
    return tuple(
        _change(space, names, seen, box, pieces, {**more, **less})
        for (seen, names), pieces in nearest.items()
        for box in cover(_part(space, names), [piece for piece, _ in pieces])
    )


def _parts(
    space: Space, missing: Sequence[int], box: Box, more: Iterable[str], less: Iterable[str]
) -> Iterator[tuple[tuple[str, ...], Box]]:
    """Gives what must change to enter a box, by name: one role more and one role less apart."""
    names = tuple(space.names[i] for i in missing)
    part = Box(tuple(box.sides[i] for i in missing))
    if names[:1] != ("roles",):
        yield names, part
        return
    for name, sets in (("roles", more), ("without", less)):
        if side := part.sides[0].intersection(sets):
            yield (name, *names[1:]), part.replace(0, side)


def _part(space: Space, names: Iterable[str]) -> Space:
    """Gives the space of some dimensions; that of one role more and that of one less are the roles'."""
    words = dict(zip(space.names, space.words, strict=True))
    return Space({name: words["roles" if name == "without" else name] for name in names})


def _change(
    space: Space,
    names: Sequence[str],
    level: Level,
    box: Box,
    pieces: Iterable[tuple[Box, Rule]],
    differing: Mapping[str, str],
) -> Change:
    """Tells one box of changes; role sets with a role more or less are told as that role."""
    part = _part(space, names)
    choices: dict[str, Choice] = {}
    words: dict[str, tuple[str, ...]] = {}
    for i, name in enumerate(part.names):
        words[name] = tuple(part.ordered(i, box.sides[i]))
        if name in {"roles", "without"}:
            words[name] = tuple(differing[word] for word in words[name])
            choices[name] = Choice(words[name])
        else:
            choices[name] = Choice.of(part, i, box.sides[i]) or Choice(words[name])
    rules = {rule for piece, rule in pieces if box.meets(piece)}
    told = change_aloud(choices, more_roles=space.words[0][0] != "")
    return Change(level, words, told, tuple(sorted(rules, key=lambda rule: rule.line)))


def _tell(policy: Policy, level: Level | None, rule: Rule | None, denials: Sequence[Rule]) -> list[str]:
    told = []
    if rule is not None and level is not None:
        told.append(f"{level.value} by {rule.place}: {rule_aloud(rule, policy.catalog)}")
    elif not denials:
        told.append("withheld: no rule allows it here")
    refused = "more than that is refused" if level else "withheld: refused"
    told += [f"{refused} by {denial.place}: {rule_aloud(denial, policy.catalog)}" for denial in denials]
    return told
