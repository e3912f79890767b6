"""What one security admin tries alone with --emergency: what gives more, now or later, waits for a second."""

import datetime as dt

import pytest

from broker.policy.bundle import Bundle
from broker.publishing import examine
from broker.publishing.gate import Question
from tests.policy.sample import CATALOG, LIMITS, files
from tests.policy.sample import RULES as SAMPLE
from tests.publishing.conftest import GOVERNED

TODAY = dt.date(2026, 11, 25)

RULES = SAMPLE.replace(
    "# end",
    "p, any, any, any, any, any, peer, any, contact, clear, deny\n"
    "p, any, any, any, any, any, unknown, any, contact, clear, deny\n"
    "# end",
)
"""The small rules, so that they pass the incident tests."""

RESPONDERS = GOVERNED.replace(
    "# end",
    "g, spiffe://broker.dev/admin/containment, responder\n"
    "g, idp:responders, responder\n"
    "p, responder, /broker.v1.ContainmentService/SuspendAgent, allow\n"
    "g, idp:auditors, auditor\n"
    "p, auditor, /broker.v1.AuditService/ListEvents, allow\n"
    "# end",
)
"""An admin table with those who check on agents and on administrators."""

TEST = """\
version: 1
tests:
  Tier 1 reads no address in clear:
    roles: [tier1]
    ticket: {provenance: routed}
    expect: {not_clear: class:contact}
  A ticket that an agent opened shows no address:
    roles: [tier1]
    ticket: {opened_by: self}
    expect: {withheld: class:contact}
...
"""

TESTS = {"tests/small.yaml": TEST}
ENDING = "p, tier1, resolve, assignee, any, peer, any, any, profile, clear, allow, until 2026-12-01"


def bundle(rules=RULES, catalog=CATALOG, limits=LIMITS, admin=RESPONDERS, tests=TESTS) -> Bundle:
    """Makes a policy with its tests."""
    texts = {"policy_csv": rules, "catalog_yaml": catalog, "limits_yaml": limits, "admin_csv": admin}
    return Bundle.of(files(**texts), tests)


def examined(candidate: Bundle, active: Bundle, **more):
    """Examines as a proposal is, without the seconds with Casbin."""
    return examine(Question(candidate, active, TODAY, thorough=False, **more))


def more(text: str, line: str) -> str:
    """Adds a line."""
    return text.replace("# end", f"{line}\n# end")


def without(text: str, *lines: str) -> str:
    """Takes lines away, each of which is there."""
    for line in lines:
        assert f"{line}\n" in text
        text = text.replace(f"{line}\n", "")
    return text


NARROWER = without(RULES, "p, tier2, resolve, assignee, any, routed, any, present, contact, clear, allow")

TRIES = {
    "a rule that gives more, beside one that takes": {
        "rules": more(
            NARROWER, "p, tier1, resolve, collaborator, any, routed, any, any, profile, clear, allow"
        )
    },
    "another group for a role": {"rules": more(NARROWER, "g, idp:friends, tier1")},
    "a role under another name, with another group": {
        "rules": RULES.replace("tier2", "senior").replace("g, idp:back,", "g, idp:friends,")
    },
    "a longer limit": {"limits": LIMITS.replace("per_day: 50", "per_day: 60")},
    "another column behind a name": {"catalog": CATALOG.replace("{column: name,", "{column: national_id,")},
    "another mask": {"catalog": CATALOG.replace("mask: phone", "mask: tail")},
    "a field in a class that is checked less": {
        "catalog": CATALOG.replace("class: contact, mask: phone", "class: profile, mask: tail")
    },
    "responders who may no longer suspend": {
        "admin": without(
            RESPONDERS, "p, responder, /broker.v1.ContainmentService/SuspendAgent, allow"
        ).replace("g, spiffe://broker.dev/admin/containment, responder\ng, idp:responders, responder\n", "")
    },
    "responders' console gone": {
        "admin": without(RESPONDERS, "g, spiffe://broker.dev/admin/containment, responder")
    },
    "auditors gone": {"admin": without(RESPONDERS, "g, idp:auditors, auditor")},
    "a denial for auditors": {
        "admin": more(RESPONDERS, "p, auditor, /broker.v1.AuditService/ListEvents, deny")
    },
    "no tests": {"rules": NARROWER, "tests": {}},
    "one test fewer": {
        "tests": {
            "tests/small.yaml": TEST.replace(
                "[tier1]\n    ticket: {opened_by", "[tier2]\n    ticket: {opened_by"
            )
        }
    },
    "a test that asks less": {
        "tests": {"tests/small.yaml": TEST.replace("withheld: class:contact", "not_clear: class:contact")}
    },
}


