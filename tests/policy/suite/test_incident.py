"""The incident tests pass on what ships, catch each scheme alone, and cannot be edited away."""

from dataclasses import replace
from datetime import date

import pytest

from broker.policy import PolicyFiles, load
from broker.policy.lint import lint
from broker.policy.suite import incident_suite, read_suites, read_test_files, run
from broker.policy.table import Table
from tests.policy.sample import POLICIES, TEXTS, edited, small

FILES = PolicyFiles.from_directory(POLICIES)
POLICY = load(FILES, "1")
ALLOW = "p, tier1, resolve-ticket, assignee, any, routed, any, any, profile, clear, allow"


def suites(texts):
    """Reads test files against the starting catalog."""
    return read_suites(texts, POLICY.catalog)


def told(suite):
    """Gives what tests ask, without where they stand."""
    return {
        case.name: (case.roles, case.groups, case.conditions, dict(case.expected)) for case in suite.cases
    }


def test_starting_policy_passes():
    """What ships withstands every scheme."""
    report = run(POLICY, incident_suite(POLICY.catalog))

    assert [failure.text for failure in report.failures] == []
    assert len(report.passed) == 8


def test_file_says_what_the_broker_asks():
    """`policies/tests/incident.yaml` and the tests inside are the same, name by name."""
    files = read_test_files(POLICIES)

    assert told(suites({"tests/incident.yaml": files["tests/incident.yaml"]})) == told(
        incident_suite(POLICY.catalog)
    )


# Each scheme: rules that would let it through, and the test that must say so.
SCHEMES = {
    "someone else's ticket": (
        [ALLOW.replace("assignee", "any")],
        "Nobody sees anything on the ground of a ticket that is not theirs",
    ),
    "self-assigned": (
        ["p, tier1, resolve-ticket, assignee, any, self, customer, present, contact, clear, allow"],
        "Whoever takes a ticket for themselves sees nothing sensitive in clear",
    ),
    "opened by himself": (
        ["p, tier1, resolve-ticket, assignee, any, routed, self, present, customer.phone, clear, allow"],
        "Whoever opened the ticket themselves sees nothing sensitive in clear",
    ),
    "imported": (
        ["p, tier2, resolve-ticket, assignee, any, imported, customer, present, contact, clear, allow"],
        "An assignment that was imported shows nothing sensitive in clear",
    ),
    "unknown provenance": (
        ["p, tier2, resolve-ticket, assignee, any, any, customer, present, contact, clear, allow"],
        "An assignment that nobody recorded shows nothing sensitive in clear",
    ),
    "unknown opening": (
        ["p, tier2, resolve-ticket, assignee, any, routed, unknown, present, contact, clear, allow"],
        "A ticket whose opening nobody recorded shows nothing sensitive in clear",
    ),
    "peer-opened": (
        ["p, tier2, resolve-ticket, assignee, any, routed, peer, present, contact, clear, allow"],
        "A ticket that a colleague opened shows no contact data in clear",
    ),
    "absent customer, contact fields in clear": (
        ["p, tier1, call-back, assignee, any, routed, customer, any, customer.email, clear, allow"],
        "While the customer is away no contact data shows in clear",
    ),
    "second role added": (
        [
            "g, idp:project, project",
            "p, project, resolve-ticket, assignee, any, routed, customer, absent, customer.phone, any, allow",
        ],
        "While the customer is away no contact data shows in clear",
    ),
}


@pytest.mark.attack("K3")
@pytest.mark.parametrize(("lines", "name"), SCHEMES.values(), ids=SCHEMES)
def test_each_scheme_is_caught(lines, name):
    """A rule that lets one scheme through fails the test of that scheme, and names the rule."""
    limits = "version: 1\nbudgets:\n  default: {per_hour: 1, per_day: 1}\n...\n"
    texts = {**FILES.texts, "limits.yaml": limits}
    harmless = ["g, idp:front, tier1", "g, idp:back, tier2", ALLOW, ALLOW.replace("tier1", "tier2")]

    def tried(rules):
        text = "\n".join([*rules, "# end", ""])
        policy = load(PolicyFiles.from_mapping({**texts, "policy.csv": text}), "1")
        return run(policy, incident_suite(policy.catalog)).failures

    assert not tried(harmless), "the control arm"
    failures = tried([*harmless, *lines])
    place = f"policy.csv:{len(harmless) + len(lines)}"
    assert any(failure.name == name and place in failure.sentence for failure in failures), failures


@pytest.mark.attack("K3")
def test_closed_and_reopened_meet_no_rule_of_their_own():
    """A ticket's status is no fact: closed is refused before, reopened is one of the situations above."""
    asked = {
        at
        for case in incident_suite(POLICY.catalog).cases
        for at, words in enumerate(case.conditions)
        if words
    }

    assert "status" not in POLICY.book.rules[0].__slots__
    assert asked == {1, 3, 4, 5}  # relation, provenance, opened by, presence


def test_catalog_that_calls_nothing_sensitive_changes_nothing_about_contact():
    """Addresses and telephone numbers are known by their masks, so a catalog cannot leave them out."""
    catalog = edited("catalog.yaml", ", sensitive: true", "").texts["catalog.yaml"]
    bare = small(catalog_yaml=catalog).catalog
    assert not bare.sensitive_classes

    assert told(incident_suite(bare)) == told(incident_suite(small().catalog))


def test_open_policy_of_somebody_else_fails():
    """The small sample, which knows no colleagues, does not pass: the tests are no formality."""
    failures = run(small(), incident_suite(small().catalog)).failures

    assert {failure.name for failure in failures} == {
        "A ticket that a colleague opened shows no contact data in clear",
        "A ticket whose opening nobody recorded shows nothing sensitive in clear",
    }
    assert TEXTS["policy.csv"].count("deny") == 1


class TestStartingSuites:
    """The tests in `policies/tests`."""

    def test_every_test_passes_and_every_rule_is_reached(self):
        """The starting policy is what its tests say, and no rule stands untested."""
        report = run(POLICY, SUITES)

        assert [failure.text for failure in report.failures] == []
        assert report.unreached == ()

    @pytest.mark.parametrize("at", range(len(POLICY.book.rules)))
    def test_a_rule_taken_away_fails_a_test(self, at):
        """Each rule is needed by some test, but for the denials that the lint calls precautions."""
        rule = POLICY.book.rules[at]
        book = replace(POLICY.book, rules=POLICY.book.rules[:at] + POLICY.book.rules[at + 1 :])
        policy = replace(POLICY, book=book, table=Table(book, POLICY.catalog))

        assert run(policy, SUITES).ok == (rule.line in PRECAUTIONS)


SUITES = suites(read_test_files(POLICIES))
PRECAUTIONS = {found.line for found in lint(FILES, today=date(2026, 11, 25)).notes}
