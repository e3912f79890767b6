"""Who may call what on the admin port: `admin.csv`, decided by Casbin with a model of its own.

Invariants:
- identities are a certificate's, compared exactly; what is not in the file is refused before Casbin
  is asked, so an identity named like a role gains nothing (K8);
- methods are full RPC names, compared exactly; no patterns;
- the model is code: its text is here, not in a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from casbin import Enforcer

from broker.policy.engine import words_adapter
from broker.policy.files import ADMIN
from broker.policy.findings import Findings, quoted
from broker.policy.lines import NAME, RESERVED, Line, read_csv

MODEL = """
[request_definition]
r = sub, method
[policy_definition]
p = role, method, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = p.method == r.method && g(r.sub, p.role)
"""

MAX_ADMIN_LINES = 500
"""Most lines that say something."""

MAX_WORK = 200_000
"""Most rules that Casbin may look at while the answers are worked out: about a second."""

_METHOD = re.compile(r"/[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*/[A-Z][A-Za-z0-9]*")
_SPIFFE = re.compile(r"spiffe://[a-z0-9][a-z0-9._-]*(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
_DNS = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")


class AdminTable:
    """The answer for every identity and method, worked out by Casbin when the file was loaded.

    Casbin is not asked later: it parses its matcher at every question, and CPython's parser does not
    stand a second thread that parses meanwhile (a policy may be loading).
    """

    def __init__(self, rules: Iterable[tuple[str, str, str]], members: Iterable[tuple[str, str]]) -> None:
        """Takes the rules (role, method, effect) and the members (identity, role)."""
        p, g = list(rules), list(members)
        roles: dict[str, set[str]] = {}
        for identity, role in g:
            roles.setdefault(identity, set()).add(role)
        self._roles = {identity: frozenset(held) for identity, held in roles.items()}
        self.methods = frozenset(method for _, method, _ in p)
        self._allowed: dict[frozenset[str], frozenset[str]] = {}  # by the roles that are held together
        if p:
            enforcer = Enforcer(Enforcer.new_model(text=MODEL), words_adapter({"p": p, "g": g}))
            for identity, held in self._roles.items():
                if held not in self._allowed:
                    self._allowed[held] = frozenset(
                        method for method in self.methods if enforcer.enforce(identity, method) is True
                    )

    def roles(self, identity: str) -> frozenset[str]:
        """Gives the roles of an identity; empty where the file does not name it."""
        return self._roles.get(identity, frozenset())

    def allows(self, identity: str, method: str) -> bool:
        """Says whether the identity may call the method, given by its full name `/package.Service/Method`."""
        return method in self._allowed.get(self.roles(identity), ())

    def missing(self, registered: Iterable[str]) -> tuple[str, ...]:
        """Gives the registered methods that the file does not mention: reason not to start."""
        return tuple(sorted(set(registered) - self.methods))

    def unknown(self, registered: Iterable[str]) -> tuple[str, ...]:
        """Gives the methods of the file that are not registered: misspelt, or of another release."""
        return tuple(sorted(self.methods - set(registered)))


def read_admin(text: str, findings: Findings) -> AdminTable:
    """Reads `admin.csv`; what is wrong goes to the findings."""
    rules: dict[tuple[str, str, str], int] = {}
    members: dict[tuple[str, str], int] = {}
    for count, line in enumerate(read_csv(ADMIN, text, findings), 1):
        if count > MAX_ADMIN_LINES:
            findings.add(ADMIN, line.number, "too-many-rules", f"more than {MAX_ADMIN_LINES} lines")
            break
        if line.words[0] == "g":
            _read_member(line, members, findings)
        else:
            _read_rule(line, rules, findings)
    if not findings.has(ADMIN):
        if not rules:
            findings.add(ADMIN, 1, "no-rules", "the file has no rule at all")
        roles = {role for role, _, _ in rules}
        for (_, role), number in members.items():
            if role not in roles:
                findings.add(ADMIN, number, "role-without-rules", f"role {role!r} has no rule")
        methods = {method for _, method, _ in rules}
        if len(members) * len(methods) * len(rules) > MAX_WORK:
            findings.add(ADMIN, 1, "too-many-rules", "identities times methods times rules are too many")
    if findings.has(ADMIN):
        return AdminTable((), ())
    return AdminTable(rules, members)


def _read_member(line: Line, members: dict[tuple[str, str], int], findings: Findings) -> None:
    if len(line.words) != 3:  # noqa: PLR2004 - g, identity, role
        findings.add(ADMIN, line.number, "field-count", "write 'g, identity, role'")
        return
    _, identity, role = line.words
    if not _SPIFFE.fullmatch(identity) and not _DNS.fullmatch(identity):
        findings.add(
            ADMIN,
            line.number,
            "identity",
            f"{quoted(identity)} is neither a SPIFFE id (spiffe://…/…) nor a DNS name",
        )
    elif (
        _good_role(line, role, findings)
        and (other := members.setdefault((identity, role), line.number)) != line.number
    ):
        findings.add(ADMIN, line.number, "duplicate", f"the line repeats line {other}")


def _read_rule(line: Line, rules: dict[tuple[str, str, str], int], findings: Findings) -> None:
    if len(line.words) != 4:  # noqa: PLR2004 - p, role, method, effect
        findings.add(ADMIN, line.number, "field-count", "write 'p, role, method, allow'")
        return
    _, role, method, effect = line.words
    if not _good_role(line, role, findings):
        return
    if not _METHOD.fullmatch(method):
        findings.add(
            ADMIN,
            line.number,
            "method",
            f"{quoted(method)} is not a full RPC name such as /broker.v1.Service/Method",
        )
    elif effect not in {"allow", "deny"}:
        findings.add(
            ADMIN, line.number, "unknown-effect", f"the effect is allow or deny, not {quoted(effect)}"
        )
    elif (other := rules.setdefault((role, method, effect), line.number)) != line.number:
        findings.add(ADMIN, line.number, "duplicate", f"the line repeats line {other}")


def _good_role(line: Line, role: str, findings: Findings) -> bool:
    if NAME.fullmatch(role) and role not in RESERVED:
        return True
    findings.add(
        ADMIN,
        line.number,
        "role-name",
        f"{quoted(role)} cannot name a role: lower-case letters, digits, - and _; no reserved word",
    )
    return False
