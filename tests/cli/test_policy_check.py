"""`broker policy check` and `broker policy test`: for people, for programs, for a pipeline."""

from __future__ import annotations

import re
import shutil

import pytest

from broker.policy import decision
from tests.policy.sample import POLICIES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Gives a copy of the starting policy; without the seconds of comparing it thoroughly."""
    monkeypatch.setattr(
        "broker.policy.load", lambda files, version, *, today, **_: decision.load(files, version, today=today)
    )
    shutil.copytree(POLICIES, tmp_path / "policies")
    return tmp_path / "policies"


def edit(path, old, new):
    """Replaces one place of one file."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


ALLOW = "p, tier1, resolve-ticket, assignee, any, routed, any, any, profile, clear, allow\n"
MASKED_TO_CLEAR = ("self, any, any, contact, masked", "self, any, any, contact, clear")
NOT_SELF = ("p, any, any, any, any, self, any, any, any, clear, deny\n", "")

# what the manual says was done to the draft, per example
EXAMPLES = {
    "check draft": [(ALLOW, ALLOW.replace("tier1", "teir1"))],
    "check draft --strict": [(ALLOW, ALLOW + ALLOW.replace("assignee, any", "assignee, device"))],
    "test draft": [MASKED_TO_CLEAR, NOT_SELF],
}


@pytest.mark.parametrize("command", EXAMPLES)
def test_manual_shows_what_the_commands_print(broker, folder, monkeypatch, command):
    """The examples of policies/README.md, line for line."""
    manual = (POLICIES / "README.md").read_text("utf-8")
    (shown,) = re.findall(rf"\$ broker policy {command}\n(.*?)```", manual, re.DOTALL)
    folder.rename(folder.with_name("draft"))
    monkeypatch.chdir(folder.parent)
    for old, new in EXAMPLES[command]:
        edit(folder.with_name("draft") / "policy.csv", old, new)
    said = broker("policy", *command.split())

    assert said.code == 1
    assert shown.strip()
    assert shown in said.out


class TestCheck:
    def test_clean_folder_is_zero_and_tells_what_is_accepted(self, broker, folder):
        """Nothing to put right; what the files accept is told with its reason."""
        said = broker("policy", "check", folder, "--strict")

        assert said.code == 0
        assert said.out.count("warning, accepted:") == 4
        assert "0 errors, 0 warnings, 4 accepted" in said.err

    def test_error_is_one_and_says_what_to_do(self, broker, folder):
        """File, line, weight, sentence, name; below it what to do."""
        edit(folder / "policy.csv", ALLOW, ALLOW.replace("tier1", "teir1"))
        said = broker("policy", "check", folder)

        assert said.code == 1
        first, second = said.out.splitlines()[:2]
        assert first.endswith(
            "error: no g line leads to a role 'teir1'; did you mean 'tier1'? [unknown-role]"
        )
        assert first.startswith(f"{folder}/policy.csv:")
        assert second.startswith("    ")

    def test_warning_fails_when_asked_to(self, broker, folder):
        """A redundant rule is a warning: 0 without --strict, 1 with it."""
        edit(folder / "policy.csv", ALLOW, ALLOW + ALLOW.replace("assignee, any", "assignee, device"))

        assert broker("policy", "check", folder).code == 0
        said = broker("policy", "check", folder, "--strict")
        assert (said.code, "[redundant-rule]" in said.out) == (1, True)

    def test_rule_that_ends_is_an_error_on_the_day_after(self, broker, folder):
        """`--on` looks ahead: what will a check say that day?"""
        edit(folder / "policy.csv", ALLOW, f"{ALLOW[:-1]}, until 2099-01-31\n")

        assert broker("policy", "check", folder, "--on", "2099-01-31").code == 0
        said = broker("policy", "check", folder, "--on", "2099-02-01")
        assert (said.code, "[rule-ended]" in said.out) == (1, True)
        assert broker("policy", "check", folder, "--on", "tomorrow").code == 2

    def test_json_and_its_alias_are_one(self, broker, folder):
        """A program reads the counts and every finding."""
        data = broker("policy", "check", folder, "--json").data

        assert data == broker("policy", "check", folder, "--format", "json").data
        assert (data["ok"], data["errors"], data["accepted"], data["rules"]) == (True, 0, 4, 57)
        assert {found["severity"] for found in data["findings"]} == {"warning", "note"}

    def test_sarif_names_the_files_where_they_lie(self, broker, folder):
        """A code-review tool finds the lines."""
        edit(folder / "policy.csv", ALLOW, ALLOW.replace("tier1", "teir1"))
        said = broker("policy", "check", folder, "--format", "sarif")

        assert (said.code, said.data["version"]) == (1, "2.1.0")
        (result,) = said.data["runs"][0]["results"]
        place = result["locations"][0]["physicalLocation"]
        assert (result["level"], result["ruleId"]) == ("error", "unknown-role")
        assert place["artifactLocation"]["uri"] == f"{folder}/policy.csv"

    def test_missing_file_is_a_finding(self, broker, folder):
        """A folder that is no policy is told like any other finding, in every form."""
        (folder / "limits.yaml").unlink()

        assert broker("policy", "check", folder, "--json").data["findings"][0]["name"] == "file-missing"
        assert broker("policy", "check", folder).code == 1
        assert broker("policy", "check", folder / "nowhere").code == 2


