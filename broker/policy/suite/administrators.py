"""Tests of `admin.csv`: who is expected to be allowed, and who to be refused, on the admin port.

    administrators:
      Whoever writes rules does not approve them by that right:
        groups: [security-admins]
        allowed: PolicyService/Propose
        refused: PolicyService/Approve
    ...

`groups` is one person who is in all of them, `identity` a client certificate. Of a personal service both
locks count when it is called; a test asks one of them. `refused: every` is "and nothing else".

Invariants:
- a method that the file does not name, an unknown group or identity fails the test: a misspelt word
  must not look like a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.policy.admin import AdminTable
from broker.policy.findings import nearest, quoted
from broker.policy.rules import GROUP_PREFIX
from broker.policy.strict_yaml import Value

PACKAGE = "/broker.v1."
"""What a method's full name begins with; tests leave it out."""

EVERY = "every"


class NotRunnableError(Exception):
    """A test cannot be run as it is written; the text says why."""


@dataclass(frozen=True)
class AdminCase:
    """One test: somebody may call these methods and may not call those."""

    file: str
    line: int
    name: str  # a sentence
    groups: frozenset[str]  # of the identity provider; empty: a certificate's identity
    identity: str
    allowed: frozenset[str]  # full names
    refused: frozenset[str]  # full names
    nothing_else: bool  # refused: every


def read_admin_case(file: str, name: str, line: int, value: Value) -> AdminCase:
    """Reads one test; where something is wrong, a harmless one."""
    entry = value.keys((), ("groups", "identity", "allowed", "refused"))
    if ("groups" in entry) == ("identity" in entry):
        value.refuse("who", "a test of administrators names either 'groups' or 'identity'")
    if "allowed" not in entry and "refused" not in entry:
        value.refuse("empty", "the test expects nothing")
    groups = entry["groups"].one_or_more() if "groups" in entry else []
    refused = _methods(entry, "refused")
    if EVERY in refused and refused != [EVERY]:
        entry["refused"].refuse("who", f"{EVERY!r} stands alone")
    allowed = _methods(entry, "allowed")
    if both := sorted({*allowed} & {*refused}):
        value.refuse("contradiction", f"{both[0]} is expected to be allowed and refused")
    return AdminCase(
        file,
        line,
        name,
        frozenset(group.removeprefix(GROUP_PREFIX) for group in groups),
        entry["identity"].text() if "identity" in entry else "",
        frozenset(PACKAGE + each for each in allowed),
        frozenset(PACKAGE + each for each in refused if each != EVERY),
        refused == [EVERY],
    )


def run_admin_case(table: AdminTable, case: AdminCase) -> list[str]:
    """Gives a sentence for each thing that came out otherwise.

    Raises:
        NotRunnableError: the table has no such group, identity or method.
    """
    named = case.allowed | case.refused
    unknown = _unknown(table.groups, case.groups, "group") or _unknown(
        table.identities, [case.identity] if case.identity else [], "identity"
    )
    unknown = unknown or _unknown(table.methods, named, "method")
    if unknown:
        raise NotRunnableError(unknown)
    may = allowed_to(table, case)
    refused = (may - case.allowed) if case.nothing_else else case.refused
    who = " and ".join(sorted(case.groups)) or case.identity
    return [
        *(f"{who} may not call {_short(each)}; expected allowed" for each in sorted(case.allowed - may)),
        *(f"{who} may call {_short(each)}; expected refused" for each in sorted(refused & may)),
    ]


def allowed_to(table: AdminTable, case: AdminCase) -> frozenset[str]:
    """Gives the methods that whom a test is about may call."""
    return table.allowed_methods(table.roles_of(case.groups) if case.groups else table.roles(case.identity))


def _methods(entry: Mapping[str, Value], key: str) -> list[str]:
    return entry[key].one_or_more() if key in entry else []


def _unknown(known: Iterable[str], words: Iterable[str], what: str) -> str:
    names = frozenset(known)
    for word in sorted(set(words) - names):
        short = [_short(each) for each in names]
        return f"admin.csv names no {what} {quoted(_short(word))}; {nearest(_short(word), short)}"
    return ""


def _short(method: str) -> str:
    return method.removeprefix(PACKAGE)
