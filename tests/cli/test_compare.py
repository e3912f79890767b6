"""`broker policy compare`, as it is typed."""

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
