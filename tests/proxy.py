"""A TCP proxy before a database's socket file, which can lose answers, lose questions and fall silent.

A server of its own, not a patch: what stands behind it speaks to a network that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    asking: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: questions are held
    answering: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: answers are held

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Forwards until it is told otherwise; what it is told holds for the connections of that moment."""

    def __init__(self, socket_file: Path) -> None:
        """Takes the database's socket file."""
        self._socket_file = socket_file
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._marker: bytes | None = None
        self.held = asyncio.Event()
        """Set once an answer was held back."""

    @property
    def port(self) -> int:
        """Gives the port that it listens on."""
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    def dsn(self, direct: str) -> str:
        """Gives a DSN through the proxy for one that names the socket file's folder."""
        parts = urlsplit(direct)
        user, password = quote(unquote(parts.username or "")), quote(unquote(parts.password or ""))
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}{parts.path}"

    def hold_answers(self, marker: bytes = b"") -> None:
        """Loses answers from now on; with a marker, from the question that contains it on."""
        self.held.clear()
        self._marker = marker or None
        if not marker:
            for link in self._links:
                link.answering.clear()

    def freeze(self) -> None:
        """Leaves all connections half open: nothing comes through, nobody is told."""
        for link in self._links:
            link.asking.clear()
            link.answering.clear()

    def hold_questions(self) -> None:
        """Lets no more questions through."""
        for link in self._links:
            link.asking.clear()

    def thaw(self) -> None:
        """Lets everything through again, what was held first."""
        self._marker = None
        for link in self._links:
            link.asking.set()
            link.answering.set()

    def cut(self, *, held: bool = False) -> None:
        """Cuts all connections, or those alone that hold something back."""
        self._marker = None
        for link in list(self._links):
            if not held or not (link.asking.is_set() and link.answering.is_set()):
                link.cut()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self._socket_file))
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server_writer)
        link.asking.set()
        link.answering.set()
        self._links.add(link)

        def questioned(data: bytes) -> None:
            if self._marker is not None and self._marker in data:
                link.answering.clear()

        def answered(_: bytes) -> None:
            if not link.answering.is_set():
                self.held.set()

        pumps = [
            asyncio.create_task(_pump(reader, server_writer, link.asking, questioned)),
            asyncio.create_task(_pump(server_reader, writer, link.answering, answered)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            link.cut()
            self._links.discard(link)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    gate: asyncio.Event,
    saw: Callable[[bytes], None],
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            saw(data)
            await gate.wait()
            writer.write(data)
            await writer.drain()


def socket_file(dsn: str) -> Path:
    """Gives the socket file that a DSN of the embedded server names."""
    query = parse_qs(urlsplit(dsn).query)
    return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
