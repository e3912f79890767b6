"""`broker policy propose` and `rollback`: what somebody wants to be in force."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import CommandFailedError, print_json, print_line, say
from broker.cli.persons import Administrator, run
from broker.cli.policy.options import BaseVersion, Directory, Json, Reason

if TYPE_CHECKING:
    from broker.client import Examination, Proposed

WORKING = "Examining the policy"


def propose(
    administrator: Administrator,
    directory: Directory,
    reason: Reason,
    base: BaseVersion = "",
    replace_tests: Annotated[
        bool,
        typer.Option(
            "--replace-tests",
            help="Tests of the version in force may fail; what still holds of them stays, or it widens.",
        ),
    ] = False,
    emergency: Annotated[
        bool,
        typer.Option("--emergency", help="In force at once, without a second person, if it only narrows."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Propose a folder of policy files and their tests; another person approves it.

    The broker examines it first: findings, tests, what becomes wider and what narrower. What fails is told
    and not stored. What narrows and widens nothing can be in force at once with --emergency, and the
    ledger says so.

    \b
    Example:
      broker policy propose policies --reason "HD-77: billing sees invoices" --as anna
      broker policy propose policies --reason "INC-7: no phone numbers" --emergency --as anna
    """
    from broker.client import PolicyClient, PolicyText
    from broker.policy.bundle import Bundle

    bundle = Bundle.from_directory(directory)
    text = PolicyText(bundle.files.texts, bundle.tests)
    answer = run(
        administrator,
        PolicyClient,
        lambda client: client.propose(
            text, reason=reason, base_version=base, replaces_tests=replace_tests, emergency=emergency
        ),
        doing=WORKING,
    )
    tell(answer, as_json=as_json)


def roll_back(
    administrator: Administrator,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A number of `broker policy list`.")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Bring back an old version's content, as a new version.

    Where that only narrows it is in force at once; else it waits for another person, as a proposal.

    \b
    Example:
      broker policy rollback 3 --reason "HD-81: took too much away" --as anna
    """
    from broker.client import PolicyClient

    answer = run(
        administrator, PolicyClient, lambda client: client.roll_back(version, reason=reason), doing=WORKING
    )
    tell(answer, as_json=as_json)


def tell(answer: Proposed, *, as_json: bool) -> None:
    """Prints what came of a draft.

    Raises:
        CommandFailedError: the examination refused it.
    """
    if as_json:
        print_json(asdict(answer))
    else:
        show(answer.examination)
    proposal = answer.proposal
    if proposal is None:
        raise CommandFailedError(
            f"the examination refuses this policy (decision id {answer.decision_id})",
            "nothing was stored; mend what is listed and propose again",
        )
    if as_json:
        return
    if proposal.version:
        say(f"version {proposal.version} is in force")
        return
    until = f"{proposal.expire_time:%Y-%m-%d %H:%M} UTC"
    say(f"proposal {proposal.proposal_id} waits for another person until {until}:")
    say(f"  broker policy show {proposal.proposal_id}")
    say(f"  broker policy approve {proposal.proposal_id} --digest {proposal.digest}")


def show(found: Examination) -> None:
    """Prints what an examination found."""
    for title, sentences in (
        ("refused because", found.refusals),
        ("look at", found.warnings),
        ("wider", found.widening),
        ("narrower", found.narrowing),
    ):
        for sentence in sentences:
            print_line(f"{title}: {sentence}")
