"""What the verbs of `broker audit` share: keys, the published log, and the auditor's own event."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.output import say
from broker.errors import StartupError
from broker.settings import Settings

if TYPE_CHECKING:
    import asyncpg

    from broker.keys import LogKeyFolder
    from broker.note import VerifierKey
    from broker.tlog import Directory

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        envvar="BROKER_LOG_KEY",
        help="The log's public key, or a file with it, as `broker audit key` writes it.",
        show_default=False,
    ),
]
Witnesses = Annotated[
    list[str] | None,
    typer.Option("--witness", help="A witness's public key, or a file with it.", show_default=False),
]


def read_keys(texts: Sequence[str] | None) -> list[VerifierKey]:
    """Reads public keys, or the files with them.

    Raises:
        StartupError: one is no key.
    """
    from broker.note import NoteInvalidError, VerifierKey

    found = []
    for text in texts or ():
        path = Path(text)
        try:
            content = path.read_text("utf-8") if "+" not in text or path.is_file() else text
            found += [VerifierKey.parse(line) for line in content.splitlines() if line.strip()]
        except OSError as exc:
            raise StartupError(
                f"{text[:60]}: neither a public key nor a file with one ({exc.strerror}); "
                "`broker audit key --out log.pub` writes one"
            ) from None
        except (UnicodeDecodeError, NoteInvalidError) as exc:
            raise StartupError(f"{text[:60]}: not a public key: {exc}") from None
    return found


def read_witnesses(texts: Sequence[str] | None) -> list[VerifierKey]:
    """Reads witnesses' public keys, or the files with them.

    Raises:
        StartupError: one is no key, or not a witness's.
    """
    from broker.note import COSIGNATURE

    found = read_keys(texts)
    if others := [key.name for key in found if key.algorithm != COSIGNATURE]:
        raise StartupError(f"--witness: the key of {others[0]} is not a witness's, but a log's")
    return found


def anchors(texts: Sequence[str] | None, settings: Settings) -> list[VerifierKey]:
    """Gives the keys to trust: those of the command line, else this broker's own.

    Raises:
        StartupError: there are none.
    """
    if found := read_keys(texts):
        return found
    if settings.tlog_keys_dir is None:
        raise StartupError("give the log's public key: --key, or BROKER_LOG_KEY")
    return [log_keys(settings).load().keys[0]]


def log_keys(settings: Settings) -> LogKeyFolder:
    """Opens the folder of the log's keys."""
    from broker.keys import LogKeyFolder

    if settings.tlog_keys_dir is None:
        raise StartupError("settings are missing: BROKER_TLOG_KEYS_DIR")
    return LogKeyFolder(settings.tlog_keys_dir, settings.log_origin)


def storage(settings: Settings) -> Directory:
    """Opens what is published."""
    from broker.tlog import Directory

    if settings.tlog_dir is None:
        raise StartupError("settings are missing: BROKER_TLOG_DIR")
    return Directory(settings.tlog_dir)


def published(settings: Settings) -> Directory:
    """Opens what is published, to read it.

    Raises:
        StartupError: there is no such folder: that is a setting, not a log that lacks something.
    """
    found = storage(settings)
    if not found.folder.is_dir():
        raise StartupError(f"BROKER_TLOG_DIR: {found.folder} is not a folder")
    return found


@asynccontextmanager
async def auditor(
    settings: Settings, query: str, detail: dict[str, Any], *, seconds: float = 60.0
) -> AsyncIterator[asyncpg.Connection]:
    """Opens a connection as broker_auditor once the query is on record: the auditors are audited, too.

    While appends are stopped nothing can be put on record; looking must be possible all the same, because it
    is what finds out why.

    Args:
        settings: where.
        query: which command.
        detail: its parameters; no personal data.
        seconds: longest statement, and longest pause between two of one transaction.

    Raises:
        DatabaseUnavailableError: the database does not answer, or not in time.
    """
    from broker.cli.connections import connected
    from broker.database import queries, translated
    from broker.ledger import AUDITOR_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events

    async with connected(settings.auditor_dsn, "BROKER_AUDITOR_DSN", seconds=seconds) as conn:
        with translated():
            if await conn.fetchval(queries("tlog").stopped):
                say("appends are stopped, so this look is not on record")
            else:
                event = Event(
                    id=EventIds().new(),
                    kind=EventKind.AUDITOR_QUERY,
                    outcome="done",
                    trace_id=NO_TRACE,
                    tool=who(),
                    detail={"query": query, **detail},
                )
                await append_events(conn, [event], door=AUDITOR_DOOR)
        yield conn


def who() -> str:
    """Names the caller as the ledger does."""
    return f"os:{getpass.getuser()}"
