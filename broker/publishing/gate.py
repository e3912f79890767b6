"""What a candidate must pass before it may come into force; pure.

Invariants:
- whatever cannot be told counts against the candidate: what was not compared widens;
- nobody alone takes away what others check with: a right on the admin port that somebody loses and whatever
  holds of a test and is not asked any more, because somebody took it out or took out a word of it, count as
  widening;
- what counted as contact data or as sensitive in a version that was in force is tested as such for ever;
- an approver reads first which checks become weaker, however much else is told;
- nobody is locked out by a version: its author could still propose (or roll back), its approver approve, and
  some group and some certificate can do either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from broker.errors import PolicyInvalidError
from broker.model import Agent
from broker.policy import AdminTable, Policy, load
from broker.policy.bundle import Bundle
from broker.policy.compare import Area, Direction, compare
from broker.policy.decision import load_known
from broker.policy.lint import lint
from broker.policy.table_digest import table_digest
from broker.publishing.catalogs import came_back, catalogs_of
from broker.publishing.standing import stand

PROPOSE = "/broker.v1.PolicyService/Propose"
ROLL_BACK = "/broker.v1.PolicyService/Rollback"
APPROVE = "/broker.v1.PolicyService/Approve"

OF_ITS_TIME = frozenset({"rule-ended", "method-missing", "unknown-method", "role-without-members"})
"""Errors that an old version may have for its age: a rule or a denial that decides nothing (any more), a
method that is refused to all."""

MOST_SENTENCES = 200
"""Sentences of one kind in a report; a change that takes more is told to be larger than that."""

SILENCED = "nobody alone takes a right away from administrators"
"""Begins the sentence on a right of the admin port that somebody loses."""

NEUTRAL = "changes nobody's access"
"""Begins the sentence on what is new or otherwise without effect, until a rule speaks of it."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Seat:
    """A person's groups and the certificate of their console: what the admin table knows of them."""

    groups: Collection[str]
    certificate: str


@dataclass(frozen=True, slots=True)
class Question:
    """A candidate, what is in force, and who wants it."""

    candidate: Bundle
    active: Bundle | None
    today: date
    before: Sequence[str] = ()  # the catalogs that were in force, newest first
    methods: Collection[str] = ()  # full names of the RPCs that admin.csv must decide on
    replaces_tests: bool = False
    restores: bool = False  # it rolls back: the content of a version that was in force
    author: Seat | None = None
    approver: Seat | None = None
    thorough: bool = True  # compare with Casbin for seconds
    person: Agent | None = None  # who asks
    urgent: bool = False  # an approval or an emergency


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of it."""

    refusals: tuple[str, ...] = ()  # any of them keeps the candidate out
    warnings: tuple[str, ...] = ()
    widening: tuple[str, ...] = ()
    narrowing: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # counts, coverage, the replay

    @property
    def widens(self) -> bool:
        """Says whether anything becomes wider, or might."""
        return bool(self.widening)

    @property
    def only_narrows(self) -> bool:
        """Says whether something becomes narrower and nothing wider: what one person may publish alone."""
        return bool(self.narrowing) and not self.widening

    def as_mapping(self) -> dict[str, Any]:
        """Gives the report, as it is stored with the proposal."""
        return asdict(self)

    @property
    def table(self) -> str:
        """Gives the digest of the table that was held against Casbin; empty where it came to none."""
        return str(self.facts.get("table", ""))

    @classmethod
    def from_mapping(cls, found: Mapping[str, Any]) -> Examination:
        """Reads what `as_mapping` gave."""
        lists = {name: tuple(found[name]) for name in ("refusals", "warnings", "widening", "narrowing")}
        return cls(**lists, facts=found["facts"])


def examine(question: Question, say: Say = lambda _text: None) -> Examination:
    """Examines a candidate: takes seconds, so it has a process of its own (`examining`)."""
    candidate = question.candidate.files
    report = lint(candidate, today=question.today, methods=question.methods, say=say)
    milder = OF_ITS_TIME if question.restores else frozenset()
    warnings = [
        *(found.text for found in report.errors if found.name in milder),
        *(found.text for found in report.warnings),
    ][:MOST_SENTENCES]
    if errors := [found.text for found in report.errors if found.name not in milder]:
        return Examination(refusals=tuple(errors[:MOST_SENTENCES]), warnings=tuple(warnings))
    say("Holding the compiled policy against Casbin")
    try:
        policy = load(candidate, "candidate", thorough=question.thorough, today=question.today)
    except PolicyInvalidError as exc:
        return Examination(refusals=tuple(exc.findings[:MOST_SENTENCES]))
    active, unread = _active(question)
    before, forgotten = catalogs_of(question.before)
    returned = came_back(policy.catalog, active.catalog, before) if active else []
    changes = _compared(active, policy, say)
    say("Running the tests")
    tests = stand(policy, question.candidate, question.active, active.catalog if active else None, before)
    refusals = [*_locked_out(policy.admin, question), *tests.failures]
    weaker = [*changes.silenced, *tests.lost, *tests.dropped, *returned]
    wider, narrowing = [*unread, *forgotten, *changes.wider], list(changes.narrower)
    if not question.replaces_tests:
        refusals += [*tests.outdated, *tests.broken, *tests.lost]
    elif wider or weaker or tests.broken or not narrowing:  # then they did not fail for what is taken away
        weaker += [*tests.broken, *tests.outdated]
    else:
        narrowing += tests.outdated
    return Examination(
        refusals=tuple(refusals[:MOST_SENTENCES]),
        warnings=(*warnings, *_some(changes.neutral)),
        widening=(*_some(weaker), *_some(wider)),
        narrowing=_some(narrowing),
        facts={
            "rules": len(policy.book.rules),
            "roles": sorted(policy.roles),
            "fields": len(policy.catalog.fields),
            "verification": policy.verification,
            "table": table_digest(policy.table),
            "tests_passed": tests.passed,
            "rules_that_no_test_reaches": list(tests.unreached),
        },
    )


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a comparison says, as the gate takes it."""

    wider: Sequence[str] = ()
    silenced: Sequence[str] = ()  # rights on the admin port that somebody loses
    narrower: Sequence[str] = ()
    neutral: Sequence[str] = ()


