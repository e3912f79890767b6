"""`broker policy matrix`: who sees what, everywhere."""

from __future__ import annotations

import difflib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import CommandFailedError, print_json, print_line, progress, say
from broker.cli.policy import named
from broker.cli.policy.options import Json, read, role_set
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.policy.matrix import Matrix

GOLDEN = "access_matrix.txt"
"""The file beside the policy that is reviewed as a diff."""


class Form(StrEnum):
    """Forms a matrix can take."""

    TEXT = "text"
    CSV = "csv"
    HTML = "html"


def matrix(
    administrator: named.WhoAsks,
    policy_name: named.Draft,
    roles: Annotated[
        list[str] | None,
        typer.Option("--roles", help="A role, or several that one agent has: tier1+billing. Repeatable."),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="text, csv, or html: one page with filters.")
    ] = Form.TEXT,
    update: Annotated[bool, typer.Option("--update", help=f"Write DIR/{GOLDEN} anew.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help=f"Compare with DIR/{GOLDEN}; exit code 1 and a diff where it differs."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the whole truth of a policy: who sees which field of which ticket, and by which rule.

    Every combination of facts is in it, folded into few rows. DIR/access_matrix.txt holds it for
    review: change a rule, run with --update, and the diff of that file shows what the change does.

    \b
    Example:
      broker policy matrix policies
      broker policy matrix policies --roles tier1+billing
      broker policy matrix policies --format html > matrix.html
      broker policy matrix policies --update
      broker policy matrix 3 --as anna
    """
    from broker.policy.matrix import as_csv, as_html, as_mapping, as_text
    from broker.policy.matrix import matrix as make

    if update and check:
        raise StartupError("--update writes what --check would compare: ask for one of them")
    if (update or check) and roles:
        raise StartupError(f"{GOLDEN} holds the roles of the policy: leave out --roles")
    if (update or check) and named.is_kept(policy_name):
        raise StartupError(f"--update and --check are for a folder's {GOLDEN}; {policy_name} is none")
    policy = read(named.files(policy_name, administrator))
    with progress("Working out the matrix"):
        made = make(policy, [role_set(policy, text) for text in roles] if roles else None)
    if update or check:
        _golden(Path(policy_name) / GOLDEN, made, update=update)
    elif as_json:
        print_json(as_mapping(made))
    else:
        text = {Form.TEXT: as_text, Form.CSV: as_csv, Form.HTML: as_html}[form](made)
        print_line(text.removesuffix("\n"))


def _golden(path: Path, made: Matrix, *, update: bool) -> None:
    from broker.policy.matrix import as_text

    new = as_text(made, golden=True)
    old = path.read_text("utf-8") if path.exists() else ""
    if update:
        path.write_text(new, "utf-8")
        say(f"{path} {'is as it was' if new == old else 'is written anew; review its diff'}")
        return
    if new != old:
        names = (f"{path} as it is", f"{path} as the policy has it")
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), *names, n=0, lineterm=""):
            print_line(line)
        raise CommandFailedError(
            f"{path} is not the matrix of this policy",
            "read the difference; where it is meant, run broker policy matrix with --update",
        )
    say(f"{path} is the matrix of this policy")
