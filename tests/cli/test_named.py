"""Policies by name, as the verbs that look at one take them: folders, versions and proposals."""

from __future__ import annotations

import shutil

import pytest

LIMIT = "tier1: {per_hour: 30, per_day: 120}"


@pytest.fixture
def here(company):
    """Gives the options that name the company."""
    return ("--dir", company.layout.folder)


@pytest.fixture
def narrower(company, tmp_path):
    """Writes the company's policy with a lower limit."""
    folder = tmp_path / "narrower"
    shutil.copytree(company.layout.policies, folder)
    text = (folder / "limits.yaml").read_text("utf-8")
    assert LIMIT in text
    (folder / "limits.yaml").write_text(text.replace(LIMIT, LIMIT.replace("30", "10")), "utf-8")
    return folder


@pytest.fixture
def proposal(broker, here, narrower):
    """Proposes it; gives the proposal's id."""
    options = ("--reason", "a test", "--json", "--as", "anna", *here)
    made = broker("policy", "propose", narrower, *options)
    assert made.code == 0, made.err
    name = made.data["proposal"]["proposal_id"]
    yield name
    broker("policy", "withdraw", name, "--reason", "done", "--as", "anna", *here)


def test_compare_takes_versions_and_proposals(broker, company, here, narrower, proposal):
    """On either side, beside a folder or not, what the broker keeps is compared as a folder is."""
    narrowing = broker("policy", "compare", company.layout.policies, narrower).out.splitlines()[1:]
    assert len(narrowing) > 2

    kept = ("--as", "boris", *here)
    for old, new in (("1", narrower), (company.layout.policies, proposal), ("1", proposal)):
        said = broker("policy", "compare", old, new, "--fail-on", "narrowing", *kept)
        assert (said.code, said.out.splitlines()[1:]) == (1, narrowing), said.err
    assert broker("policy", "compare", "1", "1", *kept).out == "version 1 -> version 1: no difference\n"
    names = broker("policy", "compare", "1", proposal, "--json", *kept).data
    assert (names["old"], names["new"]) == ("version 1", f"proposal {proposal}")


def test_only_what_the_broker_keeps_needs_a_person(broker, company, tmp_path, monkeypatch):
    """Two folders are compared without a broker, even where a person's token is at hand."""
    folder = company.layout.policies
    monkeypatch.setenv("BROKER_ADMIN_TOKEN_FILE", str(tmp_path / "nothing"))
    assert broker("policy", "compare", folder, folder, "--dir", tmp_path).code == 0
    assert broker("policy", "compare", "1", folder, "--dir", tmp_path).code == 2
    monkeypatch.delenv("BROKER_ADMIN_TOKEN_FILE")

    nobody = broker("policy", "compare", "1", folder, "--dir", company.layout.folder)
    assert (nobody.code, "--as" in nobody.err) == (2, True)


FACTS = ("--purpose", "call-back", "--relation", "assignee", "--kind", "general", "--provenance", "routed",
         "--opened-by", "customer", "--presence", "absent")  # fmt: skip
LOOKS = {
    "check": (),
    "test": (),
    "matrix": ("--roles", "tier1"),
    "explain": ("--roles", "tier1", *FACTS, "--field", "customer.phone"),
    "who-can": ("customer.phone",),
}


@pytest.mark.parametrize("verb", LOOKS)
def test_verbs_that_look_take_versions_and_proposals(broker, company, here, narrower, proposal, verb):
    """What the broker keeps is looked at as the folder is that it came from, and needs a person."""
    boris = ("--as", "boris", *here)
    for kept, folder in (("1", company.layout.policies), (proposal, narrower)):
        of_folder = broker("policy", verb, folder, *LOOKS[verb], "--json")
        of_kept = broker("policy", verb, kept, *LOOKS[verb], "--json", *boris)
        assert (of_kept.code, of_kept.data) == (of_folder.code, of_folder.data), of_kept.err
        assert of_folder.code == 0
        assert broker("policy", verb, kept, *LOOKS[verb], *here).code == 2  # nobody asks