def _active(question: Question) -> tuple[Policy | None, list[str]]:
    """Gives what is in force, or why it cannot be compared with."""
    if question.active is None:
        return None, ["there is nothing in force to compare with"]
    try:
        return load_known(question.active.files, "active", today=question.today), []
    except PolicyInvalidError:
        return None, ["the version in force cannot be read by this release, so nothing could be compared"]


def _compared(active: Policy | None, candidate: Policy, say: Say) -> _Changes:
    """Says what becomes wider, or might, what narrower, and what changes nobody's access."""
    if active is None:
        return _Changes()
    found = compare(active, candidate, say)
    narrower = found.going(Direction.NARROWING)
    return _Changes(
        [c.sentence for d in (Direction.WIDENING, Direction.UNDECIDABLE) for c in found.going(d)],
        # Whoever stops agents, looks at the ledger or approves is a check on the author.
        [f"{SILENCED}: {c.sentence}" for c in narrower if c.area is Area.ADMIN],
        [c.sentence for c in narrower],
        [f"{NEUTRAL}: {c.sentence}" for c in found.going(Direction.NEUTRAL)],
    )


def _some(sentences: Sequence[str]) -> tuple[str, ...]:
    """Keeps a report readable: so many sentences, and that there are more."""
    if len(sentences) <= MOST_SENTENCES:
        return tuple(sentences)
    return (*sentences[:MOST_SENTENCES], f"and {len(sentences) - MOST_SENTENCES} more: broker policy compare")


def _locked_out(table: AdminTable, question: Question) -> Iterator[str]:
    """Says who could not undo this version once it is in force."""
    for method in (PROPOSE, APPROVE):
        verb = method.rpartition("/")[2]
        if not any(table.allows_person((group,), method) for group in table.groups):
            yield f"admin.csv: no group leads to a role that may {verb}: nobody could change the policy again"
        if not any(table.allows(identity, method) for identity in table.identities):
            yield f"admin.csv: no certificate may {verb}: nobody could change the policy again"
    for seat, method, who in (
        (question.author, ROLL_BACK if question.restores else PROPOSE, "its author"),
        (question.approver, APPROVE, "its approver"),
    ):
        if seat is not None and not (
            table.allows(seat.certificate, method) and table.allows_person(seat.groups, method)
        ):
            yield f"admin.csv: under it {who} could no longer {method.rpartition('/')[2]}"
