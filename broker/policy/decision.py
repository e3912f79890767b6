"""A policy in force: the pure decision, and the load that makes a policy of five files.

Invariants:
- a policy is immutable; another version is another object, swapped whole;
- there is no policy whose table was not held against Casbin: here, or by whoever published this very table;
- deny by default: no roles, unknown words and blank facts withhold everything;
- a decision does no I/O, reads no clock and depends on nothing but its arguments: rules that have
  ended are left out when the policy is compiled for a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property

from broker.catalog import Catalog
from broker.model import Budget, Decided, Decision, Facts
from broker.policy.admin import AdminTable, read_admin
from broker.policy.catalog_reader import read_catalog
from broker.policy.explain import explain
from broker.policy.files import ADMIN, CATALOG, LIMITS, MODEL, RULES, PolicyFiles
from broker.policy.findings import Findings, TooManyFindingsError
from broker.policy.limits import Limits, read_limits
from broker.policy.models import KNOWN, SERVED, Models, check_model
from broker.policy.rules import RuleBook, read_rules
from broker.policy.table import Table
from broker.policy.table_digest import table_digest
from broker.policy.verify import verify


@dataclass(frozen=True)
class Policy:
    """One version of the policy, checked and compiled."""

    version: str
    digest: str
    catalog: Catalog
    limits: Limits
    admin: AdminTable
    book: RuleBook  # the rules in force on the day
    table: Table
    verification: str  # at how many points the table was held against Casbin
    today: date  # the day, in UTC, that it was compiled for

    def is_over(self, today: date) -> bool:
        """Says whether a rule in force here has ended by that day: time to compile the policy anew."""
        end = self.book.next_end
        return end is not None and today > end

    def roles_of(self, groups: frozenset[str]) -> frozenset[str]:
        """Gives the roles that the identity provider's groups lead to; groups nobody mapped give none."""
        mapped = self.book.groups
        return frozenset().union(*(mapped[group] for group in groups if group in mapped))

    def decide(self, roles: frozenset[str], facts: Facts, fields: Sequence[str]) -> Decision:
        """Decides each field: the highest level that is allowed and the rule, or what was missing."""
        point = self.table.point(roles, facts)
        return Decision(self.version, tuple([point[field] for field in fields]))

    def decide_for(self, groups: frozenset[str], facts: Facts, fields: Sequence[str]) -> Decided:
        """Decides for an agent of these groups; gives what the decision saw along with it."""
        roles = self.roles_of(groups)
        mapped = groups.intersection(self.book.groups)
        return Decided(self.decide(roles, facts, fields), facts, roles, groups, mapped)

    def budget(self, roles: frozenset[str]) -> Budget:
        """Gives the strictest budget of the roles; the default for those that have none."""
        return self.limits.budget(roles)

    @cached_property
    def roles(self) -> frozenset[str]:
        """Gives every role of the policy."""
        return frozenset(self.table.roles)


VOUCHED = "table is the one that was held against Casbin when it was published"
"""Said of a table that was not compared again."""


@dataclass(frozen=True)
class Compiled:
    """Files, read and compiled. No policy yet: its table has not been held against Casbin."""

    files: PolicyFiles
    today: date  # the day, in UTC, whose rules are in it
    _policy: Policy

    def judged(self, version: str, *, vouched: str = "", thorough: bool = False) -> Policy:
        """Gives the policy once Casbin agrees. May take half a second: call it off the event loop.

        Args:
            version: the name that every decision will carry.
            vouched: digest of a table that was held against Casbin, from a seal over these files; where it
                is this table's, Casbin is not asked again.
            thorough: compare for seconds, not for an instant; for whoever activates a policy.

        Raises:
            PolicyInvalidError: Casbin does not agree.
        """
        policy = self._policy
        if vouched and vouched == table_digest(policy.table):
            return replace(policy, version=version, verification=VOUCHED)
        said = verify(
            policy.table, self.files.texts[MODEL], policy.book, policy.catalog, policy.digest,
            thorough=thorough,
        )  # fmt: skip
        return replace(policy, version=version, verification=said)


def load(files: PolicyFiles, version: str, *, thorough: bool = False, today: date | None = None) -> Policy:
    """Reads, checks and compiles a policy. Takes some 0.3 s: call it off the event loop.

    Args:
        files: the five files.
        version: the name that every decision will carry.
        thorough: compare with Casbin for seconds, not for an instant; for whoever activates a policy.
        today: the day, in UTC, whose rules are in force; None: the day it is now.

    Raises:
        PolicyInvalidError: with everything that is wrong, each with file and line.
    """
    return compile_files(files, today=today).judged(version, thorough=thorough)


def load_known(
    files: PolicyFiles,
    version: str,
    models: Models | None = None,
    *,
    thorough: bool = False,
    today: date | None = None,
) -> Policy:
    """Loads a policy that may be of an older release, to look at it, compare or replay; never to serve it.

    Args:
        files: the five files.
        version: a name for it.
        models: the known models, by hash, each with its columns of facts; None: all of this release's.
        thorough: as for `load`.
        today: as for `load`.

    Raises:
        PolicyInvalidError: with everything that is wrong; an unknown model is.
    """
    return compile_files(files, models or KNOWN, today=today).judged(version, thorough=thorough)


def compile_files(files: PolicyFiles, models: Models = SERVED, *, today: date | None = None) -> Compiled:
    """Reads and compiles files, without Casbin: some 20 ms, a fifth of a second for ten thousand rules.

    Args:
        files: the five files.
        models: the models that may be in them, by hash.
        today: the day, in UTC, whose rules are in force; None: the day it is now.

    Raises:
        PolicyInvalidError: with everything that is wrong, each with file and line.
    """
    today = today or datetime.now(UTC).date()
    findings = Findings()
    try:
        parts = read_parts(files, findings, models)
    except TooManyFindingsError:
        parts = None
    findings.raise_if_any()
    if parts is None:  # nothing found and nothing read cannot be
        raise AssertionError("a reader gave nothing and found nothing")
    catalog, whole, limits, admin = parts
    book = whole.in_force(today)
    table = Table(book, catalog, explain)
    policy = Policy("", files.digest, catalog, limits, admin, book, table, "", today)
    return Compiled(files, today, policy)


def read_parts(
    files: PolicyFiles, findings: Findings, models: Models = SERVED
) -> tuple[Catalog, RuleBook, Limits, AdminTable] | None:
    """Lets every reader speak, so that one load tells of all files; rules are read against the catalog."""
    columns = check_model(files.texts[MODEL], models, findings)
    admin = read_admin(files.texts[ADMIN], findings)
    catalog = read_catalog(files.texts[CATALOG], findings)
    book = read_rules(files.texts[RULES], catalog, findings, columns) if catalog else None
    roles = book.mapped_roles if book and not findings.has(RULES) else None
    limits = read_limits(files.texts[LIMITS], roles, findings)
    if catalog is None or book is None or limits is None:
        return None
    return catalog, book, limits, admin
