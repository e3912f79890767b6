"""`broker audit prove`, `prove-consistency` and `verify-proof`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.audit.options import (
    Json,
    Keys,
    Witnesses,
    anchors,
    auditor,
    read_file,
    read_keys,
    storage,
)
from broker.cli.output import CommandFailedError, print_json, print_line, say
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.note import VerifierKey
    from broker.tlog import ConsistencyProof, InclusionProof


Alone = Annotated[bool, typer.Option("--json", help="The proof alone; it is JSON in any case.")]


def prove(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT", help="Id of the event (its decision id).")],
    key: Keys = None,
    alone: Alone = False,
) -> None:
    """Prove that an event is in the log.

    Prints a proof that needs only the public key to verify. The proof holds the event itself: whom it
    concerns is a pseudonym in there, the agent is named. Runs as broker_auditor (BROKER_AUDITOR_DSN, and
    BROKER_TLOG_DIR).

    \b
    Example:
      broker audit prove 019ab0c2-… > proof.json
      broker audit verify-proof proof.json --key log.pub
    """
    settings = read_settings("auditor_dsn", "tlog_dir")
    proof = asyncio.run(_prove(settings, anchors(key, settings), event_id))
    if not alone:
        say(
            f"event {event_id} is leaf {proof.index}; check it with: broker audit verify-proof FILE --key KEY"
        )
    print_json(proof.as_json())


def prove_consistency(
    old: Annotated[int, typer.Argument(metavar="A", help="Size of the earlier checkpoint.")],
    new: Annotated[
        int | None, typer.Argument(metavar="B", help="Size of the later, kept one; default: the newest.")
    ] = None,
    key: Keys = None,
    alone: Alone = False,
) -> None:
    """Prove that the log only grew since a size.

    The log of size B begins with the log of size A: nothing before A was changed.
    Compare `old_root` with the checkpoint of size A that you kept. Runs as broker_auditor
    (BROKER_AUDITOR_DSN, and BROKER_TLOG_DIR).

    \b
    Example:
      broker audit prove-consistency 1200 > proof.json
      broker audit verify-proof proof.json --checkpoint kept/1200 --key log.pub
    """
    settings = read_settings("auditor_dsn", "tlog_dir")
    proof = asyncio.run(_consistency(settings, anchors(key, settings), old, new))
    if not alone:
        say(f"the log continues that of size {old}; check it with: broker audit verify-proof FILE --key KEY")
    print_json(proof.as_json())


def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `broker audit prove` printed it.")],
    key: Keys = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", help="The checkpoint that you kept; a proof of consistency must begin there."
        ),
    ] = None,
    witness: Witnesses = None,
    as_json: Json = False,
) -> None:
    """Verify a proof with the public key alone.

    Offline: no database, no broker, no settings. With --witness the checkpoint must carry that
    witness's cosignature.

    \b
    Example:
      broker audit verify-proof proof.json --key log.pub
    """
    from broker.tlog import InclusionProof, TrustedKeys, cosigned_by, read_proof
    from broker.tlog.proof import MOST_BYTES, parse_rotations

    keys = read_keys(key)
    if not keys:
        raise StartupError("give the log's public key: --key, or BROKER_LOG_KEY")
    proof = read_proof(read_file(file, MOST_BYTES))
    found = proof.verify(keys)
    witnesses = read_keys(witness)
    times = cosigned_by(proof.checkpoint, witnesses)
    if missing := [each.name for each in witnesses if each.name not in times]:
        raise CommandFailedError(f"the checkpoint is not cosigned by {', '.join(missing)}")
    if isinstance(proof, InclusionProof):
        answer = {"proves": "inclusion", "index": proof.index, "event": json.loads(proof.leaf)}
        sentence = f"event {answer['event']['id']} is leaf {proof.index} of the log of size {found.size}"
    else:
        answer = {"proves": "consistency", "old_size": proof.old_size}
        sentence = f"the log of size {found.size} continues that of size {proof.old_size}"
        if checkpoint is not None:
            trusted = TrustedKeys(keys, parse_rotations(proof.rotations))
            kept = trusted.open(read_file(checkpoint, MOST_BYTES).decode("utf-8", "replace"))
            if (kept.size, kept.root) != (proof.old_size, proof.old_root):
                raise CommandFailedError("the proof begins at another checkpoint than the one that you kept")
    answer |= {"size": found.size, "origin": found.origin, "cosigned": times}
    if as_json:
        print_json(answer)
        return
    say(f"proved: {sentence}")
    for name, time in times.items():
        say(f"cosigned by {name} at {datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC")
    if isinstance(proof, InclusionProof):
        print_line(proof.leaf.decode("ascii", "replace"))


async def _prove(settings: Settings, keys: list[VerifierKey], event_id: UUID) -> InclusionProof:
    from broker.tlog import prove_inclusion

    async with auditor(settings, "audit prove", {"event": str(event_id)}) as conn:
        return await prove_inclusion(conn, storage(settings), keys, event_id)


async def _consistency(
    settings: Settings, keys: list[VerifierKey], old: int, new: int | None
) -> ConsistencyProof:
    from broker.tlog import prove_consistency as consistency

    async with auditor(settings, "audit prove-consistency", {"old": old, "new": new}) as conn:
        return await consistency(conn, storage(settings), keys, old, new)
