"""`broker policy compare`, as it is typed."""

import re
import shlex
import shutil

import pytest

from tests.policy.sample import POLICIES, edited, files

WHO = "tier1, resolve, assignee, routed, not opened by the agent"


@pytest.fixture
def folders(tmp_path):
    """Writes the small policy, one with a wider rule, and one with a narrower limit."""

    def written(name, policy):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in policy.texts.items():
            (folder / file).write_text(text, "utf-8")
        return folder

    rule = "p, tier1, resolve, assignee, any, routed, any, present, customer.phone, clear, allow\n# end"
    return {
        "old": written("old", files()),
        "wider": written("wider", edited("policy.csv", "# end", rule)),
        "narrower": written("narrower", edited("limits.yaml", "per_hour: 30", "per_hour: 29")),
    }


def test_widening_and_narrowing_are_apart(broker, folders):
    """Each has its heading and its sentences."""
    said = broker("policy", "compare", folders["wider"], folders["narrower"])

    assert said.code == 0
    assert said.out.splitlines() == [
        f"{folders['wider']} -> {folders['narrower']}: 2 narrowing",
        "",
        "Narrowing: somebody may see or do less",
        f"  rules    {WHO}, customer present: customer.phone clear -> masked",
        "  limits   tier1: customers an hour 30 -> 29",
    ]
    said = broker("policy", "compare", folders["narrower"], folders["wider"])
    assert "Widening: somebody may see or do more" in said.out


@pytest.mark.parametrize(
    ("new", "fail_on", "code"),
    [
        ("old", "difference", 0),
        ("wider", "nothing", 0),
        ("wider", "widening", 1),
        ("wider", "narrowing", 0),
        ("wider", "difference", 1),
        ("narrower", "widening", 0),
        ("narrower", "narrowing", 1),
    ],
)
def test_fails_on_what_a_pipeline_does_not_want(broker, folders, new, fail_on, code):
    """The exit code is 1 where there is what --fail-on names, else 0."""
    assert broker("policy", "compare", folders["old"], folders[new], "--fail-on", fail_on).code == code


def test_json_and_no_difference(broker, folders):
    """A program reads the same; equal policies say so."""
    same = broker("policy", "compare", folders["old"], folders["old"])
    data = broker("policy", "compare", folders["old"], folders["wider"], "--json").data

    assert same.out == f"{folders['old']} -> {folders['old']}: no difference\n"
    assert (data["widens"], data["narrows"]) == (True, False)
    assert [change["fields"] for change in data["changes"]] == [["customer.phone"]]


def test_side_that_cannot_be_read(broker, folders):
    """A side with a mistake fails, whatever --fail-on says, and is told with file and line."""
    (folders["wider"] / "policy.csv").write_text("p, nonsense\n# end\n", "utf-8")

    said = broker("policy", "compare", POLICIES, folders["wider"])

    assert said.code == 1
    assert "policy.csv:1" in said.err


SECTION = re.search(
    r"^## Comparing\n(.*?)(?=^## |\Z)", (POLICIES / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
EXAMPLES = re.findall(
    r"```diff\n(.*?)```.*?```console\n\$ (broker policy compare [^\n]*)\n(.*?)```",
    SECTION[1] if SECTION else "",
    re.DOTALL,
)


def patched(folder, diff):
    """Makes in a folder what a diff of the manual says: lines that go, and what comes in their place."""
    for name, body in re.findall(r"^\+\+\+ draft/(\S+)\n((?:[-+](?!-- ).*\n)+)", diff, re.MULTILINE):
        text = (folder / name).read_text("utf-8")
        for gone, come in re.findall(r"((?:-.*\n)+)((?:\+.*\n)+)", body):
            old, new = (re.sub("^[-+]", "", lines, flags=re.MULTILINE) for lines in (gone, come))
            assert text.count(old) == 1, "the manual's example is of these files"
            text = text.replace(old, new)
        (folder / name).write_text(text, "utf-8")


@pytest.mark.parametrize(("diff", "command", "answer"), EXAMPLES)
def test_manual_shows_what_is_answered(broker, tmp_path, monkeypatch, diff, command, answer):
    """Every example of the manual is what the command answers on the policies of the repository."""
    for name in ("policies", "draft"):
        shutil.copytree(POLICIES, tmp_path / name)
    patched(tmp_path / "draft", diff)
    monkeypatch.chdir(tmp_path)

    assert broker(*shlex.split(command)[1:]).out == answer


def test_manual_has_examples():
    """The section is there, and the test above finds its examples."""
    assert len(EXAMPLES) == 3
