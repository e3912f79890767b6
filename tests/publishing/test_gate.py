"""What a candidate must pass: findings, tests, comparison, nobody locked out; in a process that ends."""

import asyncio
from datetime import date
from functools import partialmethod

import pytest

from broker.errors import PolicyUnavailableError
from broker.model import Agent
from broker.policy import decision
from broker.policy.bundle import Bundle
from broker.publishing import Child, ChildExaminer, examine, examining
from broker.publishing.gate import Question, Seat
from tests.policy.sample import TEXTS, files
from tests.policy.test_models import OLDER
from tests.publishing.conftest import GOVERNED

TODAY = date(2026, 11, 25)
OLD, NEW = "routed, any, present, contact, clear", "routed, customer, present, contact, clear"
RULES = TEXTS["policy.csv"].replace(OLD, NEW)
BASE = files(admin_csv=GOVERNED, policy_csv=RULES)
CONSOLE = "spiffe://broker.dev/admin/console"
ANNA = Seat(("security-admins",), CONSOLE)
BORIS = Seat(("approvers",), CONSOLE)
TEST = """\
version: 1
tests:
  tier 1 sees the address masked:
    roles: [tier1]
    purpose: resolve
    ticket: {relation: assignee, provenance: routed, opened_by: customer}
    expect: {masked: customer.email}
...
"""


MORE = "p, tier1, resolve, assignee, any, routed, customer, present, contact, clear, allow"


def asked(policy=BASE, *, tests=None, active_tests=None, active=BASE, **more):
    """Examines a policy against the small one."""
    candidate = Bundle.of(policy, tests or {})
    held = Bundle.of(active, active_tests or {})
    return Question(candidate, held, TODAY, thorough=False, **more)


def governed(old, new):
    """Gives the small policy with one place of its rules edited."""
    assert old in RULES
    return files(admin_csv=GOVERNED, policy_csv=RULES.replace(old, new, 1))


def test_nothing_new():
    """What is in force passes, widens nothing and narrows nothing."""
    found = examine(asked(author=ANNA))

    assert (found.refusals, found.widening, found.narrowing) == ((), (), ())


@pytest.mark.attack("C1", "C3")
@pytest.mark.parametrize("old", ["allow", "masked", "contact"])
def test_findings_refuse(old):
    """A finding of the lint keeps a policy out, by file and line."""
    found = examine(asked(governed(old, old.title())))

    assert any(text.startswith("policy.csv:") for text in found.refusals)


def test_wider_and_narrower_are_told():
    """What becomes wider makes a second person necessary; what becomes narrower does not."""
    wider = examine(asked(governed("# end", MORE + "\n# end")))
    narrower = examine(
        asked(
            governed(
                "p, tier2, resolve, assignee, any, routed, customer, present, contact, clear, allow\n", ""
            )
        )
    )

    assert wider.widens
    assert any("tier1" in text and "clear" in text for text in wider.widening)
    assert (narrower.widens, bool(narrower.narrowing)) == (False, True)


SHUT = ("p, tier1, resolve, assignee, any, routed, any, any, contact, masked, allow\n", "")
MASKED = {"tests/a.yaml": TEST}


def test_tests_hold():
    """A policy's own tests keep it out, and those in force do unless it is said that they are replaced."""
    own = examine(asked(governed(*SHUT), tests=MASKED))
    theirs = examine(asked(governed(*SHUT), active_tests=MASKED))

    assert examine(asked(tests=MASKED)).refusals == ()  # the control arm
    assert any("tier 1 sees the address masked" in text for text in own.refusals)
    assert any("tier 1 sees the address masked" in text for text in theirs.refusals)


