"""The examples of policies/README.md, section Publishing, are run and say what is shown."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
from pathlib import Path

import pytest
import pytest_asyncio

from broker.cli import run
from broker.dev.world import World
from tests.replaying.test_readme import POLICIES, section

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company():
    """Starts a company of its own: the page counts its versions."""
    async with World.start(None, customers=5, fsync=False) as world:
        yield world


def calls() -> list[tuple[str, str]]:
    """Gives the commands of the section in their order, with what each is said to print."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", section("Publishing"), re.DOTALL):
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = call.partition("\n")
            found.append((command, output))
    return found


def shape(text: str) -> list[str]:
    """Takes out what differs from day to day: ids, digests, times, the worker's name, column widths."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", "ID", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", text)
    text = re.sub(r"^ \S+/\d+ ", " WORKER ", text, flags=re.MULTILINE)
    return [re.sub(r"[\s─]+", " ", line).strip() for line in text.splitlines() if line.strip(" ─")]


async def test_publishing(company, tmp_path, monkeypatch, capsys):
    """A draft goes through both persons' hands as the page tells it, command by command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_DEV_DIR", str(company.folder))
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(POLICIES, "policies")
    before, after = re.findall(r"^p, .*$", section("Publishing"), re.MULTILINE)[:2]
    _edited(Path("policies"), Path("drafts/device"), "policy.csv", f"{before}\n", f"{before}\n{after}\n")
    _edited(
        Path("drafts/device"), Path("drafts/fewer"), "limits.yaml",
        "tier1: {per_hour: 30, per_day: 120}", "tier1: {per_hour: 10, per_day: 40}",
    )  # fmt: skip
    names = {"PROPOSAL": "", "DIGEST": ""}
    for line, output in calls():
        words = [names.get(word) or word for word in shlex.split(line)[1:]]
        capsys.readouterr()
        code = await asyncio.to_thread(run, words)
        said = capsys.readouterr()
        text = said.out + said.err
        assert shape(text) == shape(output), line
        assert code == (1 if "broker: " in output else 0), line
        if found := re.search(r"approve (\S+) --digest (\S+)", text):
            names = {"PROPOSAL": found[1], "DIGEST": found[2]}


def _edited(source: Path, target: Path, name: str, old: str, new: str) -> None:
    shutil.copytree(source, target)
    text = (target / name).read_text("utf-8")
    assert old in text
    (target / name).write_text(text.replace(old, new), "utf-8")
