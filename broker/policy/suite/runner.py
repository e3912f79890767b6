"""A policy against tests: what came out otherwise, and which rules no test reaches.

Situations that match the same rules are one situation, so `any` costs what the rules tell apart and not
what could be said. This is exact: what is decided depends on the rules that match and on nothing else.

Invariants:
- a test passes only where each of its fields has what is expected in each of its situations;
- a rule is reached where it decides: an allow where it gives a level that a test expects by name, a denial
  where it refuses one that a test expects to be refused; a failing test reaches nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from broker.model import SHOWN, WITHHELD, Facts, Level
from broker.policy.decision import Policy
from broker.policy.findings import nearest, quoted
from broker.policy.rules import CONDITIONS
from broker.policy.suite.administrators import AdminCase, NotRunnableError, run_admin_case
from broker.policy.suite.cases import Case, Expected, Suites
from broker.policy.suite.sentences import failure_sentence
from broker.policy.table import LEVELS, OTHER
from broker.policy.verify import Domain

MAX_SITUATIONS = 100_000
"""Most situations of one test that rules tell apart; one with more fails and says so."""

MAX_SENTENCES = 5
"""Most sentences about one test."""

Situation = tuple[frozenset[str], tuple[str, ...]]
"""Roles, and a word per column of CONDITIONS."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that came out otherwise."""

    file: str
    line: int
    name: str  # of the test
    sentence: str
    ran: bool = True  # else the test could not be run as it is written

    @property
    def text(self) -> str:
        """Gives the one-line form."""
        return f"{self.file}:{self.line}: {self.name}: {self.sentence}"


@dataclass(frozen=True)
class SuiteReport:
    """How a policy stood its tests."""

    failures: tuple[Failure, ...]
    passed: tuple[str, ...]  # names of tests
    coverage: Mapping[str, int]  # by the rule's place: how many tests reach it
    situations: int  # that rules tell apart, of all tests

    @property
    def ok(self) -> bool:
        """Says whether every test passed."""
        return not self.failures

    @property
    def unreached(self) -> tuple[str, ...]:
        """Gives the rules that no test reaches."""
        return tuple(place for place, tests in self.coverage.items() if not tests)

    def as_mapping(self) -> dict[str, object]:
        """Gives what a program reads."""
        return {
            "ok": self.ok,
            "passed": list(self.passed),
            "failures": [
                {"file": each.file, "line": each.line, "test": each.name, "sentence": each.sentence}
                for each in self.failures
            ],
            "situations": self.situations,
            "coverage": {
                "rules": len(self.coverage),
                "reached": len(self.coverage) - len(self.unreached),
                "unreached": list(self.unreached),
                "tests_by_rule": dict(self.coverage),
            },
        }


def run(policy: Policy, suites: Suites) -> SuiteReport:
    """Runs tests against a policy. Some milliseconds a test; nothing is decided in a live way."""
    runner = _Runner(policy)
    failures: list[Failure] = []
    passed: list[str] = []
    cases: list[Case | AdminCase] = [*suites.cases, *suites.administrators]
    for case in cases:
        sentences, ran = runner.run(case)
        failures += [Failure(case.file, case.line, case.name, sentence, ran) for sentence in sentences]
        if not sentences:
            passed.append(case.name)
    coverage = {rule.place: runner.reached[i] for i, rule in enumerate(policy.book.rules)}
    return SuiteReport(tuple(failures), tuple(passed), MappingProxyType(coverage), runner.situations)


def came(
    policy: Policy, asked: Iterable[tuple[Case, Collection[str]]]
) -> Iterator[Mapping[str, frozenset[int]]]:
    """Gives, for each test, what fields come out as in its situations, as places in `model.SHOWN`.

    Raises:
        NotRunnableError: a test cannot be run.
    """
    runner = _Runner(policy)
    for case, fields in asked:
        yield runner.came(case, fields)