def test_tests_replaced():
    """What only takes away outdates what a test says of that; beside a widening all of it counts."""
    edited = {"tests/a.yaml": TEST.replace("masked:", "not_clear:")}
    shut = {"active_tests": MASKED, "replaces_tests": True}
    narrower = examine(asked(governed(*SHUT), tests=edited, **shut))
    dropped = examine(asked(governed(*SHUT), **shut))
    opened = ("contact, masked, allow", "profile, masked, allow\n" + MORE)
    wider = examine(asked(governed(*opened), active_tests=MASKED, replaces_tests=True))

    assert (narrower.refusals, narrower.widens) == ((), False)
    assert any("does not pass" in text for text in narrower.narrowing)
    [told] = [text for text in dropped.widening if "asks less" in text]  # that nobody reads it in clear
    assert told.endswith(": tier 1 sees the address masked: customer.email at most masked")
    assert any("does not pass" in text for text in wider.widening)


@pytest.mark.parametrize(
    "tests", [{}, {"tests/a.yaml": TEST.replace("[tier1]", "[tier2]")}], ids=["gone", "weakened"]
)
def test_tests_that_pass_are_not_dropped_alone(tests):
    """Taking a test away that holds is a widening: nobody does that without a second person."""
    found = examine(asked(tests=tests, active_tests=MASKED, replaces_tests=True))
    moved = examine(asked(tests={"tests/b.yaml": TEST}, active_tests=MASKED))

    assert any("though it passes" in text for text in found.widening), found
    assert (moved.refusals, moved.widens) == ((), False)


def test_a_test_of_administrators_is_kept_as_well():
    """Who may approve is tested like who may see: losing a test that holds widens, a false one refuses."""
    text = """\
version: 1
administrators:
  Approvers approve:
    groups: [approvers]
    allowed: PolicyService/Approve
    refused: PolicyService/Propose
...
"""
    kept = examine(asked(tests={"tests/b.yaml": text}, active_tests={"tests/a.yaml": text}))
    gone = examine(asked(active_tests={"tests/a.yaml": text}, replaces_tests=True))
    false = examine(asked(tests={"tests/a.yaml": text.replace("[approvers]", "[security-admins]")}))

    assert (kept.refusals, kept.widens) == ((), False)
    assert any("though it passes" in said for said in gone.widening), gone
    assert any("may not call PolicyService/Approve" in said for said in false.refusals), false


def test_incident_tests_hold():
    """Whatever tests a proposal brings, the incident's schemes stay shut."""
    opened = governed("p, any, any, any, any, any, self, any, contact, any, deny\n", "").texts["policy.csv"]
    opened = opened.replace("assignee, any, routed, any, any, profile", "none, any, any, any, any, profile")
    found = examine(asked(files(admin_csv=GOVERNED, policy_csv=opened), replaces_tests=True))

    assert found.refusals


LOCKED = {
    "nobody may approve": (
        "p, approver, /broker.v1.PolicyService/Approve, allow",
        "p, approver, /broker.v1.PolicyService/WhoAmI, allow",
        "no group leads to a role that may Approve",
    ),
    "no group leads there": ("g, idp:approvers, approver\n", "", "no group leads to a role that may Approve"),
    "no console": (
        "p, console, /broker.v1.PolicyService/Propose, allow\n", "", "no certificate may Propose",
    ),
    "its author": ("g, idp:security-admins, security-admin", "g, idp:others, security-admin", "its author"),
    "its approver": ("g, idp:approvers, approver", "g, idp:others, approver", "its approver"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "why"), LOCKED.values(), ids=LOCKED)
def test_nobody_is_locked_out(old, new, why):
    """A version under which its author, its approver or everybody would stand outside is refused."""
    assert old in GOVERNED
    policy = files(admin_csv=GOVERNED.replace(old, new), policy_csv=RULES)
    found = examine(asked(policy, author=ANNA, approver=BORIS))

    assert any(why in text for text in found.refusals), found.refusals


