"""`broker policy check`: what is wrong with the files of a policy, for people, programs and reviews."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, print_line, progress, say
from broker.cli.policy import named
from broker.cli.policy.options import Json, sentence, summary

if TYPE_CHECKING:
    from broker.policy import Policy, PolicyFiles
    from broker.policy.lint import LintReport

FAILED = 1


class Form(StrEnum):
    """How the findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def check(
    administrator: named.WhoAsks,
    policy_name: named.Draft,
    form: Annotated[
        Form, typer.Option("--format", help="For people, for programs, or SARIF 2.1.0 for code-review tools.")
    ] = Form.TEXT,
    as_json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on warnings, too; not on accepted ones.")
    ] = False,
    on: Annotated[
        datetime | None,
        typer.Option("--on", formats=["%Y-%m-%d"], help="The day by which rules end; today without it."),
    ] = None,
) -> None:
    """Check policy files without loading them; prints every finding with file and line.

    An error keeps the files from being put in force. A warning is to be put right, or accepted in the
    file: '# accept <finding>: <reason>' directly above the rule. A note only tells.

    Exit codes: 0 no error; 1 errors, or warnings with --strict; 2 wrong usage.

    \b
    Example:
      broker policy check policies --strict
      broker policy check policies --format sarif > policy.sarif
      broker policy check 3 --as anna
    """
    from broker.policy.lint.sarif import as_sarif

    report, checked = _check(policy_name, administrator, on.date() if on else datetime.now(UTC).date())
    failed = not report.ok or (strict and bool(report.warnings))
    if form is Form.SARIF:
        print_json(as_sarif(report, Path(policy_name).as_posix()))
    elif as_json or form is Form.JSON:
        print_json({**(summary(*checked) if checked else {}), **report.as_mapping()})
    else:
        _print(report, policy_name)
        if checked:
            say(sentence(checked[1]))
    if failed:
        raise typer.Exit(FAILED)


def _check(
    name: str, administrator: named.WhoAsks, today: date
) -> tuple[LintReport, tuple[PolicyFiles, Policy] | None]:
    """Lints, and holds files without an error against Casbin."""
    from broker.errors import PolicyInvalidError
    from broker.policy import load
    from broker.policy.lint import Finding, LintReport, lint
    from broker.rpc.admin import METHOD_NAMES

    try:
        files = named.files(name, administrator)
        with progress("Reading the policy") as now:
            report = lint(files, today=today, methods=[f"/{name}" for name in METHOD_NAMES], say=now)
            if not report.ok:
                return report, None
            now("Comparing the policy with Casbin")
            return report, (files, load(files, "candidate", thorough=True, today=today))
    except PolicyInvalidError as exc:  # no five files, or Casbin differs
        return LintReport.of(Finding.parse(text) for text in exc.findings), None


def _print(report: LintReport, name: str) -> None:
    for finding in report.findings:
        file = f"{named.called(name)}, {finding.file}" if named.is_kept(name) else Path(name) / finding.file
        weight = f"{finding.severity}, accepted" if finding.accepted else finding.severity.value
        print_line(f"{file}:{finding.line}: {weight}: {finding.sentence} [{finding.name}]")
        if said := finding.accepted or finding.hint:
            print_line(f"    {said}")
    counts = {
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "accepted": len(report.accepted),
        "notes": len(report.notes),
    }
    say(", ".join(f"{count} {what}" for what, count in counts.items()))