@pytest.mark.attack("C14")
@pytest.mark.parametrize("tried", TRIES.values(), ids=TRIES)
def test_what_waits_for_a_second_person(tried):
    """Alone nobody gives more, takes a check on them away, or prepares for either."""
    found = examined(bundle(**tried), bundle())

    assert (found.refusals, found.widens) == ((), True)


WORDY = TEST.replace(
    "...\n",
    """\
  Nobody reads a number of tier 1:
    roles: [tier1]
    ticket: {provenance: routed}
    expect: {not_clear: customer.phone}
  Nobody reads an address on a bill:
    roles: [tier1]
    ticket: {kind: billing}
    expect: {not_clear: class:contact}
  Nobody of the second line sees what a colleague opened:
    roles: [tier2]
    ticket: {opened_by: peer}
    expect: {withheld: invoice.total}
administrators:
  Auditors list events:
    groups: [auditors]
    allowed: AuditService/ListEvents
...
""",
)
HELD = RULES.replace("# end", "p, any, any, any, any, any, peer, any, profile, any, deny\n# end")

WORDS = {
    "a field": (
        {"catalog": without(CATALOG, "      phone: {column: phone, class: contact, mask: phone}")},
        3,
    ),
    "a kind of ticket": ({"catalog": CATALOG.replace("[general, billing]", "[general]")}, 4),
    "a role": (
        {
            "rules": without(
                HELD,
                "g, idp:back, tier2",
                "g, tier2, tier1",
                "p, tier2, resolve, assignee, any, routed, any, present, contact, clear, allow",
            )
        },
        5,
    ),
}
"""A word that a change takes away, and which of the tests uses it."""


@pytest.mark.attack("C14")
@pytest.mark.parametrize(("change", "nth"), WORDS.values(), ids=WORDS)
def test_a_word_taken_away_takes_no_test_along(change, nth):
    """Whoever removes a word that one test uses does not get rid of the others, nor alone of that one."""
    held = bundle(HELD, tests={"tests/small.yaml": WORDY})
    names = [line.strip(" :") for line in WORDY.splitlines() if line.startswith("  ") and line[2] != " "]
    found = examined(bundle(**{"rules": HELD, **change, "tests": {}}), held, replaces_tests=True)

    assert found.refusals == ()
    lost = [text for text in found.widening if "cannot be read or run" in text]
    assert len(lost) == 1
    assert names[nth - 1] in lost[0]
    gone = {text.rpartition(": ")[2] for text in found.widening if "though it passes" in text}
    assert gone == {*names} - {names[nth - 1]}

    [told] = examined(bundle(**{"rules": HELD, **change, "tests": {}}), held).refusals
    assert "cannot be read or run" in told  # unless it is said that it is replaced


@pytest.mark.attack("C14")
def test_a_test_does_not_hide_behind_the_name_of_another():
    """Two files may give two tests one name: where one of them fails, the other is missed all the same."""
    name = "Tier 1 reads no address in clear"
    fails = f"version: 1\ntests:\n  {name}:\n    roles: [tier2]\n    expect: {{clear: customer.email}}\n...\n"
    held = bundle(tests={"tests/a.yaml": fails, **TESTS})
    found = examined(bundle(tests={}), held, replaces_tests=True)

    assert any(text.endswith(f"though it passes: {name}") for text in found.widening), found


@pytest.mark.attack("C14")
def test_an_end_that_moves():
    """A rule that ends later than it would have gives more then, though nothing differs today."""
    longer = examined(bundle(more(RULES, ENDING.replace("2026", "2027"))), bundle(more(RULES, ENDING)))
    sooner = examined(bundle(more(RULES, ENDING.replace("12-01", "11-30"))), bundle(more(RULES, ENDING)))

    assert (longer.refusals, longer.widens) == ((), True)
    assert (sooner.refusals, sooner.widens) == ((), False)


ALONE = {
    "a rule that takes": {"rules": NARROWER},
    "a smaller limit": {"limits": LIMITS.replace("per_day: 50", "per_day: 40")},
    "tests in another file, under other names, and one more": {
        "tests": {
            "tests/other.yaml": TEST.replace("Tier 1 reads", "Nobody of tier 1 reads").replace(
                "...\n",
                "  Tier 2 as well:\n    roles: [tier2]\n    ticket: {opened_by: self}\n"
                "    expect: {withheld: class:contact}\n...\n",
            )
        }
    },
}


@pytest.mark.parametrize("tried", ALONE.values(), ids=ALONE)
def test_what_one_person_may_do(tried):
    """The control arm: what only takes, and leaves every check in place, does not wait."""
    found = examined(bundle(**tried), bundle())

    assert (found.refusals, found.widening) == ((), ())
