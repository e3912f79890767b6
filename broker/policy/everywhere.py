"""What a policy decides everywhere: the facts that a rule may see are finite, so all of it can be told.

Invariants:
- every word that a decision may meet is in the space: those of the catalog and the model, and `other`
  for ticket kinds that the helpdesk has and the catalog does not;
- levels come from the same table that decides requests; nothing here knows how rules combine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

from broker.catalog import Catalog
from broker.model import Level, OpenedBy, Presence, Provenance, Relation
from broker.policy.boxes import Box, Space, fold
from broker.policy.rules import CONDITIONS, Rule
from broker.policy.table import LEVELS, Table

if TYPE_CHECKING:
    from broker.policy.decision import Policy

OTHER_KIND = "other"
"""Stands for every ticket kind that the catalog does not declare; nothing can be named so."""

RANK = {None: 0, Level.MASKED: 1, Level.CLEAR: 2}
"""Levels by how much they show."""

ADD_UP = (
    "Any other set of roles sees, at every point, the higher of what its roles see alone: "
    "no denial of one role takes away what another allows (every pair was compared)."
)
PAIRS_DIFFER = (
    "Pairs that are listed see otherwise than the higher of what their two roles see; pairs that are "
    "not listed see just that. Ask for larger sets that hold a listed pair with --roles."
)

Bits = int
Value = TypeVar("Value", bound=Hashable)


def name_of(roles: Iterable[str]) -> str:
    """Names a set of roles: `billing+tier1`."""
    return "+".join(sorted(roles))


def space_of(catalog: Catalog, role_sets: Iterable[frozenset[str]] = ()) -> Space:
    """Gives the space of all decisions; with role sets as its first dimension where some are given."""
    roles = {name_of(each): None for each in role_sets}
    return Space(
        ({"roles": tuple(roles)} if roles else {})
        | {
            "purpose": tuple(catalog.purposes),
            "relation": _words(Relation),
            "ticket_kind": (*catalog.ticket_kinds, OTHER_KIND),
            "provenance": _words(Provenance),
            "opened_by": _words(OpenedBy),
            "presence": _words(Presence),
            "field": tuple(catalog.fields),
        }
    )


def step_of(table: Table, space: Space) -> Callable[[Bits, int, str], Bits]:
    """Gives the step of a fold over that space: the rules that still match after one word more."""
    columns = dict(zip(CONDITIONS, table.columns, strict=True))

    def matching(name: str, word: str) -> Bits:
        if name == "roles":
            return table.role_bits(word.split("+"))
        if name == "field":
            return table.fields[word]
        return columns[name].get(word, columns[name][""])

    bits = [
        {word: matching(name, word) for word in words}
        for name, words in zip(space.names, space.words, strict=True)
    ]
    return lambda state, at, word: state & bits[at][word]


def everywhere(
    table: Table, space: Space, value: Callable[[Bits], Value], roles: Iterable[str] | None = None
) -> dict[Value, list[Box]]:
    """Gives the boxes where each value holds; the value is made from the rules that match a point.

    Args:
        table: the compiled rules.
        space: of `space_of`.
        value: what is asked of the rules that match; see `level_of` and `deciding`.
        roles: who asks, where the space has no dimension for it.
    """
    start = table.everything if roles is None else table.role_bits(roles)
    return fold(space, start, step_of(table, space), value)


def level_of(table: Table) -> Callable[[Bits], Level | None]:
    """Asks for the level; None is withheld."""
    return lambda bits: table.decided(bits)[0]


def deciding(table: Table) -> Callable[[Bits], tuple[Level | None, Rule | None]]:
    """Asks for the level and the rule that decides it.

    Where something is allowed and all the same withheld, that is the denial that took it away. No rule:
    nothing allows it.
    """

    def value(bits: Bits) -> tuple[Level | None, Rule | None]:
        level, rule = table.decided(bits)
        if rule is None:
            for asked in LEVELS:
                hits = table.at_level(bits, asked)
                if hits & table.allow and hits & table.deny:
                    return None, table.first(hits & table.deny)
        return level, rule

    return value


def default_role_sets(policy: Policy) -> tuple[frozenset[str], ...]:
    """Gives each role that a group leads to, and each pair that sees otherwise than its two roles do.

    Allows add up, so a pair can differ only by a denial that names one of its roles; only such pairs
    are compared, and those at every point. Where no pair differs no larger set does: what a set loses,
    it loses by the denial of one role over the allow of another, and these two are a pair.
    """
    table = policy.table
    mapped = sorted(policy.book.mapped_roles)
    pairs = [
        frozenset(pair)
        for pair in combinations(mapped, 2)
        if len({table.role_bits([role]) & table.deny for role in pair}) > 1 and _differs(policy, pair)
    ]
    return (*(frozenset({role}) for role in mapped), *pairs)


def note_on(role_sets: Iterable[frozenset[str]]) -> str:
    """Says what holds for the sets of roles that `default_role_sets` does not give."""
    return PAIRS_DIFFER if any(len(roles) > 1 for roles in role_sets) else ADD_UP


def _differs(policy: Policy, pair: Sequence[str]) -> bool:
    """Says whether two roles together see anywhere more or less than the higher of what each sees."""
    table = policy.table
    space = space_of(policy.catalog)
    step = step_of(table, space)
    level = level_of(table)
    one, other = (table.role_bits([role]) for role in pair)
    found = fold(
        space,
        (one, other, one | other),
        lambda state, at, word: (
            step(state[0], at, word),
            step(state[1], at, word),
            step(state[2], at, word),
        ),
        lambda state: max((level(state[0]), level(state[1])), key=RANK.__getitem__) is not level(state[2]),
    )
    return True in found


def _words(members: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(word) for word in members)
