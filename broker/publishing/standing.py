"""How a candidate stands the tests: the incident's, its own, and those of the version in force.

Invariants:
- a test in force that fails is outdated, whoever is to blame; the comparison tells whether that widens;
- a test in force that passes stays, under whatever name, or its loss counts as a widening: without it
  the next version could widen unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.policy import Policy
from broker.policy.bundle import Bundle
from broker.policy.findings import Findings, TooManyFindingsError
from broker.policy.suite import AdminCase, Case, SuiteReport, Suites, incident_suite, read_suites, run

OUTDATED = "a test of the version in force does not pass: {}"
DROPPED = "a test of the version in force is gone or changed, though it passes: {}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of all tests, in sentences."""

    failures: tuple[str, ...]  # of the incident's and its own
    outdated: tuple[str, ...]
    dropped: tuple[str, ...]
    passed: int
    unreached: tuple[str, ...]  # rules that no test of its own reaches


def stand(policy: Policy, candidate: Bundle, active: Bundle | None) -> Standing:
    """Runs all tests on a candidate.

    Args:
        policy: the candidate, compiled.
        candidate: the candidate with its tests.
        active: what is in force; None: nothing is.
    """
    incident = run(policy, incident_suite(policy.catalog))
    own, suites, unreadable = _run(policy, candidate.tests)
    failures = [*(f.text for f in incident.failures), *unreadable, *(f.text for f in own.failures)]
    outdated: list[str] = []
    dropped: list[str] = []
    if active is not None and active.tests_digest != candidate.tests_digest:
        theirs, held, unreadable = _run(policy, active.tests)
        outdated = [OUTDATED.format(text) for text in (*unreadable, *(f.text for f in theirs.failures))]
        kept = {_meaning(case) for case in _all(suites)}
        failed = {failure.name for failure in theirs.failures}
        gone = [case for case in _all(held) if case.name not in failed and _meaning(case) not in kept]
        dropped = [DROPPED.format(case.name) for case in gone]
    passed = len(incident.passed) + len(own.passed)
    return Standing(tuple(failures), tuple(outdated), tuple(dropped), passed, own.unreached)


def _run(policy: Policy, tests: Mapping[str, str]) -> tuple[SuiteReport, Suites, list[str]]:
    """Runs tests; those that the policy's catalog cannot even read are told, and none of them is run."""
    findings = Findings()
    try:
        suites = read_suites(tests, policy.catalog, findings)
    except TooManyFindingsError:
        suites = None
    suites = suites or Suites(())
    return run(policy, suites), suites, [finding.text for finding in findings]


def _all(suites: Suites) -> list[Case | AdminCase]:
    return [*suites.cases, *suites.administrators]


def _meaning(case: Case | AdminCase) -> tuple[object, ...]:
    """Gives what a test says, without its name and place."""
    if isinstance(case, AdminCase):
        return case.groups, case.identity, case.allowed, case.refused, case.nothing_else
    return frozenset(case.roles), case.groups, case.conditions, frozenset(case.expected.items())
