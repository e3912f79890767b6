"""The strict reader of `policy.csv`: what Casbin will see, and nothing that it would drop.

Invariants:
- every word of a rule is known: to the catalog, to the model's enums, or from a `g` line;
- a role exists because a group of the identity provider leads to it, directly or by nesting;
- groups carry the prefix `idp:` and are only ever left of a `g` line: no agent, tool or ticket is
  looked up here, so a person named like a role gains nothing (K8);
- roles nest without cycles and less deep than the level where Casbin gives up (10);
- an end (`until 2027-01-31`) is for allows alone: a denial has none. Casbin never sees it, it sees the
  rules that are in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType

from broker.catalog import Catalog
from broker.model import Level, OpenedBy, Presence, Provenance, Relation
from broker.policy.files import RULES
from broker.policy.findings import Findings, nearest, quoted
from broker.policy.lines import ANY, NAME, RESERVED, Line, read_csv

GROUP_PREFIX = "idp:"
"""What a group of the identity provider begins with in a `g` line."""

MAX_RULES = 10_000
"""Most `p` lines. Stock Casbin takes 40 ms a decision there; the table does not care, the check does."""

MAX_GROUPS = 2_000
"""Most `g` lines."""

MAX_ROLES = 200
"""Most roles."""

MAX_NESTING = 9
"""Most roles in a chain; with the role set before it that is Casbin's limit of 10."""

EFFECTS = ("allow", "deny")

CONDITIONS = ("purpose", "relation", "ticket_kind", "provenance", "opened_by", "presence")
"""The columns that speak of facts, in the order of the request definition."""

COLUMNS = ("role", *CONDITIONS, "field", "level", "effect")

