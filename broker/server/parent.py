"""The parent of `broker serve`: starts and watches the children, answers HTTP.

Invariants:
- grpc is never imported here, so a child is a fresh process and nothing of grpc crosses a fork;
- a port is locked before a child may bind it;
- a child that dies is started again; one that cannot be configured, or dies too often, ends us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import StartupError
from broker.keys import SigningKeys
from broker.server.locks import PortLock, bind
from broker.server.worker import EXIT_CONFIG
from broker.settings import SERVE_NEEDS, Settings
from broker.telemetry import forget_process

if TYPE_CHECKING:
    from uvicorn import Server

log = logging.getLogger(__name__)

MOST_DEATHS = 5
DEATH_WINDOW = 60.0
"""More deaths of a child in so many seconds end the broker: something is wrong that starting won't mend."""

NOT_FOR = {
    "access": (
        "admin_dsn",
        "feed_dsn",
        "owner_dsn",
        "records_owner_dsn",
        "auditor_dsn",
        "auditor_records_dsn",
        "tlog_keys_dir",
    ),
    "admin": ("dsn", "reader_dsn", "owner_dsn", "records_owner_dsn"),
}
"""Settings that a role is not given: credentials of others."""


@dataclass(slots=True)
class Child:
    """One child process; `why` is what keeps it from being ready."""

    role: str
    index: int
    process: asyncio.subprocess.Process | None = None
    why: str = "starting"
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_DEATHS))

    @property
    def name(self) -> str:
        """Names the child in log and readiness."""
        return f"{self.role}-{self.index}"


class Supervisor:
    """Runs the children."""

    def __init__(self, settings: Settings, metrics_dir: Path) -> None:
        """Takes the settings and the folder through which workers share their metrics."""
        self._settings = settings
        self._metrics_dir = metrics_dir
        self._children = [Child("access", index) for index in range(settings.workers)]
        self._children.append(Child("admin", 0))
        self._stopping = False
        self.failed: asyncio.Event = asyncio.Event()

    def not_ready(self) -> dict[str, str]:
        """Tells which children are not ready and why."""
        return {child.name: child.why for child in self._children if child.why}

    async def run(self) -> None:
        """Starts all children and keeps them going until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            for child in self._children:
                tasks.create_task(self._keep(child))

    async def stop(self, seconds: float) -> None:
        """Tells all children to drain, waits, and ends those that do not."""
        self._stopping = True
        running = [c.process for c in self._children if c.process and c.process.returncode is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        if not running:
            return
        _, late = await asyncio.wait({asyncio.create_task(p.wait()) for p in running}, timeout=seconds)
        if late:
            for process in running:
                if process.returncode is None:
                    process.kill()
            await asyncio.wait(late)

    async def _keep(self, child: Child) -> None:
        while not self._stopping:
            code = await self._run_once(child)
            if self._stopping:
                return
            if child.process is not None:
                forget_process(child.process.pid, self._metrics_dir)
            child.deaths.append(time.monotonic())
            often = len(child.deaths) == MOST_DEATHS and time.monotonic() - child.deaths[0] < DEATH_WINDOW
            log.error("child ended", extra={"reason": child.name, "code": code})
            if code == EXIT_CONFIG or often:
                self.failed.set()
                return
            child.why = "starting again"

    async def _run_once(self, child: Child) -> int:
        stripped = self._settings.model_copy(update=dict.fromkeys(NOT_FOR[child.role], ""))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BROKER_")}
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics_dir)
        environment.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes past our log
        process = child.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "broker.server.worker", child.role, str(child.index),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        if process.stdin is None or process.stdout is None:
            raise StartupError("a child has no pipes")
        # Left open: its end, whatever ends us, tells the child to go.
        process.stdin.write(stripped.model_dump_json().encode() + b"\n")
        async for line in process.stdout:
            with contextlib.suppress(ValueError, KeyError):
                child.why = str(json.loads(line)["why"])
        child.why = "ended"
        return await process.wait()


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; gives the exit code.

    Raises:
        StartupError: settings are missing, keys are wrong, a port is taken.
    """
    if "grpc" in sys.modules:
        raise StartupError("grpc was imported before the workers were started")
    missing = [name for name in SERVE_NEEDS if not getattr(settings, name)]
    if missing or settings.access is None or settings.admin is None or settings.keys_dir is None:
        raise StartupError(f"settings are missing: {', '.join(missing)}")
    keys = SigningKeys(settings.keys_dir, time.time)
    listeners = (settings.access, settings.admin)
    locks = [PortLock(settings.lock_dir, listener.port) for listener in listeners]
    for listener in listeners:
        bind(listener.host, listener.port).close()  # the children bind it themselves
    http = bind(settings.http_host, settings.http_port)
    metrics_dir = Path(tempfile.mkdtemp(prefix="broker-metrics-"))
    try:
        return asyncio.run(_serve(settings, keys, metrics_dir, http))
    finally:
        http.close()
        shutil.rmtree(metrics_dir, ignore_errors=True)
        for lock in locks:
            lock.release()


async def _serve(settings: Settings, keys: SigningKeys, metrics_dir: Path, bound: socket.socket) -> int:
    supervisor = Supervisor(settings, metrics_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    supervising = asyncio.create_task(supervisor.run())
    # The children are on their way before the HTTP stack is even loaded: a start is theirs to make.
    http = await asyncio.to_thread(_http, keys, metrics_dir, supervisor)
    tasks = {supervising, asyncio.create_task(http.serve(sockets=[bound]))}
    waits = {asyncio.create_task(stop.wait()), asyncio.create_task(supervisor.failed.wait())}
    await asyncio.wait(tasks | waits, return_when=asyncio.FIRST_COMPLETED)
    failed = not stop.is_set()
    await supervisor.stop(settings.drain_seconds + 5)
    http.should_exit = True
    for wait in waits:
        wait.cancel()
    await asyncio.wait(tasks, timeout=5)
    return 1 if failed else 0


def _http(keys: SigningKeys, metrics_dir: Path, supervisor: Supervisor) -> Server:
    from broker.server.http import application, server  # noqa: PLC0415 - see `_serve`

    return server(application(keys.jwks, metrics_dir, supervisor.not_ready))
