"""Entry of a child of `broker serve`: settings on stdin, status lines on stdout, log on stderr.

Invariants:
- stdin stays open for as long as the parent lives; its end is SIGTERM, so no worker outlives the parent
  that holds the port's lock and knows the settings of now.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from broker.errors import StartupError
from broker.settings import Settings
from broker.telemetry import set_up_logging

EXIT_CONFIG = 78
"""EX_CONFIG: starting again would not help."""

Report = Callable[[str], None]
"""Tells the parent why this process is not ready; "" means that it is."""

Body = Callable[[Settings, Report, asyncio.Event], Awaitable[None]]


def report(why: str) -> None:
    """Writes one status line to the parent; without one, nobody is told."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"why": why}) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Runs the role named on the command line until SIGTERM."""
    role = sys.argv[1]
    settings = Settings.model_validate(json.loads(sys.stdin.buffer.readline()))
    set_up_logging()
    body = _body(role)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        def orphaned() -> None:  # nothing more is ever written to stdin: what can be read is its end
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

        loop.add_reader(sys.stdin.fileno(), orphaned)
        gc.collect()
        gc.freeze()  # what was imported stays; looking at it again would only cost pauses
        await body(settings, report, stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except StartupError as exc:
        report(str(exc))
        sys.stderr.write(f"broker: {role}: {exc}\n")
        return EXIT_CONFIG
    return 0


def _body(role: str) -> Body:
    if role == "access":
        from broker.server.access import run as run_access  # noqa: PLC0415 - a role loads what it needs

        return run_access
    if role == "admin":
        from broker.server.admin import run as run_admin  # noqa: PLC0415

        return run_admin
    raise StartupError(f"there is no role {role!r}")


if __name__ == "__main__":
    sys.exit(main())
