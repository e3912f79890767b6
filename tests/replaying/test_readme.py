"""The examples of policies/README.md, sections Replaying and Shadow, are run and say what is shown."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.cli import run
from tests.replaying.test_replaying import live_through
from tests.replaying.test_shadowing import administering
from tests.rpc.company import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICIES = Path(__file__).parents[2] / "policies"
README = POLICIES / "README.md"


def section(title: str) -> str:
    """Gives one section of the page."""
    parts = re.split(r"^## ", README.read_text("utf-8"), flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(f"{title}\n"))


def shown(title: str) -> dict[str, str]:
    """Gives each command of a section's console blocks with what it is said to print."""
    found: dict[str, str] = {}
    for block in re.findall(r"```console\n(.*?)```", section(title), re.DOTALL):
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = call.partition("\n")
            found[command] = output
    return found


def shape(text: str) -> list[str]:
    """Takes out what differs from day to day: times, ids, numbers, column widths."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", text)
    text = re.sub(r"\d[\d,.]*", "#", text)
    return [re.sub(r"[\s─]+", " ", line).strip() for line in text.splitlines() if line.strip(" ─")]


def draft_from(title: str, folder: Path) -> None:
    """Copies the policies and edits them as the section says: the first `p` line becomes the second."""
    before, after = re.findall(r"^p, .*$", section(title), re.MULTILINE)[:2]
    shutil.copytree(POLICIES, folder)
    rules = (folder / "policy.csv").read_text("utf-8")
    assert before in rules
    (folder / "policy.csv").write_text(rules.replace(before, after), "utf-8")


@pytest.fixture
async def typed(company, tmp_path, monkeypatch, capsys):
    """Gives a command line in a folder with `policies` and the draft, as a security admin has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_DEV_DIR", str(company.world.folder))
    monkeypatch.setenv("BROKER_ADMIN_DSN", company.world.dsn("broker_admin"))
    shutil.copytree(POLICIES, "policies")
    draft_from("Replaying", Path("drafts/wider"))

    async def command(line: str) -> str:
        capsys.readouterr()
        code = await asyncio.to_thread(run, shlex.split(line)[1:])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out + said.err

    return command


async def test_replaying(company, typed):
    """What `replay` is shown to print is what it prints for a wider draft."""
    [(line, output)] = shown("Replaying").items()
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    await live_through(company)
    assert "--since 30d" in line

    assert shape(await typed(line.replace("30d", since))) == shape(output)


async def test_replaying_as_a_person_or_not(company, typed):
    """Over the admin port and over the database the same decisions come to the same, under either name."""
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    await live_through(company)
    until = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    line = f"broker policy replay drafts/wider --since {since} --until {until} --json"
    direct, asked = json.loads(await typed(line)), json.loads(await typed(f"{line} --as anna"))
    version = json.loads(await typed(line.replace("drafts/wider", "1") + " --as boris"))

    assert (asked, asked["changed"] > 0) == (direct, True)
    assert (version["decisions"], version["changed"]) == (asked["decisions"], 0)
    for who, where in (("%|anna", "spiffe://%"), ("", "broker policy replay by %")):
        told = 'leaf LIKE \'%"act":"replayed"%"digest"%\''
        event = f"agent LIKE '{who}' AND tool LIKE '{where}' AND {told}"
        assert await company.count(f"kind = 'policy' AND {event}"), who


async def test_shadow(company, typed):
    """Start, show and stop print what they are shown to print."""
    start, show, stop = shown("Shadow")
    assert shape(await typed(start)) == shape(shown("Shadow")[start])
    async with administering(company.world.dsn("broker_admin")) as admin:

        async def counted() -> bool:
            await live_through(company)
            report = await admin.latest()
            return len(report.differences) > 1

        await eventually(counted, 20.0)
    assert shape(await typed(show)) == shape(shown("Shadow")[show])
    assert shape(await typed(stop)) == shape(shown("Shadow")[stop])
