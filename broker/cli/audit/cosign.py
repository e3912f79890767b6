"""`broker audit cosign`: attach a witness's cosignature to a checkpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit.inputs import read_checkpoint
from broker.cli.audit.options import Json, Witnesses, log_keys, read_witnesses, storage
from broker.cli.output import CommandFailedError, print_json, say
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.note import VerifierKey


def cosign(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The checkpoint, the witness's signature line under ours."),
    ],
    witness: Witnesses = None,
    as_json: Json = False,
) -> None:
    """Attach a witness's cosignature to a checkpoint.

    As C2SP tlog-cosignature says. It is kept for ever, and published where the checkpoint is still the
    newest. Runs as broker_admin (BROKER_ADMIN_DSN, BROKER_TLOG_DIR, BROKER_TLOG_KEYS_DIR).

    \b
    Example:
      broker audit cosign cosigned --witness witness.pub
    """
    settings = read_settings("admin_dsn", "tlog_dir", "tlog_keys_dir")
    witnesses = read_witnesses(witness)
    if not witnesses:
        raise StartupError("give the witness's public key: --witness")
    text = read_checkpoint(file)
    size, published = asyncio.run(_cosign(settings, witnesses, text))
    if as_json:
        print_json({"size": size, "published": published})
    else:
        say(f"size {size} is kept with the cosignature{' and published' if published else ''}")


async def _cosign(settings: Settings, witnesses: list[VerifierKey], text: str) -> tuple[int, bool]:
    from broker.cli.connections import connected
    from broker.tlog import TrustedKeys, attach, cosigned_by

    keys = TrustedKeys.of(log_keys(settings).load())
    checkpoint = keys.open(text)
    times = cosigned_by(text, witnesses)
    if missing := [each.name for each in witnesses if each.name not in times]:
        raise CommandFailedError(f"the checkpoint is not cosigned by {', '.join(missing)}")
    async with connected(settings.admin_dsn, "BROKER_ADMIN_DSN") as conn:
        return checkpoint.size, await attach(conn, storage(settings), keys, witnesses, text)
