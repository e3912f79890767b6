"""How commands reach a database or a broker.

Invariants:
- what is missing is named, as the option and the variable that would give it;
- without a target the sample company of `--dir` is meant, and only where `broker dev` made one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.errors import StartupError

if TYPE_CHECKING:
    import asyncpg

Folder = Annotated[
    Path,
    typer.Option(
        "--dir", envvar="BROKER_DEV_DIR", help="Folder of `broker dev`, used where no target is given."
    ),
]
Target = Annotated[
    str,
    typer.Option(
        "--target", envvar="BROKER_CLIENT_TARGET", help="host:port of the broker.", show_default=False
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", envvar="BROKER_CLIENT_CA_FILE", help="Authority of the broker, PEM."),
]
CertFile = Annotated[
    Path | None, typer.Option("--cert-file", envvar="BROKER_CLIENT_CERT_FILE", help="Our certificate, PEM.")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", envvar="BROKER_CLIENT_KEY_FILE", help="Its private key, PEM.")
]
USUAL_FOLDER = Path(".broker")


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is and as whom we call it."""

    target: str
    ca_file: Path
    cert_file: Path
    key_file: Path
    sample: Path | None  # folder of the sample company, where it is that one's


def broker_at(
    target: str,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    *,
    folder: Path,
    port: str,
    certificate: str,
) -> Broker:
    """Finds the broker that is meant.

    Args:
        target: from the command line; empty: the sample company's.
        ca_file: from the command line.
        cert_file: from the command line.
        key_file: from the command line.
        folder: of the sample company.
        port: `access` or `admin` there.
        certificate: whose is used there, as `tool-desk`.

    Raises:
        StartupError: something is missing; names it.
    """
    if not target:
        from broker.dev.layout import HOST, Layout

        layout = Layout.existing(folder)
        tls = layout.client_tls(certificate)
        return Broker(
            f"{HOST}:{layout.ports()[port]}",
            ca_file or tls.ca_file,
            cert_file or tls.cert_file,
            key_file or tls.key_file,
            sample=folder,
        )
    if ca_file is None or cert_file is None or key_file is None:
        given = {"--ca-file": ca_file, "--cert-file": cert_file, "--key-file": key_file}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise StartupError(f"--target needs {missing} too")
    return Broker(target, ca_file, cert_file, key_file, sample=None)


@asynccontextmanager
async def connected(dsn: str, name: str, *, seconds: float = 60.0) -> AsyncIterator[asyncpg.Connection]:
    """Opens one connection to a database, with the settings that pools have.

    Args:
        dsn: where and as whom.
        name: the setting that says so.
        seconds: longest statement, wait for a lock, and pause within a transaction.
    """
    import asyncpg

    from broker.database import CONNECT_TIMEOUT, check_dsn, session_settings, translated

    check_dsn(dsn, name)
    with translated():
        conn = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT,
            command_timeout=seconds + 1.0,
            server_settings=session_settings("broker command", seconds),
        )
    try:
        yield conn
    finally:
        await conn.close(timeout=CONNECT_TIMEOUT)
