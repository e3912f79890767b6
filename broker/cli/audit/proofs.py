"""`broker audit prove`, `prove-consistency` and `verify-proof`."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from broker.cli.audit.inputs import judging, read_checkpoint, read_proof
from broker.cli.audit.options import (
    Json,
    Keys,
    Witnesses,
    anchors,
    auditor,
    published,
    read_keys,
    read_witnesses,
)
from broker.cli.output import CommandFailedError, print_json, print_line, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from broker.client import AuditClient
    from broker.note import VerifierKey
    from broker.tlog import ConsistencyProof, InclusionProof, Proof

CHECK = "check it with: broker audit verify-proof FILE --key log.pub"

Alone = Annotated[bool, typer.Option("--json", help="The proof alone; it is JSON in any case.")]


def prove(
    administrator: Administrator | None,
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT", help="Id of the event (its decision id).")],
    key: Keys = None,
    alone: Alone = False,
) -> None:
    """Prove that an event is in the log.

    Prints a proof that needs only the public key to verify; with --key it is verified here, too. The proof
    holds the event itself: whom it concerns is a pseudonym in there, the agent is named. Asks the broker for
    whom a token or --as is given; else runs as broker_auditor (BROKER_AUDITOR_DSN, and BROKER_TLOG_DIR).

    \b
    Example:
      broker audit prove 019ab0c2-… --as audrey > proof.json
      broker audit verify-proof proof.json --key log.pub
    """
    if administrator is not None:
        proof: Proof = _over_port(administrator, key, lambda client: client.prove(str(event_id)))
    else:
        settings = read_settings("auditor_dsn", "tlog_dir")
        proof = asyncio.run(_prove(settings, anchors(key, settings), event_id))
    if not alone:
        say(f"event {event_id} is proved to be in the log; {CHECK}")
    print_json(proof.as_json())


def prove_consistency(
    administrator: Administrator | None,
    old: Annotated[int, typer.Argument(metavar="A", min=1, help="Size of the earlier checkpoint.")],
    new: Annotated[
        int | None,
        typer.Argument(metavar="B", min=1, help="Size of the later, kept one; default: the newest."),
    ] = None,
    key: Keys = None,
    alone: Alone = False,
) -> None:
    """Prove that the log only grew since a size.

    The log of size B begins with the log of size A: nothing before A was changed.
    Compare `old_root` with the checkpoint of size A that you kept. Asks the broker for whom a token or --as
    is given; else runs as broker_auditor (BROKER_AUDITOR_DSN, and BROKER_TLOG_DIR).

    \b
    Example:
      broker audit prove-consistency 1200 --as audrey > proof.json
      broker audit verify-proof proof.json --checkpoint kept/1200 --key log.pub
    """
    if administrator is not None:
        proof: Proof = _over_port(administrator, key, lambda client: client.prove_consistency(old, new or 0))
    else:
        settings = read_settings("auditor_dsn", "tlog_dir")
        proof = asyncio.run(_consistency(settings, anchors(key, settings), old, new))
    if not alone:
        say(f"the log continues that of size {old}; {CHECK}")
    print_json(proof.as_json())


@judging()
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
    witness's cosignature. Exit codes: 0 it holds, 1 it does not, 2 nothing was judged, as where the file is
    missing or no proof.

    \b
    Example:
      broker audit verify-proof proof.json --key log.pub
    """
    from broker.tlog import InclusionProof, TrustedKeys, cosigned_by
    from broker.tlog.proof import parse_rotations

    keys = read_keys(key)
    if not keys:
        raise StartupError("give the log's public key: --key, or BROKER_LOG_KEY")
    witnesses = read_witnesses(witness)
    proof = read_proof(file)
    begin = read_checkpoint(checkpoint) if checkpoint is not None else None
    found = proof.verify(keys)
    times = cosigned_by(proof.checkpoint, witnesses)
    if missing := [each.name for each in witnesses if each.name not in times]:
        raise CommandFailedError(f"the checkpoint is not cosigned by {', '.join(missing)}")
    if isinstance(proof, InclusionProof):
        event = _event_in(proof.leaf)
        answer = {"proves": "inclusion", "index": proof.index, "event": event}
        sentence = (
            f"leaf {proof.index} of the log of size {found.size} is no event"
            if event is None
            else f"event {event['id']} is leaf {proof.index} of the log of size {found.size}"
        )
    else:
        answer = {"proves": "consistency", "old_size": proof.old_size}
        sentence = f"the log of size {found.size} continues that of size {proof.old_size}"
        if begin is not None:
            kept = TrustedKeys(keys, parse_rotations(proof.rotations)).open(begin)
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
        shown = proof.leaf.decode("ascii", "replace")
        print_line(
            shown if shown.isascii() and shown.isprintable() else base64.b64encode(proof.leaf).decode()
        )


def _event_in(leaf: bytes) -> dict[str, Any] | None:
    """Gives the event of a proven leaf; None where whoever could append put something else there."""
    try:
        found: dict[str, Any] = json.loads(leaf)
        UUID(found["id"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found


def _over_port(
    administrator: Administrator,
    key: Sequence[str] | None,
    ask: Callable[[AuditClient], Awaitable[str]],
) -> Proof:
    """Lets the broker prove it; verifies that where a key is given, so that nothing else is printed."""
    from broker.client import AuditClient
    from broker.tlog import read_proof as parse

    keys = read_keys(key)
    proof = parse(run(administrator, AuditClient, ask).encode())
    if keys:
        proof.verify(keys)
    return proof


async def _prove(settings: Settings, keys: list[VerifierKey], event_id: UUID) -> InclusionProof:
    from broker.tlog import prove_inclusion

    async with auditor(settings, "audit prove", {"event": str(event_id)}) as conn:
        return await prove_inclusion(conn, published(settings), keys, event_id)


async def _consistency(
    settings: Settings, keys: list[VerifierKey], old: int, new: int | None
) -> ConsistencyProof:
    from broker.tlog import prove_consistency as consistency

    async with auditor(settings, "audit prove-consistency", {"old": old, "new": new}) as conn:
        return await consistency(conn, published(settings), keys, old, new)
