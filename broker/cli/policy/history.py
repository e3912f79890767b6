"""`broker policy list`, `show` and `status`: what was, what waits, what is in force where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.output import CommandFailedError, print_json, print_line, print_table
from broker.cli.persons import Administrator, run
from broker.cli.policy.options import Json
from broker.cli.policy.propose import show as show_examination

if TYPE_CHECKING:
    from broker.client import AgentName, Examination, PolicyClient, PolicyText, Proposal


def list_all(
    administrator: Administrator,
    ended: Annotated[bool, typer.Option("--all", help="Also proposals that have ended.")] = False,
    as_json: Json = False,
) -> None:
    """List the versions that were in force and the proposals that wait, newest first.

    \b
    Example:
      broker policy list --as audrey
      broker policy list --all --json --as audrey
    """
    from broker.client import PolicyClient

    async def gather(client: PolicyClient) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        proposals = [asdict(each) async for each in client.proposals(ended=ended)]
        return proposals, [asdict(each) async for each in client.versions()]

    proposals, versions = run(administrator, PolicyClient, gather)
    if as_json:
        print_json({"proposals": proposals, "versions": versions})
        return
    print_table(
        ("version", "since", "how", "author", "approver", "restores", "why"),
        (
            (
                v["version"], v["create_time"], v["how"], _written(v["author"]), _written(v["approver"]),
                v["restores_version"], v["reason"],
            )
            for v in versions
        ),
        title="Versions",
    )  # fmt: skip
    print_table(
        ("proposal", "state", "on", "wider", "author", "until", "why"),
        (
            (
                p["proposal_id"], p["state"], p["base_version"], p["widens"], _written(p["author"]),
                p["expire_time"], p["reason"],
            )
            for p in proposals
        ),
        title="Proposals",
    )  # fmt: skip


def show(
    administrator: Administrator,
    name: Annotated[str, typer.Argument(metavar="PROPOSAL|VERSION", help="Which, as `list` prints it.")],
    write: Annotated[
        Path | None, typer.Option("--write", help="Write its files into this new folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a proposal with what its examination found, or a version's files.

    \b
    Example:
      broker policy show 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --as boris
      broker policy show 3 --write version-3 --as audrey
    """
    from broker.client import PolicyClient

    if name.isdecimal():
        version, text = run(administrator, PolicyClient, lambda client: client.version(name))
        if as_json:
            print_json({"version": version, **asdict(text)})
        elif write is None:
            for file, content in text.files.items():
                print_line(f"--- {file}\n{content}")
    else:
        proposal, text, found = run(administrator, PolicyClient, lambda client: client.proposal(name))
        if as_json:
            print_json({**asdict(proposal), "examination": asdict(found), **asdict(text)})
        else:
            _show_proposal(proposal, found)
    if write is not None:
        _write(text, write)


def status(
    administrator: Administrator,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder to compare with."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which version is in force, which one every worker has, and whether a folder differs from it.

    Ends with 1 where the folder has drifted, or where what is in force is not what was published.

    \b
    Example:
      broker policy status policies --as olga
    """
    from broker.client import PolicyClient
    from broker.policy.bundle import Bundle

    bundle = Bundle.from_directory(directory) if directory else None
    found = run(administrator, PolicyClient, lambda client: client.status())
    readable = bool(found.digest)
    drift = _drift(bundle.file_digests, found.file_digests) if bundle and readable else []
    if as_json:
        print_json({**asdict(found), "drift": drift})
    else:
        print_line(f"version {found.version} is in force; proposals waiting: {found.open_proposals}")
        if found.alert:
            print_line(f"alert: {found.alert}")
        print_table(
            ("worker", "version", "confirmed", "saw the guard"),
            ((w.worker, w.version, w.confirm_time, w.guard_time) for w in found.workers),
        )
        if bundle and readable and not drift:
            print_line(f"{directory} is what is in force")
    if bundle and not readable:
        raise CommandFailedError(
            f"{directory} cannot be compared: version {found.version} is not what was published",
            "two persons bring a good version into force over it: broker policy propose, approve",
        )
    if drift:
        raise CommandFailedError(
            f"{directory} differs from version {found.version}: {', '.join(drift)}",
            "see what is in force: broker policy show "
            f"{found.version} --write FOLDER; bring the folder into force: broker policy propose",
        )


def _drift(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names the files that differ, or that one of the two lacks."""
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def _show_proposal(proposal: Proposal, found: Examination) -> None:
    print_line(f"proposal {proposal.proposal_id}: {proposal.state}")
    print_line(f"  by        {_name(proposal.author)} through {proposal.certificate}")
    print_line(f"  why       {proposal.reason}")
    print_line(f"  on        version {proposal.base_version}")
    print_line(f"  digest    {proposal.digest}")
    if proposal.end_person:
        print_line(f"  ended by  {_name(proposal.end_person)}: {proposal.end_reason}")
    if proposal.version:
        print_line(f"  became    version {proposal.version}")
    print_line()
    show_examination(found)
    _show_facts(found.facts)


def _show_facts(facts: Mapping[str, Any]) -> None:
    """Prints the counts of an examination, and what the replay came to."""
    if "rules" in facts:
        print_line(f"{facts['rules']} rules over {facts['fields']} fields ({facts['verification']})")
    if "tests_passed" in facts:
        print_line(f"{facts['tests_passed']} tests passed, the incident's among them")
    for place in facts.get("rules_that_no_test_reaches", ()):
        print_line(f"no test reaches {place}")
    replay = facts.get("replay", {})
    for finding in replay.get("findings", ()):
        print_line(finding)
    if "decisions" in replay:
        counts = f"{replay['decisions']:,} decisions, {replay['changed']:,} would have been otherwise"
        print_line(f"replay of 30 days: {counts}")


def _write(text: PolicyText, folder: Path) -> None:
    from broker.policy.bundle import Bundle
    from broker.policy.files import PolicyFiles

    bundle = Bundle.of(PolicyFiles.from_mapping(text.files), text.tests)  # names that are nobody's path
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise CommandFailedError(f"{folder} exists already", "name a new folder") from None
    for name, content in bundle.files.texts.items():
        (folder / name).write_text(content, "utf-8")
    for name, content in bundle.tests.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, "utf-8")


def _written(person: object) -> str:
    return str(person["subject"]) if isinstance(person, dict) else ""


def _name(person: AgentName) -> str:
    return f"{person.subject} ({person.issuer})"
