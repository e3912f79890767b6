"""Holds the compiled table against Casbin, so that Casbin stays the only semantics.

Invariants:
- what is compared is what decisions are made of: the level that `Point` gives, against asking
  stock `casbin.Enforcer` for clear and then for masked;
- every point where the domain is small enough for the time there is, else a sample whose seed is the
  policy's digest, so that the same files are checked at the same points everywhere;
- half of a sample aims at single rules: in a large domain chance alone would meet few of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice, product
from math import prod
from random import Random

from broker.catalog import Catalog
from broker.errors import PolicyInvalidError
from broker.model import Level, OpenedBy, Presence, Provenance, Relation
from broker.policy.engine import Engine
from broker.policy.files import RULES
from broker.policy.lines import ANY
from broker.policy.rules import Rule, RuleBook
from broker.policy.table import LEVELS, OTHER, Table

UNDECLARED_KIND = "a-kind-that-the-catalog-lacks"
"""Among the ticket kinds that nobody mentions there is always one more: the helpdesk invents them."""

EXHAUSTIVE_POINTS = 50_000
"""Largest domain that is checked whole, where its rules are few enough for the work that there may be."""

START_WORK = 80_000
"""Rules that Casbin may look at while a broker starts: some 0.2 s, for a start within 2 s."""

THOROUGH_WORK = 6_000_000
"""Rules that Casbin may look at in `broker policy check` and `propose`. A question takes about a millisecond
with 57 rules: some 4 s for the largest sample, half a minute for the largest domain that is checked whole."""

LEAST_SAMPLE = 8
"""Fewest points, however many rules there are."""

PARSING = 25
"""What Casbin's parsing of the matcher costs at each question, in rules looked at."""

MAX_SAMPLE = 4_000
"""Most points of a sample."""

MAX_ROLES_AT_ONCE = 4
"""Most roles in a sampled role set."""


@dataclass(frozen=True, slots=True)
class Question:
    """One point of the domain: who asks, under which facts, for which field."""

    roles: frozenset[str]
    conditions: tuple[str, ...]
    field: str


class Domain:
    """All questions that can make a difference: words that rules mention, and one more per column."""

    def __init__(self, book: RuleBook, catalog: Catalog, table: Table) -> None:
        """Works out which words can make a difference."""
        known: tuple[Sequence[str], ...] = (
            sorted(catalog.purposes),
            list(Relation),
            [*catalog.ticket_kinds, UNDECLARED_KIND],
            list(Provenance),
            list(OpenedBy),
            list(Presence),
        )
        self.columns: list[list[str]] = []
        for words, column in zip(known, table.columns, strict=True):
            unmentioned = [str(word) for word in words if str(word) not in column]
            self.columns.append([word for word in column if word != OTHER] + unmentioned[:1])
        self.roles = sorted(book.mapped_roles)
        named = {rule.field for rule in book.rules}
        fields: dict[str, str] = {}  # a field that no rule names behaves like its class
        for name, field in catalog.fields.items():
            fields.setdefault(name if name in named else field.field_class, name)
        self.fields = list(fields.values())
        self._catalog = catalog
        self._book = book

    def size(self) -> int:
        """Counts the questions."""
        return (1 << len(self.roles)) * prod(len(words) for words in self.columns) * len(self.fields)

    def all(self) -> Iterator[Question]:
        """Gives every question."""
        sets = chain.from_iterable(combinations(self.roles, n) for n in range(len(self.roles) + 1))
        for roles, conditions, field in product(sets, product(*self.columns), self.fields):
            yield Question(frozenset(roles), conditions, field)

    def sample(self, rng: Random) -> Iterator[Question]:
        """Gives questions without end, every other one aimed at a rule."""
        while True:
            yield self._anywhere(rng)
            yield self._at(rng.choice(self._book.rules), rng)

    def _some_roles(self, rng: Random) -> frozenset[str]:
        return frozenset(rng.sample(self.roles, rng.randint(1, min(MAX_ROLES_AT_ONCE, len(self.roles)))))

    def _anywhere(self, rng: Random) -> Question:
        conditions = tuple(rng.choice(words) for words in self.columns)
        return Question(self._some_roles(rng), conditions, rng.choice(self.fields))

    def _at(self, rule: Rule, rng: Random) -> Question:
        """Aims at a rule, and in one of two cases just past it, by one column."""
        holders = [role for role in self.roles if rule.role in self._book.closure(role)] or self.roles
        roles = {rng.choice(holders)} | (self._some_roles(rng) if rng.random() < 1 / 4 else frozenset())
        conditions = [
            rng.choice(words) if word == ANY else word
            for word, words in zip(rule.conditions, self.columns, strict=True)
        ]
        fields = [
            name for name in self.fields if rule.field in {ANY, name, self._catalog.fields[name].field_class}
        ] or self.fields
        if rng.random() < 1 / 2:
            column = rng.randrange(len(conditions))
            conditions[column] = rng.choice(self.columns[column])
        return Question(frozenset(roles), tuple(conditions), rng.choice(fields))


def verify(table: Table, model: str, book: RuleBook, catalog: Catalog, seed: str, *, thorough: bool) -> str:
    """Compares table and Casbin, and says at how many points.

    Raises:
        PolicyInvalidError: they differ; the policy must not be served.
    """
    if not book.rules:  # every rule has ended; with none at all, Casbin's matcher runs on blanks
        return "no rule is in force; the table allows nothing"
    domain = Domain(book, catalog, table)
    size, most = domain.size(), most_points(len(book.rules), thorough=thorough)
    if size <= most:
        questions = list(domain.all())
        said = f"table equals Casbin at all {size} points"
    else:
        questions = list(islice(domain.sample(Random(seed)), min(most, MAX_SAMPLE)))  # noqa: S311 - not a secret
        said = f"table equals Casbin at {len(questions)} of {size} points (seeded sample)"
    engine = Engine(model, book, catalog, {question.roles for question in questions})
    compare(table, engine, questions)
    return said


def most_points(rules: int, *, thorough: bool) -> int:
    """Gives how large a domain is checked whole, by how many rules Casbin looks at for each question."""
    affordable = (THOROUGH_WORK if thorough else START_WORK) // (len(LEVELS) * (rules + PARSING))
    return min(EXHAUSTIVE_POINTS, max(LEAST_SAMPLE, affordable))


def compare(table: Table, engine: Engine, questions: Iterable[Question]) -> None:
    """Compares table and Casbin at the questions given.

    Raises:
        PolicyInvalidError: they differ somewhere.
    """
    for question in questions:
        ground = table.ground(question.roles, question.conditions)
        level, rule = table.outcome(ground, question.field)
        expected: Level | None = None
        for asked in LEVELS:
            allowed, named = engine.ask(question.roles, question.conditions, question.field, asked.value)
            # Casbin stops at a denial and else names the last rule that matched; the table must know it, too.
            if named is not None and named not in _matching(table, ground, question.field, asked):
                _differ(question, f"Casbin matched {named.place}, the table did not")
            if allowed:
                expected = asked
                break
        if level is not expected or (level is None) != (rule is None):
            _differ(question, f"Casbin says {expected or 'withheld'}, the table {level or 'withheld'}")


def _matching(table: Table, ground: int, field: str, level: Level) -> list[Rule]:
    hits = table.hits(ground, field, level)
    return table.each(hits, hits.bit_count())


def _differ(question: Question, sentence: str) -> None:
    asked = ", ".join(("+".join(sorted(question.roles)), *question.conditions, question.field))
    raise PolicyInvalidError([f"{RULES}:1: {sentence} for ({asked}); please report this [table-differs]"])
