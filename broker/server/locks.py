"""One lock file per port: with SO_REUSEPORT a second local process could quietly take half the calls.

The lock keeps two brokers of one `lock_dir` apart, also while neither listens yet; the look at the port
keeps us from joining whoever listens there under another lock, or none.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from broker.errors import StartupError


class PortLock:
    """Holds a port's lock for as long as this object's file is open; the kernel frees it if we die."""

    def __init__(self, folder: Path, port: int) -> None:
        """Takes the lock.

        Raises:
            StartupError: another broker holds it, or the folder cannot be used.
        """
        path = folder / f"port-{port}.lock"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartupError(f"lock_dir: {folder}: {exc.strerror}; set BROKER_LOCK_DIR") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise StartupError(f"port {port}: another broker serves on it") from None

    def release(self) -> None:
        """Frees the port."""
        os.close(self._fd)


def bind(host: str, port: int) -> socket.socket:
    """Binds a port that nobody listens on; what SO_REUSEPORT would let us share is taken, too.

    Raises:
        StartupError: somebody listens on it, or the host is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise StartupError(f"{host}:{port}: {exc.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that end are no listener
        bound.bind(address)
    except OSError as exc:
        bound.close()
        raise StartupError(f"port {port} on {host}: {exc.strerror}; is another process on it?") from None
    return bound
