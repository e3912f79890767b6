"""A finding accepted in writing, where it stands: `# accept sensitive-clear: reason` directly above a rule.

Invariants:
- it accepts the named finding of the one rule below it, nothing else;
- it gives a reason, which the report repeats;
- one that accepts nothing is a finding itself, so that it does not wait for the next rule there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from broker.policy.files import RULES
from broker.policy.findings import Finding, Findings, Severity, nearest, quoted

ACCEPTABLE: Mapping[str, Severity] = {
    "redundant-rule": Severity.WARNING,
    "sensitive-clear": Severity.ERROR,
    "sensitive-wildcard": Severity.ERROR,
    "shadowed-rule": Severity.WARNING,
}
"""The findings that may be accepted, with what they weigh unaccepted."""

_LOOKS_LIKE_IT = re.compile(r"#+\s*accept(ed|s)?\b[^.]*:", re.IGNORECASE)
_FORM = re.compile(r"# accept ([a-z-]+): (\S.*)")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One such comment."""

    line: int
    name: str
    reason: str


def read_acceptances(text: str, findings: Findings) -> dict[int, list[Acceptance]]:
    """Gives the acceptances by the line of the rule below them; misshapen ones go to the findings."""
    by_rule: dict[int, list[Acceptance]] = {}
    waiting: list[Acceptance] = []
    for number, line in enumerate(text.split("\n"), 1):
        if _LOOKS_LIKE_IT.match(line):
            if accepted := _read(number, line, findings):
                waiting.append(accepted)
            continue
        if waiting and line.startswith("p"):
            by_rule[number] = waiting
        else:
            for accepted in waiting:
                _unused(accepted, "it stands above no rule", findings)
        waiting = []
    return by_rule


def apply(
    found: Iterable[Finding], acceptances: Mapping[int, list[Acceptance]], findings: Findings
) -> list[Finding]:
    """Marks what is accepted, as a warning with its reason; acceptances left over go to the findings."""
    left = {(line, each.name): each for line, several in acceptances.items() for each in several}
    reasons = {key: each.reason for key, each in left.items()}
    marked = []
    for finding in found:
        key = (finding.line, finding.name)
        if finding.file == RULES and key in reasons:
            left.pop(key, None)
            marked.append(replace(finding, severity=Severity.WARNING, accepted=reasons[key]))
        else:
            marked.append(finding)
    for each in left.values():
        _unused(each, "the rule below it has no such finding", findings)
    return marked


def _read(number: int, line: str, findings: Findings) -> Acceptance | None:
    match = _FORM.fullmatch(line)
    if not match:
        findings.add(
            RULES,
            number,
            "accept-form",
            "write '# accept <finding>: <reason>', or begin the comment otherwise",
            Severity.WARNING,
        )
        return None
    name, reason = match.groups()
    if name not in ACCEPTABLE:
        findings.add(
            RULES,
            number,
            "accept-form",
            f"{quoted(name)} is no finding that can be accepted; {nearest(name, ACCEPTABLE)}",
            Severity.WARNING,
        )
        return None
    return Acceptance(number, name, reason)


def _unused(accepted: Acceptance, why: str, findings: Findings) -> None:
    findings.add(
        RULES,
        accepted.line,
        "accept-unused",
        f"the comment accepts {accepted.name!r}, but {why}",
        Severity.WARNING,
    )
