"""A TCP proxy on threads that can hold what it is given, be down, and come back on the same port."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Between:
    """Forwards until it is told otherwise."""

    def __init__(self, target: int) -> None:
        """Takes the port that it stands before."""
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._links: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.held = threading.Event()
        """Set once something was held back."""

    def up(self) -> None:
        """Listens, on the port of before where there was one."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Refuses connections and cuts those that are."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._links.clear()

    def hold(self) -> None:
        """Lets nothing through until `let_go`."""
        self.held.clear()
        self._open.clear()

    def let_go(self) -> None:
        """Lets everything through, what was held first."""
        self._open.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._links += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self._open.is_set():
                    self.held.set()
                    self._open.wait()
                other.sendall(data)


@contextlib.contextmanager
def between(target: int) -> Iterator[Between]:
    """Runs one before a port."""
    proxy = Between(target)
    proxy.up()
    try:
        yield proxy
    finally:
        proxy.let_go()
        proxy.down()
