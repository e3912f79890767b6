"""The manual's examples of matrix, explain and who-can are what the commands answer."""

import re
import shlex

import pytest

from tests.policy.sample import POLICIES

SECTIONS = re.findall(
    r"^## (?:The access matrix|Explaining)\n(.*?)(?=^## |\Z)",
    (POLICIES / "README.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
EXAMPLES = re.findall(
    r"```console\n\$ (broker policy (?:[^\n\\]|\\\n)*)\n(.*?)```", "".join(SECTIONS), re.DOTALL
)


def without_lines(text):
    """Leaves the numbers of lines out: they move with every comment, and the matrix aligns them."""
    return re.sub(r"policy\.csv:\d+(, \d+)*", "policy.csv:…", text)


@pytest.mark.parametrize(("command", "answer"), EXAMPLES)
def test_manual_shows_what_is_answered(broker, monkeypatch, command, answer):
    """Every example is what the command answers on the policies of the repository."""
    monkeypatch.chdir(POLICIES.parent)

    said = broker(*shlex.split(command.replace("\\\n", " "))[1:])

    assert without_lines(answer) == without_lines(said.out)


def test_manual_has_examples():
    """The sections are there, and the test above finds their examples."""
    assert len(SECTIONS) == 2
    assert {shlex.split(command)[2] for command, _ in EXAMPLES} == {"matrix", "explain", "who-can"}
