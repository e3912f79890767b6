"""Who may call what on the admin port: `admin.csv`, decided by Casbin with a model of its own.

Invariants:
- identities are a certificate's, compared exactly; what is not in the file is refused before Casbin
  is asked, so an identity named like a role gains nothing (K8);
- groups are `idp:…`, as an identity provider of administrators names them; a person has the roles of
  all their groups, and a deny for any of these wins; persons are never named here;
- methods are full RPC names, compared exactly; no patterns;
- the model is code: its text is here, not in a file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import combinations

from casbin import Enforcer

from broker.policy.engine import PARSING, words_adapter
from broker.policy.files import ADMIN
from broker.policy.findings import Findings, nearest, quoted
from broker.policy.lines import NAME, RESERVED, Line, read_csv
from broker.policy.rules import GROUP_PREFIX

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
_GROUP = re.compile(rf"{GROUP_PREFIX}[^\s,](?:[^,]*[^\s,])?")
_DNS = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")


class AdminTable:
    """The answer for every identity and method, worked out by Casbin when the file was loaded.

    Casbin is not asked later: it parses its matcher at every question, and while another thread's policy is
    loading, the event loop would wait for its turn.
    """

    def __init__(self, rules: Iterable[tuple[str, str, str]], members: Iterable[tuple[str, str]]) -> None:
        """Takes the rules (role, method, effect) and the members (identity or group, role)."""
        p, g = list(rules), list(members)
        roles: dict[str, set[str]] = {}
        for member, role in g:
            roles.setdefault(member, set()).add(role)
        self._roles = {member: frozenset(held) for member, held in roles.items()}
        self.methods = frozenset(method for _, method, _ in p)
        self._allowed: dict[frozenset[str], frozenset[str]] = {}  # by the roles that are held together
        if p:
            subjects = {held: f"@{'+'.join(sorted(held))}" for held in _role_sets(p, self._roles.values())}
            members = [(subject, role) for held, subject in subjects.items() for role in sorted(held)]
            enforcer = Enforcer(Enforcer.new_model(text=MODEL), words_adapter({"p": p, "g": members}))
            for held, subject in subjects.items():
                named = {method for role, method, effect in p if role in held and effect == "allow"}
                self._allowed[held] = frozenset(m for m in named if _ask(enforcer, subject, m))

    @property
    def members(self) -> Mapping[str, frozenset[str]]:
        """Gives the roles of everybody whom the file names, identities and groups (`idp:…`)."""
        return self._roles

    @property
    def identities(self) -> tuple[str, ...]:
        """Gives the certificates' identities that the file names."""
        return tuple(sorted(member for member in self._roles if not member.startswith(GROUP_PREFIX)))

    @property
    def groups(self) -> tuple[str, ...]:
        """Gives the groups that the file names, without their prefix."""
        names = (m.removeprefix(GROUP_PREFIX) for m in self._roles if m.startswith(GROUP_PREFIX))
        return tuple(sorted(names))

    def roles(self, identity: str) -> frozenset[str]:
        """Gives the roles of a certificate's identity; empty where the file does not name it."""
        return frozenset() if identity.startswith(GROUP_PREFIX) else self._roles.get(identity, frozenset())

    def roles_of(self, groups: Collection[str]) -> frozenset[str]:
        """Gives the roles of a person by the groups that their token names."""
        return frozenset().union(*(self._roles.get(GROUP_PREFIX + group, ()) for group in groups))

    def allows(self, identity: str, method: str) -> bool:
        """Says whether the identity may call the method, given by its full name `/package.Service/Method`."""
        return method in self.allowed_methods(self.roles(identity))

    def allows_person(self, groups: Collection[str], method: str) -> bool:
        """Says whether a person with these groups may call the method."""
        return method in self.allowed_methods(self.roles_of(groups))

    def allowed_methods(self, roles: frozenset[str]) -> frozenset[str]:
        """Gives what somebody with all of these roles may call.

        Casbin was asked about every role, and about every two of which one denies something: with "some
        allow and no deny", a method is open to many roles where one of them opens it and no other one,
        beside it, closes it.
        """
        if (known := self._allowed.get(roles)) is not None:
            return known
        return frozenset().union(*(self._allowed_beside(role, roles) for role in roles))

    def _allowed_beside(self, role: str, others: frozenset[str]) -> frozenset[str]:
        """Gives what a role opens and none of the others closes."""
        alone = self._allowed.get(frozenset((role,)), frozenset())
        pairs = (self._allowed.get(frozenset((role, other)), alone) for other in others)
        return alone.intersection(*pairs)

    def missing(self, registered: Iterable[str]) -> tuple[str, ...]:
        """Gives the registered methods that the file does not mention: reason not to start."""
        return tuple(sorted(set(registered) - self.methods))

    def unknown(self, registered: Iterable[str]) -> tuple[str, ...]:
        """Gives the methods of the file that are not registered: misspelt, or of another release."""
        return tuple(sorted(self.methods - set(registered)))


@lru_cache(maxsize=4)
def _worked_out(rules: tuple[tuple[str, str, str], ...], members: tuple[tuple[str, str], ...]) -> AdminTable:
    """Asks Casbin once about the same words: most versions of a policy have them from the one before."""
    return AdminTable(rules, members)


def _ask(enforcer: Enforcer, subject: str, method: str) -> bool:
    with PARSING:
        return enforcer.enforce(subject, method) is True


def _role_sets(
    rules: Iterable[tuple[str, str, str]], held: Iterable[frozenset[str]]
) -> Iterator[frozenset[str]]:
    """Gives the sets of roles that Casbin is asked about, each once."""
    roles = {role for role, _, _ in rules}
    closing = {role for role, _, effect in rules if effect == "deny"}
    singles = {frozenset((role,)) for role in roles}
    pairs = {frozenset(p) for p in combinations(sorted(roles), 2) if closing.intersection(p)}
    yield from sorted(singles | pairs | set(held), key=sorted)


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
        _check_whole(rules, members, findings)
    if findings.has(ADMIN):
        return AdminTable((), ())
    return _worked_out(tuple(rules), tuple(members))


def _check_whole(
    rules: Collection[tuple[str, str, str]], members: Mapping[tuple[str, str], int], findings: Findings
) -> None:
    """Checks what only the whole file shows."""
    if not rules:
        findings.add(ADMIN, 1, "no-rules", "the file has no rule at all")
    roles = {role for role, _, _ in rules}
    for (_, role), number in members.items():
        if role not in roles:
            sentence = f"role {role!r} has no rule; {nearest(role, roles)}"
            findings.add(ADMIN, number, "role-without-rules", sentence)
    methods = {method for _, method, _ in rules}
    held: dict[str, set[str]] = {}
    for member, role in members:
        held.setdefault(member, set()).add(role)
    sets = len(list(_role_sets(rules, (frozenset(each) for each in held.values()))))
    if sets * len(methods) * len(rules) > MAX_WORK:
        findings.add(ADMIN, 1, "too-many-rules", "roles times methods times rules are too many")


def _read_member(line: Line, members: dict[tuple[str, str], int], findings: Findings) -> None:
    if len(line.words) != 3:  # noqa: PLR2004 - g, identity or group, role
        findings.add(ADMIN, line.number, "field-count", "write 'g, identity, role' or 'g, idp:group, role'")
        return
    _, identity, role = line.words
    if not any(form.fullmatch(identity) for form in (_SPIFFE, _DNS, _GROUP)):
        findings.add(
            ADMIN,
            line.number,
            "identity",
            f"{quoted(identity)} is neither a SPIFFE id (spiffe://…/…), nor a DNS name, nor a group (idp:…)",
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
