"""A policy by its name: a folder, or what the broker keeps, a version's number or a proposal's id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.persons import Administrator, run
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import PolicyClient, PolicyText
    from broker.policy import PolicyFiles

WhoAsks = Callable[[], Administrator]
"""Finds who asks; only done where the broker is asked."""

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


def text(name: str, *, tests: bool = False) -> PolicyText | None:
    """Gives the five files of a folder, and its tests where these are wanted; None for what the broker keeps.

    Raises:
        StartupError: it is neither.
        PolicyInvalidError: its files cannot be read.
    """
    from broker.client import PolicyText
    from broker.policy import PolicyFiles
    from broker.policy.suite import read_test_files

    if is_kept(name):
        return None
    path = folder(name)
    return PolicyText(PolicyFiles.from_directory(path).texts, read_test_files(path) if tests else {})


def texts(names: Sequence[str], administrator: WhoAsks, *, tests: bool = False) -> dict[str, PolicyText]:
    """Reads folders, with their tests where these are wanted, then what the broker keeps, over one channel.

    Raises:
        StartupError: a name is neither, or nobody is told of who asks.
        PolicyInvalidError: a folder's files cannot be read.
    """
    from broker.client import PolicyClient

    found = {name: known for name in names if (known := text(name, tests=tests)) is not None}
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if not missing:
        return found

    async def ask(client: PolicyClient) -> dict[str, PolicyText]:
        return {name: await kept(client, name) for name in missing}

    return found | run(administrator(), PolicyClient, ask)


def files(name: str, administrator: WhoAsks) -> PolicyFiles:
    """Gives the five files of a policy; raises as `texts` does."""
    from broker.policy import PolicyFiles

    return PolicyFiles.from_mapping(texts([name], administrator)[name].files)


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
