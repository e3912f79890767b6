"""`broker audit exposure --pack` and `verify-pack`: the file that proves a report.

Invariants:
- a pack is there whole or not at all, and never replaces a file;
- what is told beside a pack that came over the port is read out of it: there is one answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.audit import filters
from broker.cli.audit.inputs import judging
from broker.cli.audit.options import Json, Keys, log_keys, read_keys, storage
from broker.cli.output import CommandFailedError, Progress, print_json, progress, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import Settings

if TYPE_CHECKING:
    import asyncpg

    from broker.audit.exposure import Selection
    from broker.client import ExposureQuery, PackSummary

TAKEN = "{} is there already; a pack never replaces a file"
NOBODY = "no agent was ever granted anything of this customer, or they were erased"


def check_free(path: Path) -> None:
    """Looks whether a pack can be written there, before anything is asked.

    Raises:
        CommandFailedError: something is there.
        StartupError: there is no such folder.
    """
    if os.path.lexists(path):
        raise CommandFailedError(TAKEN.format(path))
    if not path.parent.is_dir():
        raise StartupError(f"{path}: there is no folder {path.parent}")


def over_port(
    administrator: Administrator, query: ExposureQuery, path: Path, *, lines: bool
) -> dict[str, Any]:
    """Lets the broker make a pack; gives, or writes line by line, what it lists."""
    from broker.audit.packed import listed
    from broker.client import AuditClient

    with _whole(path) as file:

        async def fetch(client: AuditClient) -> PackSummary:
            summary = await client.build_pack(query, file.write)
            if not summary.length:
                raise CommandFailedError(NOBODY)
            if not summary.reads and (sentence := await filters.unknown(client, query.agent)):
                raise CommandFailedError(sentence, filters.SPELLING)
            return summary

        summary = run(administrator, AuditClient, fetch, doing="Fetching the pack")
    report, customers = listed(path)
    answer = {"selection": report["selection"], "totals": report["totals"]}
    if lines:
        sys.stdout.writelines(json.dumps(one) + "\n" for one in customers)
    else:
        answer["customers"] = list(customers)
    told = _told(path, summary.customers, summary.reads, summary.leaves, summary.log_size)
    return {**answer, "pack": told}


async def from_database(
    settings: Settings, pool: asyncpg.Pool, selection: Selection, path: Path, told: Progress
) -> dict[str, Any]:
    """Makes a pack here, with the log's key; its question is on record."""
    from broker.audit.pack import build_pack

    with _explained(path):
        packed = await build_pack(
            pool, selection, path, keys=log_keys(settings), storage=storage(settings), now=datetime.now(UTC),
            progress=told,
        )  # fmt: skip
    return _told(path, packed.customers, packed.reads, packed.leaves, packed.size)


def tell(pack: dict[str, Any]) -> None:
    """Says what was packed, and how it is checked."""
    say(f"{pack['file']}: {pack['leaves']:,} events proved")
    say(f"  check it with the log's public key: broker audit verify-pack {pack['file']} --key log.pub")


def _told(path: Path, customers: int, reads: int, leaves: int, size: int) -> dict[str, Any]:
    return {"file": str(path), "customers": customers, "reads": reads, "leaves": leaves, "log_size": size}


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    from broker.audit.new_file import new_file

    with _explained(path), new_file(path) as file:
        yield file


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says what is wrong with the file."""
    try:
        yield
    except FileExistsError:
        raise CommandFailedError(TAKEN.format(path)) from None
    except OSError as exc:
        raise CommandFailedError(f"{exc.filename or path}: {exc.strerror or type(exc).__name__}") from None


@judging()
def verify_pack(
    file: Annotated[Path, typer.Argument(metavar="PACK", help="As `broker audit exposure --pack` wrote it.")],
    key: Keys = None,
    as_json: Json = False,
) -> None:
    """Verify a notification pack with the public key alone.

    Offline: no database, no broker, no settings. The signature, the digests, the proof of every event, and
    the list and counts made again from the events. Exit codes: 0 it holds, 1 it does not, 2 nothing was
    judged, as where the file is missing or no pack.

    \b
    Example:
      broker audit verify-pack incident.zip --key log.pub
    """
    from broker.audit.packed import PackUnreadableError
    from broker.audit.packed import verify_pack as verify

    keys = read_keys(key)
    if not keys:
        raise StartupError("give the log's public key: --key, or BROKER_LOG_KEY")
    try:
        with progress("Checking the pack") as told:
            verdict = verify(file, keys, told)
    except OSError as exc:
        raise StartupError(f"{file}: {exc.strerror}") from None
    except PackUnreadableError as exc:
        raise StartupError(f"{file}: {exc}") from None
    totals = verdict.report["totals"]
    if as_json:
        print_json({"holds": True, "origin": verdict.origin, "size": verdict.size,
                    "create_time": verdict.create_time, **verdict.report})  # fmt: skip
        return
    asked = ", ".join(f"{name} {text}" for name, text in verdict.report["selection"].items())
    say(f"the pack holds: {asked}")
    say(f"  {totals['customers']:,} customers, {totals['reads']:,} disclosures, each proved to be on record")
    say(f"  log {verdict.origin} of size {verdict.size:,}; packed {verdict.create_time}")
