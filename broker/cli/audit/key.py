"""`broker audit key`: the public key that everything is verified with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit.options import Json, log_keys
from broker.cli.output import CommandFailedError, print_json, print_line, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.note import VerifierKey

PUBLIC = 0o644
"""Mode of the file: what is in it is for everybody."""

LONGEST = 1 << 16


def key(
    administrator: Administrator | None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it into this file; it replaces no other key.")
    ] = None,
    newest: Annotated[
        bool, typer.Option("--newest", help="The one that signs now, where an earlier one was stolen.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the log's public key, which `--key` of the verbs that verify takes.

    The first one: it verifies every checkpoint, proof and pack there ever was, as each key signs for the
    next. Reads BROKER_TLOG_KEYS_DIR; asks the broker for whom a token or --as is given. Who took it from the
    broker compares its id with the operator's, by a way of their own.

    \b
    Example:
      broker audit key --out log.pub
      broker audit key --out log.pub --as audrey
    """
    if administrator is not None:
        keys = _over_port(administrator)
    else:
        found = log_keys(read_settings("tlog_keys_dir")).load()
        keys = found.keys[: len(found.rotations) + 1]  # without one that waits
    chosen = keys[-1 if newest else 0]
    if out is not None:
        _write(out, chosen)
    if as_json:
        told = {"log": chosen.name, "key_id": chosen.key_id.hex(), "key": str(chosen)}
        print_json(told | ({"file": str(out)} if out else {}))
    elif out is None:
        print_line(str(chosen))
    else:
        say(f"{out}: key {chosen.key_id.hex()} of the log {chosen.name}")
        if administrator is not None:
            say("  compare that id with the operator's before you believe what it verifies")


def _over_port(administrator: Administrator) -> tuple[VerifierKey, ...]:
    from broker.client import AuditClient
    from broker.note import VerifierKey
    from broker.tlog import TrustedKeys
    from broker.tlog.proof import parse_rotations

    first, rotations = run(administrator, AuditClient, lambda client: client.log_key())
    return TrustedKeys([VerifierKey.parse(first)], parse_rotations(rotations)).keys


def _write(path: Path, key: VerifierKey) -> None:
    from broker.audit.new_file import new_file

    text = f"{key}\n".encode()
    try:
        with new_file(path, PUBLIC) as file:
            file.write(text)
    except FileExistsError:
        if not _holds(path, text):
            raise CommandFailedError(
                f"{path} is there and holds something else", "look at it before you put another key there"
            ) from None
    except OSError as exc:
        raise StartupError(f"{path}: {exc.strerror}") from None


def _holds(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST) == text
    except OSError:
        return False