@pytest.mark.parametrize(
    "verb",
    [
        ("matrix", "--roles", "tier1"),
        ("who-can", "customer.phone"),
        (
            *("explain", "--purpose", "call-back", "--relation", "assignee", "--kind", "general"),
            *("--provenance", "routed", "--opened-by", "customer", "--presence", "absent"),
            *("--roles", "tier1", "--field", "customer.phone"),
        ),
    ],
    ids=lambda verb: verb[0],
)
def test_a_draft_of_an_older_release_is_looked_at(broker, tmp_path, verb):
    """Only `check` minds that admin.csv says nothing of a newer RPC; looking at the rules needs none."""
    folder = shutil.copytree(POLICIES, tmp_path / "policies")
    edit(folder / "admin.csv", "p, console, /broker.v1.PolicyService/StartShadow, allow\n", "")
    edit(folder / "admin.csv", "p, security-admin, /broker.v1.PolicyService/StartShadow, allow\n", "")
    said = broker("policy", verb[0], folder, *verb[1:])

    assert said.code == 0, said.err
    assert "StartShadow" in broker("policy", "check", folder).out


class TestTest:
    def test_passes_and_reaches_every_rule(self, broker, folder):
        """The starting policy is what its tests say."""
        said = broker("policy", "test", folder, "--cover")

        assert said.code == 0
        assert "57 of 57 rules reached" in said.err

    def test_failure_is_a_sentence(self, broker, folder):
        """Who would see what, on which ticket, by which line."""
        edit(folder / "policy.csv", *MASKED_TO_CLEAR)
        edit(folder / "policy.csv", *NOT_SELF)
        said = broker("policy", "test", folder)

        assert said.code == 1
        name, sentence = said.out.splitlines()[:2]
        assert name == "incident:1: Whoever takes a ticket for themselves sees nothing sensitive in clear"
        assert sentence.startswith("    tier1, on a ticket that they took themselves, ")
        assert "would see customer.email in clear; expected masked or withheld" in sentence
        assert "; allowed by policy.csv:" in sentence

    def test_incident_tests_run_without_a_file(self, broker, folder):
        """Without the folder's tests those of the incident still run, and tell what none reaches."""
        shutil.rmtree(folder / "tests")
        said = broker("policy", "test", folder, "--json")

        assert (said.code, len(said.data["passed"])) == (0, 8)
        assert said.data["coverage"]["reached"] < said.data["coverage"]["rules"] == 57
        assert broker("policy", "test", folder, "--cover").code == 1
        assert "no test reaches this rule" in broker("policy", "test", folder).out

    def test_broken_test_file_is_refused(self, broker, folder):
        """A test that cannot be read is not a test that passes."""
        edit(folder / "tests" / "tier1.yaml", "purpose: resolve-ticket", "purpose: resolve-tickt")
        said = broker("policy", "test", folder)

        assert said.code == 1
        assert "tests/tier1.yaml:7:" in said.err
        assert "did you mean 'resolve-ticket'?" in said.err
