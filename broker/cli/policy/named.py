"""A policy by its name: a folder, or what the broker keeps, a version's number or a proposal's id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import PolicyClient, PolicyText

Draft = Annotated[
    str,
    typer.Argument(
        metavar="DIR|VERSION|PROPOSAL",
        help="Folder with the five policy files, or what `list` prints.",
        show_default=False,
    ),
]


def is_kept(name: str) -> bool:
    """Says whether the broker keeps what has this name; a folder that is called so is `./NAME`."""
    return name.isdecimal() or _is_id(name)


def called(name: str) -> str:
    """Gives the name as sentences use it."""
    if name.isdecimal():
        return f"version {name}"
    return f"proposal {name}" if _is_id(name) else name


async def kept(client: PolicyClient, name: str) -> PolicyText:
    """Gives a version or a proposal; that somebody looked is on record."""
    if name.isdecimal():
        return (await client.version(name))[1]
    return (await client.proposal(name))[1]


def text(name: str) -> PolicyText | None:
    """Gives the five files of a folder; None for what the broker keeps.

    Raises:
        StartupError: it is neither.
        PolicyInvalidError: its files cannot be read.
    """
    from broker.client import PolicyText
    from broker.policy import PolicyFiles

    return None if is_kept(name) else PolicyText(PolicyFiles.from_directory(folder(name)).texts)


def folder(name: str) -> Path:
    """Gives a folder.

    Raises:
        StartupError: it is none.
    """
    path = Path(name)
    if not path.is_dir():
        raise StartupError(f"'{name}' is no folder, no version's number and no proposal's id")
    return path


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
