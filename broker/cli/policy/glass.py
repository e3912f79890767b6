"""`broker policy break-glass`: for a company that has locked itself out."""

from __future__ import annotations

import asyncio
import getpass
import time
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, progress, say
from broker.cli.policy.options import Directory, Json, Reason
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.policy.bundle import Bundle


def break_glass(
    directory: Directory,
    reason: Reason,
    despite_refusals: Annotated[
        bool,
        typer.Option("--despite-refusals", help="Even what the examination refuses, if brokers can load it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a folder into force without persons, as the owner of the broker's database.

    For a company whose admin.csv lets nobody in any more, and for the first start of a release that signs
    versions. Takes the owner's DSN and the signing keys (BROKER_OWNER_DSN, BROKER_KEYS_DIR, BROKER_ISSUER),
    which no running process has together. The ledger says that the glass was broken, by whom and why.

    The folder is examined like a proposal: findings, its tests, those of the incident, the installed guard
    where a worker has looked at it. The version in force is not compared with, and its tests are not run.

    \b
    Example:
      broker policy break-glass policies --reason "INC-9: nobody can approve"
    """
    from broker.policy.bundle import Bundle

    settings = read_settings("owner_dsn", "keys_dir", "issuer")
    bundle = Bundle.from_directory(directory)
    with progress("Examining and publishing"):
        version, refusals = asyncio.run(_publish(settings, bundle, reason, despite_refusals=despite_refusals))
    if as_json:
        print_json({"version": str(version), "digest": bundle.digest, "refusals": refusals})
    else:
        for refusal in refusals:
            say(f"despite: {refusal}")
        say(f"version {version} is in force; the ledger has it as a broken glass")


async def _publish(
    settings: Settings, bundle: Bundle, reason: str, *, despite_refusals: bool
) -> tuple[int, list[str]]:
    from broker.database import open_pool
    from broker.errors import StartupError
    from broker.keys import SigningKeys
    from broker.ledger import EventIds
    from broker.publishing import Founding
    from broker.rpc.admin import METHOD_NAMES

    if settings.keys_dir is None:
        raise StartupError("settings are missing: keys_dir")
    keys = SigningKeys(settings.keys_dir, time.time)
    pool = await open_pool(settings.owner_dsn, name="broker policy break-glass", max_size=1)
    try:
        founding = Founding(
            pool=pool, ids=EventIds(), keys=keys, issuer=settings.issuer, clock=time.time,
            methods=[f"/{name}" for name in METHOD_NAMES],
        )  # fmt: skip
        by = f"broker policy break-glass by {getpass.getuser()}"
        return await founding.break_glass(bundle, by=by, reason=reason, despite_refusals=despite_refusals)
    finally:
        await pool.close()
