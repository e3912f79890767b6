"""What the verbs that verify are given; they end with 0: it holds, 1: it does not, 2: nothing was judged.

Invariants:
- 1 is a verdict on something that could be read; what is missing, unreadable or nothing of its kind is 2, and
  so is whatever else keeps from a verdict: settings, a key that is none, a database that does not answer;
- a file is read as what somebody else made: bounded, and never believed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from broker.cli.output import CommandFailedError
from broker.errors import BrokerError, DatabaseUnavailableError, StartupError

if TYPE_CHECKING:
    from broker.client import Receipt
    from broker.tlog import Proof

MOST_BYTES = 4 << 20
"""Longest file; the longest of them is a proof with a leaf and all rotations."""


@contextmanager
def judging() -> Iterator[None]:
    """Keeps exit code 1 for verdicts.

    Raises:
        StartupError: something else kept from one; says what.
    """
    from broker.tlog import LogInvalidError, NotPublishedError

    try:
        yield
    except NotPublishedError as exc:
        raise StartupError(str(exc)) from None
    except (CommandFailedError, LogInvalidError, StartupError):
        raise
    except Exception as exc:
        raise StartupError(f"nothing was judged: {_why(exc)}") from exc


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Reads a file.

    Raises:
        StartupError: it cannot be read, or is too long for what it should be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as exc:
        raise StartupError(f"{path}: {exc.strerror}") from None
    if len(data) > most:
        raise StartupError(f"{path}: too long for what it should be")
    return data


def read_checkpoint(path: Path) -> str:
    """Reads a signed checkpoint; whose signature it carries is not looked at.

    Raises:
        StartupError: it is none.
    """
    from broker.note import Note, NoteInvalidError
    from broker.tlog import Checkpoint, LogInvalidError

    try:
        text = read_file(path).decode()
        Checkpoint.parse(Note.parse(text).text)
    except (UnicodeDecodeError, NoteInvalidError, LogInvalidError):
        raise StartupError(f"{path}: not a signed checkpoint") from None
    return text


def read_proof(path: Path) -> Proof:
    """Reads a proof; nothing in it is believed yet.

    Raises:
        StartupError: it is none.
    """
    from broker.tlog import LogInvalidError
    from broker.tlog import read_proof as parse

    try:
        return parse(read_file(path))
    except LogInvalidError as exc:
        raise StartupError(f"{path}: {exc}") from None


def read_receipt(path: Path) -> tuple[Receipt, UUID]:
    """Reads a receipt, and which event it is of; nothing in it is believed yet.

    Raises:
        StartupError: it is none.
    """
    from broker.client import Receipt

    try:
        found = json.loads(read_file(path))
        found = found.get("receipt", found)
        receipt = Receipt(
            base64.b64decode(found["leaf"], validate=True),
            int(found["leaf_index"]),
            int(found["tree_size"]),
            tuple(base64.b64decode(each, validate=True) for each in found["path"]),
            str(found["signed_root"]),
        )
        return receipt, UUID(json.loads(receipt.leaf)["id"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StartupError(
            f"{path}: not a receipt; `broker access read --json` prints one, alone or as `receipt`"
        ) from None


def read_jwks(path: Path) -> dict[str, Any]:
    """Reads a JWK Set.

    Raises:
        StartupError: it is none.
    """
    try:
        found = json.loads(read_file(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise StartupError(f"{path}: not a JWK Set; the broker serves its own as /jwks.json")
    return found


def _why(exc: Exception) -> str:
    match exc:
        case DatabaseUnavailableError():
            return f"{exc.sentence} Check host and port in the DSN, and that it runs ({exc.cause})."
        case BrokerError():
            return exc.sentence
        case OSError():
            return f"{exc.filename}: {exc.strerror}" if exc.filename else type(exc).__name__
        case _ if type(exc).__module__.startswith("asyncpg."):
            return f"the database refuses: {type(exc).__name__}; check role, password and database in the DSN"
        case _:
            # Its text may quote what nobody should see: a driver's error does.
            return (
                f"unexpected {type(exc).__name__}; run it again with BROKER_DEBUG=1 and tell the developers"
            )
