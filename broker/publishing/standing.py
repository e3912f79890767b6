"""How a candidate stands the tests: the incident's, its own, and those of the version in force.

Invariants:
- a test in force that fails is outdated, whoever is to blame; the comparison tells whether that widens;
- a test in force that passes stays, under whatever name, or its loss counts as a widening: without it
  the next version could widen unnoticed;
- so does the loss of one that cannot be read or run any more, because a word of it is gone; each test
  is read by itself, so that no other goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import PolicyInvalidError
from broker.policy import Policy
from broker.policy.bundle import Bundle
from broker.policy.suite import AdminCase, Case, Suites, incident_suite, read_apart, read_suites, run

OUTDATED = "a test of the version in force does not pass: {}"
LOST = "a test of the version in force cannot be read or run any more: {}"
DROPPED = "a test of the version in force is gone or changed, though it passes: {}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of all tests, in sentences."""

    failures: tuple[str, ...]  # of the incident's and its own
    outdated: tuple[str, ...]
    lost: tuple[str, ...]
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
    own, failures = Suites(()), []
    try:
        own = read_suites(candidate.tests, policy.catalog)
    except PolicyInvalidError as exc:
        failures = exc.findings
    incident, theirs = run(policy, incident_suite(policy.catalog)), run(policy, own)
    failures = [*(f.text for f in incident.failures), *failures, *(f.text for f in theirs.failures)]
    changed = active is not None and active.tests_digest != candidate.tests_digest
    outdated, lost, dropped = _in_force(policy, active.tests, own) if active and changed else ((), (), ())
    passed = len(incident.passed) + len(theirs.passed)
    return Standing(tuple(failures), outdated, lost, dropped, passed, theirs.unreached)


def _in_force(policy: Policy, tests: Mapping[str, str], own: Suites) -> tuple[tuple[str, ...], ...]:
    """Says which tests in force fail, which cannot be read or run, and which are gone though they pass."""
    held, unread = read_apart(tests, policy.catalog)
    failures = run(policy, held).failures
    kept = {_meaning(case) for case in _all(own)}
    failed = {(failure.file, failure.line, failure.name) for failure in failures}
    gone = (
        case
        for case in _all(held)
        if (case.file, case.line, case.name) not in failed and _meaning(case) not in kept
    )
    return (
        tuple(OUTDATED.format(failure.text) for failure in failures if failure.ran),
        tuple(LOST.format(t) for t in (*(u.text for u in unread), *(f.text for f in failures if not f.ran))),
        tuple(DROPPED.format(case.name) for case in gone),
    )


def _all(suites: Suites) -> list[Case | AdminCase]:
    return [*suites.cases, *suites.administrators]


def _meaning(case: Case | AdminCase) -> tuple[object, ...]:
    """Gives what a test says, without its name and place."""
    if isinstance(case, AdminCase):
        return case.groups, case.identity, case.allowed, case.refused, case.nothing_else
    return frozenset(case.roles), case.groups, case.conditions, frozenset(case.expected.items())
