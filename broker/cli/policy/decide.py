"""`broker policy approve`, `reject` and `withdraw`: what becomes of a proposal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, say
from broker.cli.persons import Administrator, run
from broker.cli.policy.options import Json, Reason

if TYPE_CHECKING:
    from broker.client import Proposal

ProposalId = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Id of the proposal.")]


def approve(
    administrator: Administrator,
    proposal: ProposalId,
    digest: Annotated[
        str, typer.Option("--digest", help="Of what you have looked at, as `broker policy show` prints it.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Your words, for the ledger.")] = "",
    as_json: Json = False,
) -> None:
    """Bring somebody else's proposal into force, on every replica and without a gap.

    The proposal is examined once more. Its author cannot approve it, under no certificate and no other
    spelling of the same name.

    \b
    Example:
      broker policy approve 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --digest 5d1e… --as boris
    """
    from broker.client import PolicyClient

    found = run(
        administrator,
        PolicyClient,
        lambda client: client.approve(proposal, digest=digest, reason=reason),
        doing="Examining the policy once more",
    )
    _tell(found, f"version {found.version} is in force", as_json=as_json)


def reject(administrator: Administrator, proposal: ProposalId, reason: Reason, as_json: Json = False) -> None:
    """End a proposal without bringing it into force.

    \b
    Example:
      broker policy reject 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --reason "too wide" --as boris
    """
    from broker.client import PolicyClient

    found = run(administrator, PolicyClient, lambda client: client.reject(proposal, reason=reason))
    _tell(found, "the proposal is rejected", as_json=as_json)


def withdraw(
    administrator: Administrator, proposal: ProposalId, reason: Reason, as_json: Json = False
) -> None:
    """Take your own proposal back.

    \b
    Example:
      broker policy withdraw 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --reason "a typo" --as anna
    """
    from broker.client import PolicyClient

    found = run(administrator, PolicyClient, lambda client: client.withdraw(proposal, reason=reason))
    _tell(found, "the proposal is withdrawn", as_json=as_json)


def _tell(proposal: Proposal, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(proposal))
    else:
        say(sentence)
