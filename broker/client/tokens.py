"""Where the agent's OIDC access token comes from.

Invariants:
- a token is never an argument of a command line and never written anywhere by the client;
- a command is run without a shell.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
import shlex
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from broker.client.errors import TokenSourceError

TokenSource = Callable[[], str | Awaitable[str]]
"""Gives the token of the agent at the keyboard, now; called for every call, so it may change."""

COMMAND_TIMEOUT = 30.0
"""Seconds a token command may take; it may ask a person to log in."""

RENEW_BEFORE = 30.0
"""Seconds before its end at which a command's token is got anew."""


def token_file(path: Path | str) -> TokenSource:
    """Reads the token from a file, again for every call: whoever renews it just writes the file."""

    def read() -> str:
        try:
            token = Path(path).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise TokenSourceError(f"token file {str(path)!r} cannot be read") from None
        if not token:
            raise TokenSourceError(f"token file {str(path)!r} is empty")
        return token

    return read


def token_command(command: str, *, clock: Callable[[], float] = time.time) -> TokenSource:
    """Runs a command that prints the token, and runs it again shortly before the token ends.

    Args:
        command: split as a shell would, run without one.
        clock: POSIX seconds.
    """
    try:
        argv = shlex.split(command)
    except ValueError:
        argv = []
    if not argv:
        raise TokenSourceError("the token command is empty or has an open quote")
    kept: list[tuple[str, float]] = []

    async def run() -> str:
        if kept and clock() < kept[0][1] - RENEW_BEFORE:
            return kept[0][0]
        token = await _output(argv)
        kept[:] = [(token, claims(token).expire_time)]
        return token

    return run


async def _output(argv: list[str]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError:
        raise TokenSourceError(f"token command {argv[0]!r} cannot be run") from None
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        raise TokenSourceError(
            f"token command {argv[0]!r} took longer than {COMMAND_TIMEOUT:.0f} s"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    token = output.decode("ascii", "replace").strip()
    if process.returncode or not token:
        raise TokenSourceError(
            f"token command {argv[0]!r} ended with {process.returncode} or printed nothing"
        )
    return token


async def token_of(source: TokenSource) -> str:
    """Asks a source for its token."""
    token = source()
    return await token if inspect.isawaitable(token) else token


class TokenClaims:
    """What the client itself reads of a token, unverified: whose it is and when it ends.

    Only to tell one agent's cached grants from another's; the broker verifies.
    """

    def __init__(self, agent: str, expire_time: float) -> None:
        """Takes `issuer|subject` and POSIX seconds."""
        self.agent = agent
        self.expire_time = expire_time


def claims(token: str) -> TokenClaims:
    """Reads a token without verifying it; an unreadable one is its own agent and already over."""
    try:
        payload = token.split(".")[1]
        body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return TokenClaims(f"{body['iss']}|{body['sub']}", float(body.get("exp", 0)))
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return TokenClaims(token, 0.0)
