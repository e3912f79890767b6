"""The compiled table: the rule book as bitsets, one bit per rule, and a memo of what came of them.

Each column of a rule is a set of words (one word, or all), so a rule is a product of sets, and the
rules that match a request are the AND, over the columns, of "the rules whose set holds this word".
Words that no rule mentions behave alike and are folded into one ("other"). That makes the domain
finite and the memo bounded, and a decision costs the same with 10 rules and with 10,000.

Invariants:
- Casbin stays the only semantics: `verify.py` holds this table against it before it decides anywhere;
- an allow has a matching allow rule; nothing else allows;
- any matching denial wins, whichever role or line it comes from; the order of lines is not used;
- tickets, agents and customers do not occur here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from broker.catalog import Catalog
from broker.model import Facts, FieldDecision, Level
from broker.policy.lines import ANY
from broker.policy.rules import CONDITIONS, Rule, RuleBook

OTHER = ""
"""Stands for every word of a column that no rule mentions."""

MEMO_POINTS = 4096
"""Most combinations of roles and folded facts kept; then the memo starts afresh. About 20 MB at worst."""

LEVELS = (Level.CLEAR, Level.MASKED)
"""The levels in the order they are asked: the highest that is allowed wins."""

UNKNOWN_FIELD = "the catalog knows no field of that name"
UNKNOWN_PURPOSE = "the catalog knows no purpose of that name"
BLANK_FACT = "a fact about the ticket is blank"

Explain = Callable[["Point", str], tuple[str, ...]]


class Point(dict[str, FieldDecision]):
    """The decisions for one set of roles and one combination of facts, by field; made when first asked."""

    __slots__ = ("_explain", "conditions", "ground", "refused", "roles", "table")

    def __init__(
        self,
        table: Table,
        roles: frozenset[str],
        conditions: tuple[str, ...],
        explain: Explain,
        refused: str = "",
    ) -> None:
        """Takes the folded request and who can explain a denial; `refused` withholds everything."""
        super().__init__()
        self.table = table
        self._explain = explain
        self.roles = roles
        self.conditions = conditions
        self.refused = refused
        self.ground = 0 if refused else table.ground(roles, conditions)

    def __missing__(self, field: str) -> FieldDecision:
        """Decides a field for the first time."""
        if field not in self.table.fields:  # not kept: there is no end to names that do not exist
            return FieldDecision(field, None, missing=(UNKNOWN_FIELD,))
        if self.refused:
            decision = FieldDecision(field, None, missing=(self.refused,))
        else:
            level, rule = self.table.outcome(self.ground, field)
            if rule is None:
                decision = FieldDecision(field, None, missing=self._explain(self, field))
            else:
                decision = FieldDecision(field, level, rule=rule.place)
        self[field] = decision
        return decision


class Table:
    """The rules as bitsets. Immutable but for its memo, which belongs to the event loop's thread."""

    def __init__(self, book: RuleBook, catalog: Catalog, explain: Explain | None = None) -> None:
        """Compiles a rule book against its catalog.

        Args:
            book: the rules.
            catalog: where fields get their classes and purposes their names.
            explain: says what was missing where a field is withheld; nothing by default.
        """
        self.rules: Sequence[Rule] = book.rules
        self.everything = (1 << len(book.rules)) - 1
        effects = self._column([rule.effect for rule in book.rules])
        self.allow = effects.get("allow", 0)
        self.deny = effects.get("deny", 0)
        # Condition columns: word -> rules that match it; OTHER -> rules that say `any`.
        self.columns: tuple[Mapping[str, int], ...] = tuple(
            self._column([rule.conditions[i] for rule in book.rules]) for i in range(len(CONDITIONS))
        )
        by_role = self._column([rule.role for rule in book.rules])
        self._any_role = by_role[OTHER]
        known = book.mapped_roles | book.nesting.keys() | {rule.role for rule in book.rules} - {ANY}
        self.roles: Mapping[str, int] = {
            role: _union(by_role.get(included, 0) for included in book.closure(role)) | self._any_role
            for role in known
        }
        by_field = self._column([rule.field for rule in book.rules])
        rest = by_field[OTHER]
        self.fields: Mapping[str, int] = {
            name: by_field.get(name, rest) | by_field.get(field.field_class, rest)
            for name, field in catalog.fields.items()
        }
        by_level = self._column([rule.level for rule in book.rules])
        self._levels = tuple((level, by_level.get(level.value, by_level[OTHER])) for level in LEVELS)
        self._by_level = dict(self._levels)
        self._fold = tuple({word: word for word in column if word != OTHER} for column in self.columns)
        self.purposes = frozenset(catalog.purposes)
        self._explain: Explain = explain or (lambda _point, _field: ())
        self._memo: dict[tuple[frozenset[str], tuple[str, ...]], Point] = {}

    @property
    def whole(self) -> tuple[int, ...]:
        """Gives the bitsets that hang on no word: all rules, by effect, of every role, by level."""
        return (self.everything, self.allow, self.deny, self._any_role, *(bits for _, bits in self._levels))

    def point(self, roles: frozenset[str], facts: Facts) -> Point:
        """Gives the decisions for these roles and facts, from the memo where they were asked for before."""
        purpose, relation, kind, provenance, opened_by, presence = self._fold
        conditions = (
            purpose.get(facts.purpose, OTHER),
            relation.get(facts.relation, OTHER),
            kind.get(facts.kind, OTHER),
            provenance.get(facts.provenance, OTHER),
            opened_by.get(facts.opened_by, OTHER),
            presence.get(facts.presence, OTHER),
        )
        # Folding is for words that the catalog knows and the rules do not: others never reach the memo.
        if facts.purpose not in self.purposes:
            return Point(self, roles, conditions, self._explain, UNKNOWN_PURPOSE)
        if not facts.kind:
            return Point(self, roles, conditions, self._explain, BLANK_FACT)
        key = (roles, conditions)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= MEMO_POINTS:
                self._memo.clear()
            found = self._memo[key] = Point(self, roles, conditions, self._explain)
        return found

    def ground(self, roles: Iterable[str], conditions: Sequence[str]) -> int:
        """Gives the rules that match roles and facts, whatever the field and level."""
        bits = self.role_bits(roles)
        for column, word in zip(self.columns, conditions, strict=True):
            bits &= column.get(word, column[OTHER])
        return bits

    def role_bits(self, roles: Iterable[str]) -> int:
        """Gives the rules that speak of any of the roles, of what they include, or of everybody."""
        return _union(self.roles.get(role, 0) for role in roles) | self._any_role

    def outcome(self, ground: int, field: str) -> tuple[Level | None, Rule | None]:
        """Gives the highest level that is allowed and the first rule that allows it."""
        return self.decided(ground & self.fields[field])

    def decided(self, matching: int) -> tuple[Level | None, Rule | None]:
        """Gives the same of the rules that match roles, facts and field."""
        for level, bits in self._levels:
            hits = matching & bits
            if hits & self.allow and not hits & self.deny:
                return level, self.first(hits & self.allow)
        return None, None

    def hits(self, ground: int, field: str, level: Level) -> int:
        """Gives every rule that matches one question as Casbin is asked it."""
        return self.at_level(ground & self.fields[field], level)

    def at_level(self, matching: int, level: Level) -> int:
        """Gives those that speak of a level."""
        return matching & self._by_level[level]

    def first(self, bits: int) -> Rule:
        """Gives the rule of the lowest bit: the one that stands first in the file."""
        return self.rules[(bits & -bits).bit_length() - 1]

    def each(self, bits: int, most: int) -> list[Rule]:
        """Gives the rules of a bitset, in the order of the file."""
        rules: list[Rule] = []
        while bits and len(rules) < most:
            rules.append(self.first(bits))
            bits &= bits - 1
        return rules

    def _column(self, words: Sequence[str]) -> dict[str, int]:
        """Compiles one column: a word's bitset holds the rules that name it and those that say `any`."""
        named: dict[str, bytearray] = {ANY: bytearray(len(words) // 8 + 1)}
        for i, word in enumerate(words):
            if word not in named:
                named[word] = bytearray(len(words) // 8 + 1)
            named[word][i >> 3] |= 1 << (i & 7)
        bits = {word: int.from_bytes(array, "little") for word, array in named.items()}
        rest = bits.pop(ANY)
        return {OTHER: rest} | {word: own | rest for word, own in bits.items()}


def _union(bitsets: Iterable[int]) -> int:
    bits = 0
    for each in bitsets:
        bits |= each
    return bits
