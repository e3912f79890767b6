"""What every role may see under one policy: four sets of combinations per role and field.

A question is decided by the union of the allows and the union of the denials of all roles that an
agent holds. So a role is known by the combinations at which it allows and at which it denies, at
each of the two levels, and a set of roles by the unions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broker.model import Level
from broker.policy.compare.domain import Domain
from broker.policy.decision import Policy
from broker.policy.lines import ANY

WITHHELD, MASKED, CLEAR = range(3)
"""What may come of a question, as places in `model.SHOWN`."""

Bits = tuple[int, int, int, int]
"""Allowed clear, denied clear, allowed masked, denied masked: each a set of combinations."""

NOTHING: Bits = (0, 0, 0, 0)

Shape = tuple[str, str] | None
"""How rules see a field: by its name where a rule names it, and by its class; None where there is none."""

_PLACES = {("allow", Level.CLEAR): 0, ("deny", Level.CLEAR): 1,
           ("allow", Level.MASKED): 2, ("deny", Level.MASKED): 3}  # fmt: skip


def union(parts: Iterable[Bits]) -> Bits:
    """Joins what several roles allow and deny."""
    a, b, c, d = NOTHING
    for w, x, y, z in parts:
        a, b, c, d = a | w, b | x, c | y, d | z
    return a, b, c, d


def outcome(bits: Bits, whole: int) -> tuple[int, int, int]:
    """Gives the combinations at which a field is withheld, masked and clear."""
    clear = bits[0] & ~bits[1]
    masked = bits[2] & ~bits[3] & ~clear
    return whole & ~(clear | masked), masked, clear


class Rights:
    """One policy's rules as sets of combinations, by role and shape of field."""

    def __init__(self, policy: Policy, domain: Domain) -> None:
        """Compiles the rules."""
        self._book, self._catalog = policy.book, policy.catalog
        self._named = {rule.field for rule in policy.book.rules}
        known = domain.having(0, domain.columns[0].words)
        if unknown := {w for w in domain.columns[0].words if w not in policy.catalog.purposes} - {"other"}:
            known &= ~domain.having(0, unknown)  # a purpose that the catalog lacks is refused
        places: dict[str, list[Shape]] = {}
        for shape in {self.shape(name) for name in self._catalog.fields}:
            if shape is not None:
                for word in {*shape, ANY}:
                    places.setdefault(word, []).append(shape)
        own: dict[str, dict[Shape, list[int]]] = {}
        for rule in policy.book.rules:
            points = domain.spoken_of(rule) & known
            of_role = own.setdefault(rule.role, {})
            for shape in places.get(rule.field, ()):
                bits = of_role.setdefault(shape, [0, 0, 0, 0])
                for level in Level:
                    if rule.level in {ANY, level}:
                        bits[_PLACES[rule.effect, level]] |= points
        self._own: Mapping[str, Mapping[Shape, Bits]] = {
            role: {shape: (b[0], b[1], b[2], b[3]) for shape, b in of_role.items()}
            for role, of_role in own.items()
        }

    def shape(self, field: str) -> Shape:
        """Says how rules see a field."""
        if (found := self._catalog.fields.get(field)) is None:
            return None
        return (field if field in self._named else "", found.field_class)

    def everybody(self, shape: Shape) -> Bits:
        """Gives what rules for `any` role say of a field."""
        return self._own.get(ANY, {}).get(shape, NOTHING)

    def held(self, roles: Iterable[str], shape: Shape) -> Bits:
        """Gives what rules for these roles, and for those that they include, say of a field."""
        every = frozenset().union(*(self._book.closure(role) for role in roles))
        return union(self._own[role].get(shape, NOTHING) for role in every if role in self._own)