class _Runner:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._table = policy.table
        self._domain = Domain(policy.book, policy.catalog, policy.table)
        self.reached = [0] * len(policy.book.rules)
        self.situations = 0

    def run(self, case: Case | AdminCase) -> tuple[list[str], bool]:
        """Gives a sentence for each thing that came out otherwise, and whether the test could be run."""
        try:
            if isinstance(case, AdminCase):
                return run_admin_case(self._policy.admin, case), True
            return self._run(case), True
        except NotRunnableError as exc:
            return [str(exc)], False

    def _run(self, case: Case) -> list[str]:
        """Gives a sentence for each thing that came out otherwise, and counts the rules that decided.

        Raises:
            NotRunnableError: the test cannot be run.
        """
        wrong: dict[tuple[str, Level | None, int], tuple[Situation, Expected]] = {}
        reached = 0
        grounds = self._grounds(case)
        self.situations += len(grounds)
        fields = _alike(case.expected, self._table.fields)
        for ground, situation in grounds.items():
            for field, expected in fields:
                level, deciding = self._decide(ground, field, expected)
                if _meets(level, expected):
                    reached |= deciding
                else:
                    wrong.setdefault((field, level, deciding), (situation, expected))
        if wrong:
            return self._sentences(case, wrong)
        for i in _each_bit(reached):
            self.reached[i] += 1
        return []

    def came(self, case: Case, fields: Iterable[str]) -> Mapping[str, frozenset[int]]:
        """Gives what each field comes out as; fields that no rule tells apart are asked once."""
        grounds, bits = self._grounds(case), self._table.fields
        by_bits: dict[int, frozenset[int]] = {}
        for field in (found := list(fields)):
            if bits[field] not in by_bits:
                levels = {self._table.outcome(ground, field)[0] for ground in grounds}
                by_bits[bits[field]] = frozenset(SHOWN.index(level or WITHHELD) for level in levels)
        return {field: by_bits[bits[field]] for field in found}

    def _decide(self, ground: int, field: str, expected: Expected) -> tuple[Level | None, int]:
        """Gives the level, and the rules that decided what the test says of it."""
        table, deciding = self._table, 0
        for level in LEVELS:
            hits = table.hits(ground, field, level)
            if hits & table.allow and not hits & table.deny:
                exact = expected in {Expected.CLEAR, Expected.MASKED}
                return level, deciding | (hits & table.allow if exact else 0)
            if level is Level.CLEAR or expected is Expected.WITHHELD:
                deciding |= hits & table.deny
        return None, deciding

    def _grounds(self, case: Case) -> dict[int, Situation]:
        """Gives the sets of rules that match in the test's situations, each with the first such situation."""
        found: dict[int, Situation] = {}
        for roles in self._role_sets(case):
            found.setdefault(self._table.role_bits(roles), (roles, ()))
        for words, known, column in zip(
            case.conditions, self._domain.columns, self._table.columns, strict=True
        ):
            narrower: dict[int, Situation] = {}
            for ground, (roles, before) in found.items():
                for word in words or known:
                    bits = ground & column.get(word, column[OTHER])
                    narrower.setdefault(bits, (roles, (*before, word)))
            found = narrower
            if len(found) > MAX_SITUATIONS:
                raise NotRunnableError(
                    "the test has too many situations; name more of the facts, or fewer roles"
                )
        return found

    def _role_sets(self, case: Case) -> Iterator[frozenset[str]]:
        policy = self._policy
        if case.groups:
            known = policy.book.groups
            for group in sorted(case.groups - known.keys()):
                sentence = f"no g line maps the group {quoted(group)}; {nearest(group, known)}"
                raise NotRunnableError(sentence)
            yield policy.roles_of(case.groups)
        elif case.roles:
            for role in sorted(frozenset().union(*case.roles) - policy.roles):
                sentence = f"the policy has no role {quoted(role)}; {nearest(role, policy.roles)}"
                raise NotRunnableError(sentence)
            yield from case.roles
        else:
            mapped = self._domain.roles
            yield from (frozenset({role}) for role in mapped)
            yield from map(frozenset, combinations(mapped, 2))

    def _sentences(
        self, case: Case, wrong: Mapping[tuple[str, Level | None, int], tuple[Situation, Expected]]
    ) -> list[str]:
        sentences = []
        for (field, _, _), ((roles, words), expected) in list(wrong.items())[:MAX_SENTENCES]:
            facts = Facts.of(*words)
            decision = self._policy.decide(roles, facts, [field]).fields[0]
            sentences.append(
                failure_sentence(roles, facts, self._telling(case, roles, words, field), decision, expected)
            )
        if len(wrong) > MAX_SENTENCES:
            sentences.append(f"and {len(wrong) - MAX_SENTENCES} more")
        return sentences

    def _telling(self, case: Case, roles: frozenset[str], words: Sequence[str], field: str) -> list[str]:
        """Names the facts that the test states, and those without which another thing would come out."""
        table = self._table
        here = table.outcome(table.ground(roles, words), field)[0]
        told = []
        for at, (column, known) in enumerate(zip(CONDITIONS, self._domain.columns, strict=True)):
            others = ([*words[:at], word, *words[at + 1 :]] for word in known)
            if case.conditions[at] or any(
                table.outcome(table.ground(roles, other), field)[0] is not here for other in others
            ):
                told.append(column)
        return told


def _alike(expected: Mapping[str, Expected], bits: Mapping[str, int]) -> list[tuple[str, Expected]]:
    """Leaves one of the fields that no rule tells apart and that have the same expected."""
    first = {(bits[field], level): field for field, level in reversed(list(expected.items()))}
    return [(field, level) for (_, level), field in first.items()]


def _meets(level: Level | None, expected: Expected) -> bool:
    match expected:
        case Expected.NOT_CLEAR:
            return level is not Level.CLEAR
        case Expected.WITHHELD:
            return level is None
        case _:
            return level is not None and level.value == expected.value


def _each_bit(bits: int) -> Iterator[int]:
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1
