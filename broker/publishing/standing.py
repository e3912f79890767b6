"""How a candidate stands the tests: the incident's, its own, and those of the version in force.

Tests in force are looked at one bound at a time (`suite/bounds.py`), because a test that fails in one point
says other things that hold. They are read under both catalogs: what they asked of a field under the old one
is asked of it still, whatever class it is in now.

Invariants:
- what holds of a test in force stays in the candidate's tests, under whatever name, or its loss counts as a
  widening: without it the next version could widen unnoticed;
- so does the loss of a test that cannot be read or run any more, because a word of it is gone; each test is
  read by itself, so that no other goes with it;
- a test that asked for at most so much and gets more is broken, which widens whoever is to blame;
- one that asked for at least so much and gets less is outdated; the comparison tells whether that widens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from broker.catalog import Catalog
from broker.errors import PolicyInvalidError
from broker.policy import Policy
from broker.policy.bundle import Bundle
from broker.policy.suite import (
    AdminCase,
    Bound,
    Case,
    Failure,
    Kept,
    Suites,
    bounds_of,
    came,
    foreseeing,
    in_words,
    incident_suite,
    read_apart,
    read_suites,
    run,
)

OUTDATED = "a test of the version in force does not pass: {}"
LOST = "a test of the version in force cannot be read or run any more: {}"
DROPPED = "a test of the version in force is gone or changed, though it passes: {}"
WEAKENED = "a test of the version in force asks less, though this holds: {}: {}"
LET_GO = "a test of the version in force no longer speaks of fields, of which this held: {}: {}"

Place = tuple[str, int, str]
"""File, line and name of a test."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of all tests, in sentences."""

    failures: tuple[str, ...]  # of the incident's and its own
    outdated: tuple[str, ...]
    broken: tuple[str, ...]
    lost: tuple[str, ...]
    dropped: tuple[str, ...]
    passed: int
    unreached: tuple[str, ...]  # rules that no test of its own reaches


def stand(
    policy: Policy, candidate: Bundle, active: Bundle | None, was: Catalog | None, before: Sequence[Catalog]
) -> Standing:
    """Runs all tests on a candidate.

    Args:
        policy: the candidate, compiled.
        candidate: the candidate with its tests.
        active: what is in force; None: nothing is.
        was: its catalog, where that can be read.
        before: the catalogs that were in force.
    """
    own, failures = Suites(()), []
    try:
        own = read_suites(candidate.tests, policy.catalog)
    except PolicyInvalidError as exc:
        failures = exc.findings
    incident, theirs = run(policy, incident_suite(policy.catalog, before)), run(policy, own)
    failures = [*(f.text for f in incident.failures), *failures, *(f.text for f in theirs.failures)]
    force = _InForce()
    if active is not None and (active.tests_digest != candidate.tests_digest or was != policy.catalog):
        force = _in_force(policy, active.tests, candidate.tests, was or policy.catalog)
    passed = len(incident.passed) + len(theirs.passed)
    return Standing(
        tuple(failures), force.outdated, force.broken, force.lost, force.dropped, passed, theirs.unreached
    )


@dataclass(frozen=True, slots=True)
class _InForce:
    """What came of the tests in force."""

    outdated: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def _in_force(policy: Policy, tests: Mapping[str, str], own: Mapping[str, str], was: Catalog) -> _InForce:
    """Holds the tests in force against a candidate and its own tests."""
    held, unread = read_apart(tests, policy.catalog)
    failures = run(policy, held).failures
    failed = {_place(failure) for failure in failures}
    not_run = {_place(failure) for failure in failures if not failure.ran}
    now, _ = read_apart(own, foreseeing(policy.catalog))
    kept = Kept(now.cases, now.administrators, policy.book.mapped_roles)
    broken = {_place(case) for case in held.administrators} & failed
    dropped: list[str] = []
    asked = [
        (case, bounds) for case, bounds in _asked(policy.catalog, tests, was) if _place(case) not in not_run
    ]
    for (case, bounds), levels in zip(asked, came(policy, map(_there, asked)), strict=True):
        holding = [b for b in bounds if b.of_field_to_come or b.holds(levels[b.field])]
        if failing := [bound for bound in bounds if bound.most and bound not in holding]:
            broken.add(_place(case))
            if _place(case) not in failed:  # it passes, because it does not ask for these fields any more
                dropped.append(LET_GO.format(case.name, in_words(failing)))
        if missing := kept.missing(case, holding):
            dropped.append(_less(case.name, in_words(missing), whole=len(missing) == len(bounds)))
    for admin in held.administrators:
        if _place(admin) not in not_run and (words := kept.admin_missing(policy.admin, admin)):
            whole = _place(admin) not in failed and not kept.asks(admin)
            dropped.append(_less(admin.name, ", ".join(words), whole=whole))
    ran = [failure for failure in failures if failure.ran]
    return _InForce(
        tuple(OUTDATED.format(failure.text) for failure in ran if _place(failure) not in broken),
        tuple(OUTDATED.format(failure.text) for failure in ran if _place(failure) in broken),
        tuple(LOST.format(t) for t in (*(u.text for u in unread), *(f.text for f in failures if not f.ran))),
        tuple(dropped),
    )


def _asked(catalog: Catalog, tests: Mapping[str, str], was: Catalog) -> Iterator[tuple[Case, list[Bound]]]:
    """Gives each test that can still be read, with what it asks now and asked before of what there is."""
    names = foreseeing(catalog).fields
    before = {_place(case): bounds_of(case) for case in read_apart(tests, foreseeing(was))[0].cases}
    readable = {_place(case) for case in read_apart(tests, catalog)[0].cases}
    for case in read_apart(tests, foreseeing(catalog))[0].cases:
        if _place(case) in readable:
            then = [bound for bound in before.get(_place(case), ()) if bound.field in names]
            both = dict.fromkeys((*bounds_of(case), *then))
            yield case, [bound for bound in both if bound.most or not bound.of_field_to_come]


def _there(asked: tuple[Case, list[Bound]]) -> tuple[Case, list[str]]:
    """Gives the fields of a test that something can come out as."""
    case, bounds = asked
    return case, [bound.field for bound in bounds if not bound.of_field_to_come]


def _less(name: str, words: str, *, whole: bool) -> str:
    return DROPPED.format(name) if whole else WEAKENED.format(name, words)


def _place(test: Case | AdminCase | Failure) -> Place:
    return test.file, test.line, test.name