_UNTIL = re.compile(r"until ([0-9]{4}-[0-9]{2}-[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Rule:
    """One `p` line."""

    line: int
    role: str
    conditions: tuple[str, ...]  # in the order of CONDITIONS
    field: str  # a field's full name, a class, or `any`
    level: str
    effect: str
    until: date | None = None  # the last day on which it is in force, in UTC; None: no end

    @property
    def words(self) -> tuple[str, ...]:
        """Gives the rule as Casbin's policy definition orders it."""
        return (self.role, *self.conditions, self.field, self.level, self.effect)

    @property
    def place(self) -> str:
        """Names the rule for people: `policy.csv:12`."""
        return f"{RULES}:{self.line}"


@dataclass(frozen=True)
class RuleBook:
    """Everything `policy.csv` says."""

    rules: tuple[Rule, ...]
    groups: Mapping[str, frozenset[str]]  # group, without its prefix -> roles
    nesting: Mapping[str, frozenset[str]]  # role -> the roles that it includes directly
    columns: tuple[str, ...] = CONDITIONS  # the facts that its model knows

    @property
    def mapped_roles(self) -> frozenset[str]:
        """Gives the roles that some group leads to directly; sets of these are what agents hold."""
        return frozenset().union(*self.groups.values())

    def in_force(self, today: date) -> RuleBook:
        """Gives the book without the rules that have ended; what is left of it may be no rule at all."""
        return replace(
            self, rules=tuple(rule for rule in self.rules if rule.until is None or today <= rule.until)
        )

    @property
    def next_end(self) -> date | None:
        """Gives the last day of the rule that ends first; None where none ends."""
        return min((rule.until for rule in self.rules if rule.until is not None), default=None)

    def closure(self, role: str) -> frozenset[str]:
        """Gives the role and everything that it includes."""
        seen: set[str] = set()
        waiting = [role]
        while waiting:
            if (current := waiting.pop()) not in seen:
                seen.add(current)
                waiting.extend(self.nesting.get(current, ()))
        return frozenset(seen)


def read_rules(
    text: str, catalog: Catalog, findings: Findings, columns: tuple[str, ...] = CONDITIONS
) -> RuleBook:
    """Reads `policy.csv` against the catalog; what is wrong goes to the findings.

    Args:
        text: the file.
        catalog: the words that rules may use.
        findings: where to say what is wrong.
        columns: the facts that the model knows; of the others a rule says `any`.
    """
    p_lines: list[Line] = []
    g_lines: list[Line] = []
    seen: dict[tuple[str, ...], int] = {}
    for line in read_csv(RULES, text, findings):
        if line.words in seen:
            findings.add(RULES, line.number, "duplicate", f"the line repeats line {seen[line.words]}")
            continue
        seen[line.words] = line.number
        (p_lines if line.words[0] == "p" else g_lines).append(line)
        if len(p_lines) > MAX_RULES or len(g_lines) > MAX_GROUPS:
            findings.add(
                RULES, line.number, "too-many-rules", f"more than {MAX_RULES} rules or {MAX_GROUPS} g lines"
            )
            break
    groups, nesting = _read_groups(g_lines, findings)
    roles = frozenset().union(*groups.values(), *nesting.values())
    rules = _read_rules(p_lines, roles, catalog, findings, columns)
    if not p_lines and not findings.has(RULES):
        findings.add(
            RULES, 1, "no-rules", "the file has no rule at all; a policy without rules is not served"
        )
    if not groups and not findings.has(RULES):
        findings.add(
            RULES, 1, "no-groups", f"no group leads to any role; write 'g, {GROUP_PREFIX}<group>, <role>'"
        )
    if not findings.has(RULES):
        _check_use(g_lines, rules, groups, nesting, findings)
    return RuleBook(
        rules=tuple(rules),
        groups=MappingProxyType({group: frozenset(to) for group, to in groups.items()}),
        nesting=MappingProxyType({role: frozenset(to) for role, to in nesting.items()}),
        columns=columns,
    )


def _read_groups(
    lines: Sequence[Line], findings: Findings
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Tells groups (`idp:…`) from roles that include roles."""
    groups: dict[str, set[str]] = {}
    nesting: dict[str, set[str]] = {}
    whole = [line for line in lines if len(line.words) == 3]  # noqa: PLR2004 - g, who, role
    for line in lines:
        if len(line.words) != 3:  # noqa: PLR2004 - g, who, role
            findings.add(
                RULES,
                line.number,
                "field-count",
                f"a g line has 2 values behind 'g', this one has {len(line.words) - 1}",
            )
            continue
        _, who, role = line.words
        if not _good_role(line, role, findings):
            continue
        if who.startswith(GROUP_PREFIX):
            if not who.removeprefix(GROUP_PREFIX).strip():
                findings.add(RULES, line.number, "blank-value", "the group has no name")
                continue
            groups.setdefault(who.removeprefix(GROUP_PREFIX), set()).add(role)
        elif NAME.fullmatch(who):
            if _good_role(line, who, findings):
                nesting.setdefault(who, set()).add(role)
        else:
            findings.add(
                RULES,
                line.number,
                "not-a-group",
                f"{quoted(who)} is neither a group ('{GROUP_PREFIX}…') nor a role; people are not named here",
            )
    known = set().union(*groups.values(), *nesting.values(), nesting)
    if len(known) > MAX_ROLES:
        findings.add(RULES, lines[-1].number, "too-many-roles", f"more than {MAX_ROLES} roles")
    else:
        _check_nesting(whole, nesting, findings)
    return groups, nesting


def _good_role(line: Line, role: str, findings: Findings) -> bool:
    if not NAME.fullmatch(role):
        findings.add(
            RULES,
            line.number,
            "role-name",
            f"{quoted(role)} cannot name a role: lower-case letters, digits, - and _ only, at most 40",
        )
        return False
    if role in RESERVED:
        findings.add(
            RULES,
            line.number,
            "reserved-word",
            f"{quoted(role)} has a meaning of its own; name the role otherwise",
        )
        return False
    return True


def _check_nesting(lines: Sequence[Line], nesting: Mapping[str, set[str]], findings: Findings) -> None:
    """Refuses cycles and chains that Casbin would not follow to their end."""
    depth: dict[str, int] = {}
    open_: set[str] = set(nesting)
    while open_:
        ready = [role for role in open_ if not (nesting[role] & open_)]
        if not ready:
            number = next(line.number for line in lines if set(line.words[1:]) <= open_)
            findings.add(
                RULES,
                number,
                "role-cycle",
                f"roles include each other in a circle: {', '.join(sorted(open_))}",
            )
            return
        for role in ready:
            depth[role] = 1 + max(depth.get(included, 1) for included in nesting[role])
        open_.difference_update(ready)
    for role, levels in depth.items():
        if levels > MAX_NESTING:
            number = next(line.number for line in lines if line.words[1] == role)
            findings.add(
                RULES,
                number,
                "role-chain",
                f"role {role!r} begins a chain of {levels} roles; at most {MAX_NESTING} work",
            )
            return


def _read_rules(
    lines: Sequence[Line],
    roles: frozenset[str],
    catalog: Catalog,
    findings: Findings,
    columns: tuple[str, ...],
) -> list[Rule]:
    names = ("role", *columns, "field", "level", "effect")
    fields = frozenset(catalog.fields) | frozenset(catalog.field_classes)
    vocabulary: dict[str, tuple[str, frozenset[str]]] = {
        "role": ("no g line leads to a role {0}", roles | {ANY}),
        "purpose": ("the catalog has no purpose {0}", frozenset(catalog.purposes) | {ANY}),
        "relation": ("there is no relation {0}", frozenset(Relation) | {ANY}),
        "ticket_kind": ("the catalog has no ticket kind {0}", frozenset(catalog.ticket_kinds) | {ANY}),
        "provenance": ("there is no provenance {0}", frozenset(Provenance) | {ANY}),
        "opened_by": ("there is no 'opened by' {0}", frozenset(OpenedBy) | {ANY}),
        "presence": ("there is no presence {0}", frozenset(Presence) | {ANY}),
        "field": ("the catalog has no field or field class {0}", fields | {ANY}),
        "level": ("there is no level {0}", frozenset(Level) | {ANY}),
        "effect": ("there is no effect {0}", frozenset(EFFECTS)),
    }  # fmt: skip
    readable = [(column, *vocabulary[column]) for column in names]
    rules: list[Rule] = []
    lines_by_question: dict[tuple[str, ...], Rule] = {}
    for line in lines:
        cut = _cut(line, names, findings)
        if cut is None:
            continue
        words, until = cut
        good = True
        said = dict(zip(names, words, strict=True))
        for (column, sentence, known), word in zip(readable, words, strict=True):
            if word not in known:
                findings.add(
                    RULES,
                    line.number,
                    f"unknown-{column.replace('_', '-')}",
                    f"{sentence.format(quoted(word))}; {nearest(word, known)}",
                )
                good = False
        if not good:
            continue
        conditions = tuple([said.get(name, ANY) for name in CONDITIONS])
        rule = Rule(
            line.number, said["role"], conditions, said["field"], said["level"], said["effect"], until
        )
        other = lines_by_question.setdefault(words[:-1], rule)
        if other is rule:
            if _sensible(rule, findings):
                rules.append(rule)
        elif other.effect == rule.effect:
            findings.add(
                RULES, line.number, "duplicate", f"the line repeats line {other.line}, but for when it ends"
            )
        else:
            findings.add(
                RULES, line.number, "contradiction", f"the line says the opposite of line {other.line}"
            )
    return rules


def _cut(
    line: Line, names: tuple[str, ...], findings: Findings
) -> tuple[tuple[str, ...], date | None] | None:
    """Takes the type from a `p` line and the end, where it has one: `until 2027-01-31`, to its end in UTC."""
    words = line.words[1:]
    until: date | None = None
    if len(words) == len(names) + 1 and words[-1].startswith("until"):
        *most, effect, end = words
        words = (*most, effect)
        if effect == "deny":
            findings.add(
                RULES,
                line.number,
                "deny-until",
                "a denial has no end; whoever wants it gone removes its line",
            )
            return None
        match = _UNTIL.fullmatch(end)
        try:
            until = date.fromisoformat(match[1] if match else "")
        except ValueError:
            sentence = f"{quoted(end)} is not an end; write it as 'until 2027-01-31'"
            findings.add(RULES, line.number, "until", sentence)
            return None
    if len(words) != len(names):
        findings.add(
            RULES,
            line.number,
            "field-count",
            f"a rule has {len(names)} values behind 'p' ({', '.join(names)}), not {len(words)}; "
            "an allow may have an end behind them (until 2027-01-31)",
        )
        return None
    return words, until


def _sensible(rule: Rule, findings: Findings) -> bool:
    """Refuses rules that say more, or less, than whoever wrote them can have meant."""
    if rule.effect == "allow" and ANY in {rule.role, rule.field}:
        findings.add(
            RULES,
            rule.line,
            "wildcard-allow",
            "an allow names its role and its field or field class; 'any' there is for denials",
        )
        return False
    if rule.effect == "deny" and rule.level == Level.MASKED:
        findings.add(
            RULES,
            rule.line,
            "deny-masked",
            "a denial of 'masked' alone would leave 'clear' allowed; deny 'any' level, or 'clear'",
        )
        return False
    return True


def _check_use(
    lines: Iterable[Line],
    rules: Sequence[Rule],
    groups: Mapping[str, set[str]],
    nesting: Mapping[str, set[str]],
    findings: Findings,
) -> None:
    """Refuses g lines that lead nowhere: most are a misspelt role."""
    used = {rule.role for rule in rules} | nesting.keys()
    reachable = set().union(*groups.values())
    for _ in range(MAX_NESTING):
        reachable |= set().union(*(nesting.get(role, ()) for role in reachable))
    for line in lines:
        _, who, role = line.words
        if role not in used:
            findings.add(
                RULES,
                line.number,
                "role-without-rules",
                f"role {role!r} has no rule; {nearest(role, used - {role})}",
            )
        elif not who.startswith(GROUP_PREFIX) and who not in reachable:
            findings.add(
                RULES,
                line.number,
                "role-without-group",
                f"no group leads to role {who!r}; {nearest(who, reachable)}",
            )