def test_whoever_may_only_roll_back_rolls_back():
    """Its author need not be one who may propose, but one who could do the same again."""
    back = "/broker.v1.PolicyService/Rollback"
    rows = f"p, console, {back}, allow\ng, idp:returners, returner\np, returner, {back}, allow\n# end"
    returner = Seat(("returners",), CONSOLE)
    with_row = files(admin_csv=GOVERNED.replace("# end", rows), policy_csv=RULES)

    assert examine(asked(with_row, active=with_row, author=returner, restores=True)).refusals == ()
    for question in (
        asked(with_row, active=with_row, author=returner),  # the control arms
        asked(BASE, active=with_row, author=returner, restores=True),
    ):
        assert any("its author" in text for text in examine(question).refusals)


def test_an_old_version_may_be_of_its_time():
    """A rule that has ended since, a method that came or went: told, and no reason to refuse a rollback."""
    row = "p, approver, /broker.v1.PolicyService/Gone, deny\n# end"
    old = files(
        admin_csv=GOVERNED.replace("# end", row),
        policy_csv=RULES.replace("# end", f"{MORE}, until 2026-11-01\n# end"),
    )
    asks = {"methods": ("/broker.v1.PolicyService/New", "/broker.v1.PolicyService/Propose"), "active": old}
    back = examine(asked(old, restores=True, **asks))
    anew = examine(asked(old, **asks))

    assert (back.refusals, back.widens) == ((), False)
    for told in (back.warnings, anew.refusals):  # a new proposal mends both
        assert any("rule-ended" in text for text in told)
        assert any("method-missing" in text for text in told)
        assert any("unknown-method" in text for text in told)


def test_a_version_of_an_older_release_is_compared_with(monkeypatch):
    """What is in force may be from before the upgrade: what changes is told all the same."""
    old, known = OLDER
    monkeypatch.setattr(decision, "KNOWN", known)
    found = examine(asked(active=old))

    assert not any("cannot be read" in text for text in found.widening)
    assert any("contact" in text for text in (*found.widening, *found.narrowing))


async def test_in_a_process_of_its_own():
    """The child says the same as this process does."""
    question = asked(governed("contact, masked, allow", "contact, clear, allow"), author=ANNA, approver=BORIS)

    assert await ChildExaminer()(question) == examine(question)


async def test_proposals_keep_no_emergency_waiting():
    """Whatever waits to be examined, an approval or an emergency has a child of its own."""
    examiner = ChildExaminer()
    people = [Agent("https://idp", name) for name in ("anna", "boris", "carol")]
    waiting = [asyncio.create_task(examiner(asked(person=person))) for person in people]
    await asyncio.sleep(0)
    await examiner(asked(person=people[0], urgent=True))  # of the same person, too

    assert not waiting[-1].done()
    assert [found.refusals for found in await asyncio.gather(*waiting)] == [(), (), ()]


async def test_one_policy_of_a_person_at_a_time():
    """Whoever asks again meanwhile, in whatever spelling, is told at once, and may ask afterwards."""
    examiner = ChildExaminer()
    first = asyncio.create_task(examiner(asked(person=Agent("https://idp", "anna"))))
    await asyncio.sleep(0)
    for again in ("anna", " ANNA"):
        with pytest.raises(PolicyUnavailableError) as refused:
            await examiner(asked(person=Agent("https://idp/", again)))
        assert "of yours" in refused.value.sentence
    await first

    assert (await examiner(asked(person=Agent("https://idp", "anna")))).refusals == ()  # the control arm


async def test_a_child_that_takes_too_long_is_ended(monkeypatch):
    """What takes for ever is refused, and its process is gone."""
    monkeypatch.setattr(Child, "__call__", partialmethod(Child.__call__, seconds=0.05))
    [refusal] = (await ChildExaminer()(asked())).refusals

    assert "took longer" in refusal


async def test_a_child_that_dies_is_a_refusal(monkeypatch):
    """Whatever it dies of, the candidate is not let in."""
    monkeypatch.setattr(examining, "_examination", lambda _question: {"task": "examine"})
    [refusal] = (await ChildExaminer()(asked())).refusals

    assert "it died" in refusal
