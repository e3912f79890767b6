"""One test of a policy as a value: who, in which situation, and what each field must come out as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.policy.suite.administrators import AdminCase


class Expected(StrEnum):
    """What a field must come out as."""

    CLEAR = "clear"
    MASKED = "masked"
    WITHHELD = "withheld"
    NOT_CLEAR = "not_clear"  # masked or withheld


@dataclass(frozen=True)
class Case:
    """One test: each field comes out as expected, for all these roles and in all these situations."""

    file: str
    line: int
    name: str  # a sentence
    roles: tuple[frozenset[str], ...]  # sets of roles, one agent each; empty: every role, alone and in pairs
    groups: frozenset[str]  # of the identity provider, in place of roles: one agent who is in all of them
    conditions: tuple[tuple[str, ...], ...]  # per column of CONDITIONS the words; none: whatever it is
    expected: Mapping[str, Expected]  # by field


@dataclass(frozen=True)
class Suites:
    """Tests in the order of files and lines."""

    cases: tuple[Case, ...]
    administrators: tuple[AdminCase, ...] = ()

    def __add__(self, other: Suites) -> Suites:
        """Gives both."""
        return Suites(self.cases + other.cases, self.administrators + other.administrators)
