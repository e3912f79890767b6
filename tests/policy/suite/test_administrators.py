"""Tests of admin.csv are read strictly, and fail where somebody may more or less than they say."""

import pytest

from broker.errors import PolicyInvalidError
from broker.policy import PolicyFiles, load
from broker.policy.findings import Finding
from broker.policy.suite import Suites, read_suites, read_test_files, run
from tests.policy.sample import POLICIES

FILES = PolicyFiles.from_directory(POLICIES)
POLICY = load(FILES, "1")
HELPDESK = "spiffe://broker.dev/feed/helpdesk"
TEXT = """\
version: 1
administrators:
  Auditors look:
    groups: [auditors]
    allowed: AuditService/ListEvents
    refused: [PolicyService/Propose]
...
"""


def read(text):
    """Gives the tests of a file and the names of what is wrong with it."""
    try:
        return read_suites({"tests/some.yaml": text}, POLICY.catalog), []
    except PolicyInvalidError as exc:
        return None, [Finding.parse(each).name for each in exc.findings]


def sentences(text, policy=POLICY):
    """Gives what fails."""
    suites, wrong = read(text)
    assert wrong == []
    return [failure.sentence for failure in run(policy, suites).failures]


def test_what_holds_passes():
    """The control arm: the test says what the file says, and it is counted among the passed."""
    suites, _ = read(TEXT)

    assert run(POLICY, suites).passed == ("Auditors look",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("allowed: AuditService/ListEvents", "allowed: PolicyService/Approve",
         "auditors may not call PolicyService/Approve; expected allowed"),
        ("[PolicyService/Propose]", "[AuditService/GetTrace]",
         "auditors may call AuditService/GetTrace; expected refused"),
        ("[PolicyService/Propose]", "[PolicyService/Propos]",
         "admin.csv names no method 'PolicyService/Propos'; did you mean 'PolicyService/Propose'?"),
        ("[auditors]", "[auditor]", "admin.csv names no group 'auditor'; did you mean 'auditors'?"),
        ("groups: [auditors]", "identity: spiffe://broker.dev/feed/helpdesc",
         f"admin.csv names no identity '{HELPDESK[:-1]}c'; did you mean '{HELPDESK}'?"),
    ],
)  # fmt: skip
def test_what_does_not_hold_fails(old, new, said):
    """One word of a good test changed; a misspelt word is no refusal."""
    assert old in TEXT

    assert sentences(TEXT.replace(old, new)) == [said]


def test_every_other_method_is_refused():
    """`refused: every` finds the right that the test does not name."""
    found = sentences(TEXT.replace("[PolicyService/Propose]", "every"))

    assert "auditors may call AuditService/GetEvent; expected refused" in found
    assert not any("ListEvents" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("    groups: [auditors]\n", "", "who"),
        ("groups: [auditors]", "groups: [auditors]\n    identity: spiffe://a/b", "who"),
        ("[auditors]", "[]", "empty"),
        ("[PolicyService/Propose]", "[]", "empty"),
        ("[PolicyService/Propose]", "[every, PolicyService/Propose]", "who"),
        ("[PolicyService/Propose]", "[AuditService/ListEvents]", "contradiction"),
        (
            "    allowed: AuditService/ListEvents\n    refused: [PolicyService/Propose]\n",
            "    roles: x\n",
            "empty",
        ),
        ("allowed:", "alowed:", "unknown-key"),
        ("administrators:", "administrator:", "missing-key"),
    ],
)
def test_spoilt_tests_are_refused(old, new, name):
    """A file that differs in one thing from a good one is refused by name."""
    assert old in TEXT
    suites, wrong = read(TEXT.replace(old, new))

    assert suites is None
    assert name in wrong


def test_the_starting_policy_stands_its_own():
    """Each right that the tests name is theirs to lose: without its row a test fails."""
    suites = read_suites(read_test_files(POLICIES), POLICY.catalog)
    asked = Suites((), suites.administrators)
    assert run(POLICY, asked).ok
    for row in (
        "p, approver, /broker.v1.PolicyService/Approve, allow",
        "p, operator, /broker.v1.PolicyService/GetStatus, allow",
    ):
        texts = {**FILES.texts, "admin.csv": FILES.texts["admin.csv"].replace(row + "\n", "")}
        assert texts["admin.csv"] != FILES.texts["admin.csv"]

        assert not run(load(PolicyFiles.from_mapping(texts), "1"), asked).ok, row
