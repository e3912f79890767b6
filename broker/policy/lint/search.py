"""The exact question behind every sentence about rules: is there a point of the domain where …?

A rule is a box: in each column it holds one word or all of them. Words that no rule tells apart are one
word (`verify.Domain`), so a box has few choices per column. The search takes column after column and
keeps the bitset of the rules that still match; it stops early where the rules that match whatever comes
(`sure`), or those that might still match (`bits`), settle the question.

Roles: an agent holds a set of them. Whether a rule matches only ever grows with the set, so what one
allow or one denial does shows with one role, and how an allow meets another role's denial shows with
two. Larger sets add nothing (the property test compares with every set).

Invariants:
- an answer is exact; where the steps run out there is no answer but `OutOfStepsError`;
- the same files take the same steps everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import and_

from broker.catalog import Catalog
from broker.model import Level
from broker.policy.lines import ANY
from broker.policy.rules import Rule, RuleBook
from broker.policy.table import OTHER, Table
from broker.policy.verify import Domain

MAX_STEPS = 6_000_000
"""Most steps, each one choice followed, for one set of files: some ten seconds with 10,000 rules."""

MAX_RULE_STEPS = 200_000
"""Most steps for one question about one rule, so that one rule does not use up everybody's."""

Verdict = Callable[[int, int], bool | None]
"""Answers from the rules that match for sure and those that may: yes, no, or look closer. Where both
are the same rules it answers yes or no."""

Choices = Sequence[Sequence[int]]
"""Per column, what may stand there: as the bitsets of the rules that match it."""


class OutOfStepsError(Exception):
    """The question was given up."""


class RuleSearch:
    """The rules of one book as boxes, and searches through them."""

    def __init__(self, book: RuleBook, catalog: Catalog) -> None:
        """Compiles the book; the steps are counted from here."""
        self.table = Table(book, catalog)
        self.domain = Domain(book, catalog, self.table)
        self.at = {rule.line: 1 << i for i, rule in enumerate(book.rules)}
        self._holders = {role: self.table.role_bits({role}) for role in self.domain.roles}
        self._levels = {
            level: sum(self.at[rule.line] for rule in book.rules if rule.level in {ANY, level})
            for level in Level
        }
        self._steps = MAX_STEPS

    def allows(self, level: Level) -> int:
        """Gives the rules that allow a level."""
        return self.table.allow & self._levels[level]

    def denies(self, level: Level) -> int:
        """Gives the rules that deny a level."""
        return self.table.deny & self._levels[level]

    def holders(self, rule: Rule) -> list[str]:
        """Gives the roles that groups lead to and that the rule speaks of."""
        return [role for role, bits in self._holders.items() if bits & self.at[rule.line]]

    def alone(self, rule: Rule) -> list[int]:
        """Gives the choice of roles for one role that the rule speaks of."""
        return [self._holders[role] for role in self.holders(rule)]

    def with_another(self, rule: Rule, matter: int) -> list[int]:
        """Gives choices of roles: each that the rule speaks of, alone and with one that brings `matter`.

        Raises:
            OutOfStepsError: there are too many roles.
        """
        own = self.alone(rule)
        matter &= ~self.table.role_bits(())  # rules for any role are there already
        others = [bits for bits in self._holders.values() if bits & matter]
        self._steps -= len(own) * len(others)
        if self._steps < 0:
            raise OutOfStepsError
        return list(dict.fromkeys([*own, *(mine | other for mine in own for other in others)]))

    def choices(
        self, rule: Rule, *, fields: Iterable[str] | None = None, presence: str = ANY
    ) -> list[list[int]]:
        """Gives the choices of every column but the roles: the rule's box, or a part of it.

        Args:
            rule: the rule.
            fields: these alone, of the domain's.
            presence: this alone, where the rule says `any`.
        """
        words = [*rule.conditions[:-1], presence if rule.conditions[-1] == ANY else rule.conditions[-1]]
        choices = []
        for word, known, column in zip(words, self.domain.columns, self.table.columns, strict=True):
            here = known if word == ANY else [word]
            choices.append([column.get(each, column[OTHER]) for each in here])
        of_rule = self.fields(rule) if fields is None else fields
        choices.append([self.table.fields[name] for name in of_rule])
        return choices

    def fields(self, rule: Rule) -> list[str]:
        """Gives the fields that the rule speaks of: one for all those that rules do not tell apart."""
        return [name for name in self.domain.fields if self.table.fields[name] & self.at[rule.line]]

    def exists(self, choices: Choices, bits: int, verdict: Verdict) -> bool:
        """Says whether some point of a box has the verdict yes.

        Args:
            choices: the box.
            bits: the rules that count.
            verdict: what is asked of a point, or of a part of the box.

        Raises:
            OutOfStepsError: the search has become too long.
        """
        sure = [-1]
        for column in reversed(choices):
            sure.append(reduce(and_, column, sure[-1]))
        sure.reverse()
        steps = min(self._steps, MAX_RULE_STEPS)
        left = steps
        seen: set[tuple[int, int]] = set()

        def found(depth: int, here: int) -> bool:
            nonlocal left
            if (depth, here) in seen:
                return False
            seen.add((depth, here))
            said = verdict(here & sure[depth], here)
            if said is not None:
                return said
            left -= len(choices[depth])
            if left < 0:
                raise OutOfStepsError
            return any(
                found(depth + 1, bits) for bits in dict.fromkeys(here & each for each in choices[depth])
            )

        try:
            return found(0, bits)
        finally:
            self._steps -= steps - max(left, 0)