def test_findings_in_what_the_broker_keeps_say_where(broker, here, proposal):
    """Their place is the file of the version or the proposal; a code-review tool has its name."""
    boris = ("--on", "2098-01-01", "--as", "boris", *here)
    said = broker("policy", "check", proposal, *boris)
    assert f"proposal {proposal}, policy.csv:" in said.out
    found = broker("policy", "check", proposal, "--format", "sarif", *boris).data["runs"][0]["results"]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in found}
    assert f"{proposal}/policy.csv" in uris


def test_status_names_the_files_that_differ(broker, company, here, narrower):
    """A file that is written otherwise, one more and one less, each by its name."""
    olga = ("--as", "olga", *here)
    assert broker("policy", "status", company.layout.policies, *olga).code == 0
    (narrower / "tests" / "tier2.yaml").rename(narrower / "tests" / "tier-2.yaml")
    said = broker("policy", "status", narrower, *olga)

    assert (
        said.code,
        "differs from version 1: limits.yaml, tests/tier-2.yaml, tests/tier2.yaml" in said.err,
    ) == (1, True)
    assert broker("policy", "status", narrower, "--json", *olga).data["drift"][0] == "limits.yaml"


def test_a_golden_matrix_is_a_folders(broker, here):
    """There is no file to write or to compare beside a version."""
    for option in ("--update", "--check"):
        said = broker("policy", "matrix", "1", option, "--as", "boris", *here)
        assert (said.code, "folder" in said.err) == (2, True)


@pytest.mark.parametrize(
    "verb",
    [
        ("compare", "policies"),
        ("shadow", "start"),
        ("replay",),
        *((verb, *LOOKS[verb]) for verb in LOOKS if verb != "who-can"),
    ],
)
def test_a_name_of_nothing(broker, here, tmp_path, monkeypatch, company, verb):
    """What is no folder is wrong usage; what the broker does not keep is its refusal."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(company.layout.policies, "policies")
    anna = ("--as", "anna", *here)

    said = broker("policy", *verb, "nothing", *anna)
    assert (said.code, "'nothing' is no folder" in said.err) == (2, True)
    for name, reason in (
        ("99", "VERSION_NOT_FOUND"),
        ("01a21337-cccd-7000-83e4-574628a86877", "PROPOSAL_NOT_FOUND"),
        ("01", "REQUEST_MALFORMED"),
    ):
        said = broker("policy", *verb, name, *anna)
        assert (said.code, reason in said.err) == (1, True), said


def test_a_folder_called_like_a_version(broker, company, tmp_path, monkeypatch):
    """It can be named all the same."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(company.layout.policies, "1")

    assert broker("policy", "compare", "./1", company.layout.policies).code == 0


def test_shadows_of_what_the_broker_keeps(broker, company, here, narrower, proposal):
    """A folder, a version and a proposal run as shadow; who may only look may not start one."""
    anna = ("--as", "anna", *here)
    for name in (narrower, "1", proposal):
        started = broker("policy", "shadow", "start", name, "--json", *anna)
        assert (started.code, started.data["shadow"]["start_person"]["subject"]) == (0, "anna"), started.err
        shown = broker("policy", "shadow", "show", "--json", "--as", "audrey", *here).data
        assert shown["shadow_id"] == started.data["shadow"]["shadow_id"]
    refused = broker("policy", "shadow", "start", narrower, "--as", "audrey", *here)
    assert (refused.code, "ADMIN_DENIED" in refused.err) == (1, True)
    assert "the shadow has ended" in broker("policy", "shadow", "stop", *anna).err
    assert "no shadow was running" in broker("policy", "shadow", "stop", *anna).err


@pytest.mark.parametrize("verb", [("shadow", "start"), ("replay",)])
def test_a_broken_draft(broker, here, narrower, verb):
    """Every finding is shown with file and line."""
    (narrower / "policy.csv").write_text("p, nonsense\n# end\n", "utf-8")
    said = broker("policy", *verb, narrower, "--as", "anna", *here)

    assert (said.code, "policy.csv:1" in said.err) == (1, True)
    assert "mend these lines" in said.err
