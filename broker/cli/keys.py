"""`broker keys`: the keys that sign grants and receipts, the guard's keys and the log's."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.groups import VerbGroup
from broker.cli.output import print_json, print_table, progress, say
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.keys import KeyFolder, LogKeyFolder

app = typer.Typer(
    cls=VerbGroup,
    help="Rotate and list the keys of grants, guard and log.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Guard = Annotated[
    bool, typer.Option("--guard", help="The guard's keys in both databases, not the signing keys.")
]

LogFlag = Annotated[bool, typer.Option("--log", help="The transparency log's keys, not the signing keys.")]


@app.command()
def rotate(
    guard: Guard = False,
    log: LogFlag = False,
    now: Annotated[
        bool, typer.Option("--now", help="Sign with it at once; only for the very first key.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the next key; nothing that runs has to be restarted.

    A signing key is published first and signs ten minutes later; the one before verifies until all it
    signed has ended. A guard key signs at once (BROKER_OWNER_DSN, BROKER_RECORDS_OWNER_DSN). A log key
    signs from the next checkpoint on, handed over by a record that both keys sign.

    \b
    Example:
      broker keys rotate --now        # the first key
      broker keys rotate              # every month
      broker keys rotate --guard
      broker keys rotate --log --now  # the log's first key
    """
    answer: dict[str, Any]
    if guard and log:
        raise typer.BadParameter("--guard and --log are different keys")
    if log:
        answer = _rotate_log(read_settings("tlog_keys_dir"), first=now)
    elif guard:
        with progress("Rotating the guard key"):
            key_id = asyncio.run(_rotate_guard(read_settings("owner_dsn", "records_owner_dsn")))
        answer = {"key_id": key_id, "kind": "guard", "sign_time": datetime.now(UTC)}
    else:
        key = _folder(read_settings("keys_dir")).rotate(time.time(), immediately=now)
        answer = {
            "key_id": key.kid,
            "kind": "signing",
            "sign_time": datetime.fromtimestamp(key.sign_time, UTC),
        }
    if as_json:
        print_json(answer)
    elif log:
        say(f"log key {answer['key']} signs from the next checkpoint on")
        say("  auditors verify with the first one: broker audit key --out log.pub")
    else:
        say(f"{answer['kind']} key {answer['key_id']} signs from {answer['sign_time']:%Y-%m-%d %H:%M:%S} UTC")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `broker keys list` shows it.")],
    as_json: Json = False,
) -> None:
    """End a stolen signing key at once, with every grant and receipt that it signed.

    \b
    Example:
      broker keys revoke 7mJ0…
    """
    key = _folder(read_settings("keys_dir")).revoke(key_id, time.time())
    if as_json:
        print_json({"revoked": key_id, "key_id": key.kid})
    else:
        say(f"{key_id} is gone; {key.kid} signs now")


@app.command("list")
def list_keys(guard: Guard = False, log: LogFlag = False, as_json: Json = False) -> None:
    """List keys with their state, never their secrets.

    As JSON with the public half of every signing key there ever was: old receipts verify with those of keys
    that are gone and published no more.

    \b
    Example:
      broker keys list
      broker keys list --json | jq '{keys: map(.public)}' > all.jwks
      broker keys list --guard --json
      broker keys list --log          # `broker audit key` writes the one that auditors verify with
    """
    from broker.keys import published

    rows: list[dict[str, Any]]
    if log:
        rows = _list_log(read_settings("tlog_keys_dir"))
    elif guard:
        rows = asyncio.run(_list_guard(read_settings("records_owner_dsn")))
    else:
        rows = [
            {
                "key_id": key.kid,
                "state": key.state.value,
                "create_time": datetime.fromtimestamp(key.create_time, UTC),
                "sign_time": datetime.fromtimestamp(key.sign_time, UTC),
                "gone_time": None if key.gone_time is None else datetime.fromtimestamp(key.gone_time, UTC),
                **({"public": published(key)} if as_json else {}),
            }
            for key in _folder(read_settings("keys_dir")).list(time.time())
        ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(tuple(name.replace("_", " ") for name in rows[0]), (row.values() for row in rows))
    else:
        say("no keys yet; make the first one: broker keys rotate --now")


def _folder(settings: Settings) -> KeyFolder:
    from broker.errors import StartupError
    from broker.keys import KeyFolder

    if settings.keys_dir is None:
        raise StartupError("settings are missing: BROKER_KEYS_DIR")
    return KeyFolder(settings.keys_dir)


def _log_folder(settings: Settings) -> LogKeyFolder:
    from broker.errors import StartupError
    from broker.keys import LogKeyFolder

    if settings.tlog_keys_dir is None:
        raise StartupError("settings are missing: BROKER_TLOG_KEYS_DIR")
    return LogKeyFolder(settings.tlog_keys_dir, settings.log_origin)


def _rotate_log(settings: Settings, *, first: bool) -> dict[str, Any]:
    folder = _log_folder(settings)
    key = folder.create() if first else folder.rotate()
    return {"key_id": key.key_id.hex(), "kind": "log", "key": str(key)}


def _list_log(settings: Settings) -> list[dict[str, Any]]:
    keys = _log_folder(settings).load()
    return [
        {
            "key_id": key.key_id.hex(),
            "state": "waiting" if key == keys.waiting else "signing" if key == keys.active else "gone",
            "key": str(key),
        }
        for key in keys.keys
    ]


async def _rotate_guard(settings: Settings) -> str:
    from broker.cli.connections import connected
    from broker.records import rotate_guard_key

    async with (
        connected(settings.owner_dsn, "BROKER_OWNER_DSN") as owner,
        connected(settings.records_owner_dsn, "BROKER_RECORDS_OWNER_DSN") as records,
    ):
        return await rotate_guard_key(owner, records)


async def _list_guard(settings: Settings) -> list[dict[str, Any]]:
    from broker.cli.connections import connected
    from broker.records import list_guard_keys

    async with connected(settings.records_owner_dsn, "BROKER_RECORDS_OWNER_DSN") as conn:
        return [
            {
                "key_id": key.key_id,
                "state": "signing" if key.verify_until is None else "retiring",
                "create_time": key.create_time,
                "gone_time": key.verify_until,
            }
            for key in await list_guard_keys(conn)
        ]
