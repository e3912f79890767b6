"""`broker policy test`: a policy against its tests, and against those that nobody can take away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, print_line, progress, say
from broker.cli.policy import named
from broker.cli.policy.options import Json

if TYPE_CHECKING:
    from broker.client import PolicyText
    from broker.policy.suite import SuiteReport

FAILED = 1


def run_tests(
    administrator: named.WhoAsks,
    policy_name: Annotated[
        str,
        typer.Argument(
            metavar="DIR|VERSION|PROPOSAL", help="Folder of a policy, with tests/, or what `list` prints."
        ),
    ] = "policies",
    cover: Annotated[
        bool, typer.Option("--cover", help="Fail where a rule is reached by no test, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the policy's tests: tests/*.yaml, and the incident tests that the broker brings along.

    Prints a sentence for each thing that comes out otherwise than expected, and the rules that no test
    reaches.

    Exit codes: 0 all pass; 1 a test fails, the files are wrong, or with --cover a rule is not reached;
    2 wrong usage.

    \b
    Example:
      broker policy test policies --cover
      broker policy test 3 --as anna
    """
    report = _run(named.texts([policy_name], administrator, tests=True)[policy_name])
    if as_json:
        print_json(report.as_mapping())
    else:
        _print(report)
    if not report.ok or (cover and report.unreached):
        raise typer.Exit(FAILED)


def _run(text: PolicyText) -> SuiteReport:
    """Runs all tests.

    Raises:
        PolicyInvalidError: the policy or a test file is wrong.
    """
    from broker.policy import PolicyFiles
    from broker.policy.decision import load_known
    from broker.policy.suite import incident_suite, read_suites, run

    with progress("Reading the policy and its tests") as now:
        files = PolicyFiles.from_mapping(text.files)
        policy = load_known(files, "candidate", today=datetime.now(UTC).date())
        suites = incident_suite(policy.catalog) + read_suites(text.tests, policy.catalog)
        now("Running the tests")
        return run(policy, suites)


def _print(report: SuiteReport) -> None:
    for failure in report.failures:
        print_line(f"{failure.file}:{failure.line}: {failure.name}")
        print_line(f"    {failure.sentence}")
    for place in report.unreached:
        print_line(f"{place}: no test reaches this rule")
    failed = len({(each.file, each.line, each.name) for each in report.failures})
    reached = len(report.coverage) - len(report.unreached)
    say(
        f"{len(report.passed)} tests passed, {failed} failed, over {report.situations} situations that rules "
        f"tell apart; {reached} of {len(report.coverage)} rules reached"
    )
