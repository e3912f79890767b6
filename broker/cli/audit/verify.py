"""`broker audit verify`: recompute everything, and name what does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.audit.inputs import judging, read_checkpoint, read_jwks, read_receipt
from broker.cli.audit.options import Json, Keys, anchors, auditor, published
from broker.cli.output import CommandFailedError, print_json, print_line, progress, say
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.note import VerifierKey
    from broker.tlog import InclusionProof, Verification

MOST_SHOWN = 20

VERIFY_SECONDS = 600.0
"""Longest statement over the whole ledger, and longest wait for what is published, within its transaction."""


@judging()
def verify(
    key: Keys = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="A checkpoint that you kept; the log must continue it."),
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="A receipt (JSON): is this disclosure in the log?")
    ] = None,
    jwks: Annotated[
        Path | None,
        typer.Option("--jwks", help="With --receipt: the broker's JWK Set, to check the signer."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute the whole log; name the first thing that differs.

    Every event's bytes, columns and time; every leaf, tile, kept checkpoint and signature. Keep checkpoints
    outside (a copy of the published file `checkpoint`): only those show a log that was rewritten by somebody
    who has the database, the storage and the key. It reads every event, so it has no form over the admin
    port: it runs as broker_auditor (BROKER_AUDITOR_DSN, and BROKER_TLOG_DIR). Exit codes: 0 it holds, 1 it
    does not, 2 nothing was judged, as where a file is missing or the database does not answer.

    \b
    Example:
      broker audit verify
      broker audit verify --checkpoint kept/2026-11-01 --key log.pub
      broker audit verify --receipt receipt.json
    """
    settings = read_settings("auditor_dsn", "tlog_dir")
    keys = anchors(key, settings)
    if receipt is not None:
        _verify_receipt(settings, keys, receipt, jwks, as_json=as_json)
        return
    with progress("Verifying") as shown:

        def tell(done: int, of: int) -> None:
            shown(f"Verifying: leaf {done:,} of {of:,}")

        result = asyncio.run(_verify(settings, keys, checkpoint or [], tell))
    if as_json:
        print_json({**asdict(result), "holds": result.holds})
    elif result.holds:
        say(_sentence(result))
    else:
        for finding in result.findings[:MOST_SHOWN]:
            print_line(f"{finding.kind:<10}  {finding.sentence}")
        if (rest := len(result.findings) + result.more - MOST_SHOWN) > 0:
            print_line(f"... and {rest} more; --json shows {len(result.findings)}")
    if not result.holds:
        raise CommandFailedError(
            f"the log does not hold: {result.findings[0].sentence}",
            "keep database, storage and your checkpoints as they are, and call whoever investigates",
        )


def _sentence(result: Verification) -> str:
    more = "".join(
        f", {count} {what}"
        for count, what in (
            (result.lost, "lost and accepted"),
            (result.pruned, "pruned"),
            (result.waiting, "events not published yet"),
        )
        if count
    )
    counts = f"{result.size} leaves, {result.published} published, {result.checkpoints} kept checkpoints"
    return f"the log holds: {counts}{more}"


async def _verify(
    settings: Settings, keys: list[VerifierKey], kept: list[Path], tell: Callable[[int, int], None]
) -> Verification:
    from broker.tlog import Verifier, trusted_keys

    texts = [read_checkpoint(path) for path in kept]
    log = published(settings)
    trusted = await trusted_keys(log, keys)
    checkpoints = [trusted.open(text) for text in texts]
    async with auditor(settings, "audit verify", {}, seconds=VERIFY_SECONDS) as conn:
        return await Verifier(conn, log, trusted, kept=checkpoints, progress=tell).run()


def _verify_receipt(
    settings: Settings, keys: list[VerifierKey], path: Path, jwks: Path | None, *, as_json: bool
) -> None:
    from broker.client import ReceiptInvalidError, verify_receipt

    receipt, event_id = read_receipt(path)
    if jwks is not None:
        try:
            verify_receipt(receipt, read_jwks(jwks))
        except ReceiptInvalidError as exc:
            raise CommandFailedError(f"the receipt does not hold: {exc}") from None
    proof = asyncio.run(_find(settings, keys, receipt.leaf, event_id))
    if as_json:
        print_json(proof.as_json())
    else:
        say(f"the disclosure is in the log: event {event_id} is leaf {proof.index}")


async def _find(settings: Settings, keys: list[VerifierKey], leaf: bytes, event_id: UUID) -> InclusionProof:
    from broker.tlog import find_leaf

    async with auditor(settings, "audit verify receipt", {"event": str(event_id)}) as conn:
        return await find_leaf(conn, published(settings), keys, leaf, event_id)
