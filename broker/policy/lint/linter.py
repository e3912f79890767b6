"""All files of a policy together: what the strict readers refuse, and what stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date

from broker.catalog import Catalog
from broker.policy.admin import AdminTable
from broker.policy.decision import read_parts
from broker.policy.files import ADMIN, CATALOG, MODEL, RULES, PolicyFiles
from broker.policy.findings import Finding, Findings, Severity, TooManyFindingsError
from broker.policy.limits import Limits
from broker.policy.lint.accept import apply, read_acceptances
from broker.policy.lint.admin import check_admin
from broker.policy.lint.catalog import check_classes, check_use
from broker.policy.lint.hints import hint_of
from broker.policy.lint.model import check_words
from broker.policy.lint.report import LintReport
from broker.policy.lint.rules import RuleCheck, check_ends
from broker.policy.rules import RuleBook

MOST = 1000
"""Most findings of one kind of look at good files; a policy of 10,000 rules may accept many in writing."""


def lint(
    files: PolicyFiles,
    *,
    today: date,
    methods: Iterable[str] = (),
    say: Callable[[str], None] = lambda _text: None,
) -> LintReport:
    """Finds what is wrong or odd in the files of a policy; takes some seconds at worst.

    Args:
        files: the five files.
        today: the day, in UTC, by which rules end.
        methods: the full names (`/package.Service/Method`) of the RPCs that `admin.csv` must decide on;
            none: not checked.
        say: takes what is done now.

    Returns:
        The report; whatever the files hold, no exception.
    """
    say("Reading the files")
    found = _collect(lambda findings: check_words(files.texts[MODEL], findings))
    read = Findings()
    try:
        parts = read_parts(files, read)
    except TooManyFindingsError:
        parts = None
        found.append(_too_many(Severity.ERROR))
    found += read
    if parts is not None and not found:
        found = _accept(_look(files, parts, today, tuple(methods), say), files.texts[RULES])
    return LintReport.of(replace(each, hint=each.hint or hint_of(each.name)) for each in found)


def _look(
    files: PolicyFiles,
    parts: tuple[Catalog, RuleBook, Limits, AdminTable],
    today: date,
    methods: Iterable[str],
    say: Callable[[str], None],
) -> list[Finding]:
    """Looks at files that every reader has accepted."""
    catalog, book, _, admin = parts
    in_force = book.in_force(today)
    found = _collect(lambda findings: check_ends(book, today, findings))
    found += _collect(lambda findings: check_admin(files.texts[ADMIN], admin, methods, findings))
    found += _collect(lambda findings: check_classes(files.texts[CATALOG], catalog, findings))
    found += _collect(lambda findings: check_use(files.texts[CATALOG], catalog, in_force, findings))
    if in_force.rules:
        rules = RuleCheck(in_force, catalog)
        found += _collect(rules.check_sense)
        found += _collect(lambda findings: rules.check_effect(findings, say), Severity.WARNING)
    return found


def _collect(look: Callable[[Findings], None], overflow: Severity = Severity.ERROR) -> list[Finding]:
    """Gives what one look finds; that it found too much is a finding."""
    findings = Findings(MOST)
    try:
        look(findings)
    except TooManyFindingsError:
        return [*findings, _too_many(overflow)]
    return list(findings)


def _too_many(severity: Severity) -> Finding:
    return Finding(
        "policy", 1, "too-many", "more findings than are told; the rest is not looked at", severity
    )


def _accept(own: list[Finding], rules: str) -> list[Finding]:
    """Marks what the rules accept in writing; where too much is wrong with that, nothing is accepted."""
    accepting = Findings(MOST)
    try:
        marked = apply(own, read_acceptances(rules, accepting), accepting)
    except TooManyFindingsError:
        return [*own, *accepting, _too_many(Severity.ERROR)]
    return [*marked, *accepting]
