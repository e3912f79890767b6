"""A `broker serve` as a process of its own, as operators run it.

Invariants:
- only the process that was started here is ever signalled;
- its log is a file; what it says is shown when it does not come up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from broker.dev.layout import process_environment
from broker.errors import StartupError

READY_TIMEOUT = 30.0
"""Seconds until the first answer; it takes one or two."""

STOP_TIMEOUT = 20.0
"""Seconds for draining; the settings give calls under way ten."""

POLL = 0.03
LOG_LINES = 15


class ServeProcess:
    """One `broker serve`: the parent and, below it, its workers."""

    def __init__(
        self,
        settings_file: Path,
        log: Path,
        *,
        http: tuple[str, int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what it reads and where it writes.

        Args:
            settings_file: named by BROKER_CONFIG.
            log: its output is added here.
            http: host and port of readiness, metrics and keys.
            environment: further variables, as BROKER_WORKERS.
        """
        self.log = log
        self._settings_file = settings_file
        self._http = http
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Gives the parent's process id."""
        if self._process is None:
            raise StartupError("broker serve was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Gives how it ended; None while it runs, or before it was started."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Starts it; `wait_until` says when it answers."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "broker",
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=process_environment(self._settings_file, self._environment),
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
            )

    async def wait_until(self, path: str = "/readyz", *, timeout: float = READY_TIMEOUT) -> None:  # noqa: ASYNC109
        """Waits until a path answers 200.

        Raises:
            StartupError: it ended, or it took too long; shows the end of its log.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while await self.status(path) != 200:  # noqa: PLR2004 - HTTP's OK
            if self.returncode is not None:
                raise StartupError(f"broker serve ended with {self.returncode}:\n{self.last_words()}")
            if loop.time() > end:
                raise StartupError(f"broker serve is not ready after {timeout:.0f} s:\n{self.last_words()}")
            await asyncio.sleep(POLL)

    async def status(self, path: str) -> int:
        """Asks over HTTP; 0 where nobody answers."""
        try:
            return (await self.get(path))[0]
        except (OSError, ValueError, IndexError, TimeoutError):
            return 0

    async def get(self, path: str) -> tuple[int, str]:
        """Asks over HTTP; gives status and body."""
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(*self._http)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {self._http[0]}\r\n\r\n".encode())
                await writer.drain()
                answer = await reader.read()
            finally:
                writer.close()
        head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
        return int(head.split()[1]), body

    def last_words(self) -> str:
        """Gives the last lines of its log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])

    async def wait(self) -> int:
        """Waits until it has ended; gives the exit code."""
        return 0 if self._process is None else await self._process.wait()

    async def stop(self) -> int:
        """Ends it as an operator would, with SIGTERM; gives the exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()
        return self._process.returncode or 0

    async def kill(self) -> None:
        """Ends the parent as a crash would; its workers notice by themselves."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
