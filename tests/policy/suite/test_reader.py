"""Test files are read as strictly as the policy, and say what they mean."""

import os

import pytest

from broker.errors import PolicyInvalidError
from broker.policy.findings import Finding
from broker.policy.suite import folder, read_suites, read_test_files
from broker.policy.suite.cases import Expected
from tests.policy.sample import POLICIES, small

CATALOG = small().catalog
TEXT = """\
version: 1
tests:
  Tier 1 knows whom they talk to:
    roles: [tier1]
    purpose: resolve
    ticket: {relation: assignee, kind: [general, billing], provenance: any}
    expect: {clear: "class:profile", masked: customer.email, withheld: every}
...
"""


def read(text, file="tests/some.yaml"):
    """Gives the tests of one file and what is wrong with it, by name."""
    try:
        return read_suites({file: text}, CATALOG), []
    except PolicyInvalidError as exc:
        found = [Finding.parse(each) for each in exc.findings]
        return None, [(each.file, each.line, each.name) for each in found]


def test_a_test_is_what_it_says():
    """Words stay words, `any` and what is left out are open, and the closer expectation wins."""
    suites, wrong = read(TEXT)

    assert wrong == []
    (case,) = suites.cases
    assert (case.file, case.line, case.name) == ("tests/some.yaml", 3, "Tier 1 knows whom they talk to")
    assert case.roles == (frozenset({"tier1"}),)
    assert case.conditions == (("resolve",), ("assignee",), ("general", "billing"), (), (), ())
    assert case.expected == {
        "customer.name": Expected.CLEAR,
        "customer.email": Expected.MASKED,
        "customer.phone": Expected.WITHHELD,
        "invoice.total": Expected.CLEAR,
    }


def test_groups_stand_for_the_roles_they_lead_to():
    """With or without the prefix that the rules write."""
    suites, _ = read(TEXT.replace("roles: [tier1]", "groups: [front, 'idp:back']"))

    assert suites.cases[0].groups == {"front", "back"}


SPOILT = {
    "another version": ("version: 1", "version: 2", 1, "out-of-range"),
    "no version": ("version: 1\n", "", 1, "missing-key"),
    "an unknown key": ("    purpose:", "    purpos:", 5, "unknown-key"),
    "nothing expected": ("    expect:", "    # expect:", 4, "missing-key"),
    "an empty expectation": (TEXT.splitlines()[6][12:], "{}", 7, "empty"),
    "an empty level": ("masked: customer.email", "masked: []", 7, "empty"),
    "no role": ("roles: [tier1]", "roles: []", 4, "empty"),
    "no group": ("roles: [tier1]", "groups: []", 4, "empty"),
    "no kind": ("kind: [general, billing]", "kind: []", 6, "empty"),
    "an unknown level": ("{clear:", "{cleer:", 7, "unknown-key"),
    "an unknown purpose": ("resolve", "resolv", 5, "unknown-purpose"),
    "an unknown relation": ("assignee", "asignee", 6, "unknown-relation"),
    "an unknown kind": ("[general,", "[genral,", 6, "unknown-ticket-kind"),
    "an unknown fact": ("provenance:", "provenence:", 6, "unknown-key"),
    "an unknown class": ("class:profile", "class:profil", 7, "unknown-field"),
    "an unknown field": ("customer.email", "customer.emial", 7, "unknown-field"),
    "two expectations as close": ("masked: customer.email", 'masked: "class:profile"', 7, "contradiction"),
    "no agent": ("    roles: [tier1]\n", "", 4, "who"),
    "two kinds of agent": ("roles: [tier1]", "roles: [tier1]\n    groups: [front]", 4, "who"),
    "every and one more": ("roles: [tier1]", "roles: [every, tier1]", 4, "who"),
    "a name twice": ("...", "  Tier 1 knows whom they talk to:\n    roles: [tier1]\n...", 8, "duplicate-key"),
    "an anchor": ("roles: [tier1]", "roles: &a [tier1]", 4, "alias"),
    "a tag": ("roles: [tier1]", "roles: !!python/tuple [tier1]", 4, "tag"),
    "cut short": ("...\n", "", 7, "end-missing"),
    "CR LF": ("version: 1\n", "version: 1\r\n", 1, "carriage-return"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "name"), SPOILT.values(), ids=SPOILT)
def test_spoilt_file_is_refused_where_it_stands(old, new, line, name):
    """A file that differs in one thing from a good one is refused by name, with file and line."""
    assert old in TEXT
    _, wrong = read(TEXT.replace(old, new, 1))

    assert ("tests/some.yaml", line, name) in wrong


class TestFolder:
    """The files of a folder, bounded."""

    def test_files_of_the_folder_are_read(self, tmp_path):
        """YAML files alone; a folder without tests has none."""
        assert read_test_files(tmp_path) == {}
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "some.yaml").write_text(TEXT)
        (tmp_path / "tests" / "README.md").write_text("about")

        assert read_test_files(tmp_path) == {"tests/some.yaml": TEXT}
        assert set(read_test_files(POLICIES)) >= {"tests/incident.yaml", "tests/tier1.yaml"}

    @pytest.mark.parametrize("name", ["some.yml", "Some.yaml", "a b.yaml", ".hidden.yaml", "some.YAML"])
    def test_strange_names_are_refused(self, tmp_path, name):
        """A test file that would be passed over in silence is refused."""
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / name).write_text(TEXT)
        with pytest.raises(PolicyInvalidError, match="file-unknown"):
            read_test_files(tmp_path)

    @pytest.mark.attack("X9")
    def test_number_and_size_are_bounded(self, tmp_path):
        """A file beyond its cap is not read to its end, and a crowd of files not at all."""
        tests = tmp_path / "tests"
        tests.mkdir()
        (tests / "big.yaml").touch()
        os.truncate(tests / "big.yaml", 100 * 1024 * 1024)  # sparse
        with pytest.raises(PolicyInvalidError, match="too-large"):
            read_test_files(tmp_path)
        (tests / "big.yaml").write_text(TEXT)
        assert read_test_files(tmp_path), "the control arm"
        for n in range(folder.MAX_FILES):
            (tests / f"t{n}.yaml").write_text(TEXT)
        with pytest.raises(PolicyInvalidError, match="too-many"):
            read_test_files(tmp_path)

    def test_what_is_no_file_is_refused(self, tmp_path):
        """A folder in place of a file."""
        (tmp_path / "tests" / "some.yaml").mkdir(parents=True)
        with pytest.raises(PolicyInvalidError, match="file-irregular"):
            read_test_files(tmp_path)
