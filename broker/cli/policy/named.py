"""A policy by its name: a folder, or what the broker keeps, a version's number or a proposal's id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import PolicyClient, PolicyText

NAMED = "DIR|VERSION|PROPOSAL"


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
