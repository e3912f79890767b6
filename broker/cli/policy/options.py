"""What the verbs of `broker policy` share: their options, and how files become a policy to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import progress

if TYPE_CHECKING:
    from broker.policy import Policy, PolicyFiles

Directory = Annotated[
    Path,
    typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder with the five policy files."),
]
Reason = Annotated[
    str, typer.Option("--reason", help="Why, for the approver and the ledger.", show_default=False)
]
BaseVersion = Annotated[
    str,
    typer.Option(
        "--base",
        help="The version that it is meant to follow; default: the one in force.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def read(files: PolicyFiles) -> Policy:
    """Reads the files of a policy in order to look at it, also of one that only an older release would serve.

    Raises:
        PolicyInvalidError: with every finding.
    """
    from broker.policy.decision import load_known

    with progress("Reading and checking the policy against Casbin"):
        return load_known(files, "candidate")


def summary(files: PolicyFiles, policy: Policy) -> dict[str, object]:
    """Gives what `--json` prints about a policy."""
    return {
        "digest": files.digest,
        "rules": len(policy.book.rules),
        "roles": sorted(policy.roles),
        "fields": sorted(policy.catalog.fields),
        "verification": policy.verification,
    }


def sentence(policy: Policy) -> str:
    """Says what a policy holds."""
    counts = f"{len(policy.book.rules)} rules for {len(policy.roles)} roles"
    return f"{counts} over {len(policy.catalog.fields)} fields ({policy.verification})"


def role_set(policy: Policy, text: str) -> frozenset[str]:
    """Reads a set of roles, `tier1+billing`.

    Raises:
        StartupError: the policy has no role of that name.
    """
    from broker.errors import StartupError
    from broker.policy.findings import nearest, quoted

    roles = frozenset(word.strip() for word in text.split("+"))
    for role in sorted(roles - policy.roles):
        raise StartupError(f"--roles: no role {quoted(role)}; {nearest(role, policy.roles)}")
    return roles
