"""One lock file per port: with SO_REUSEPORT a second local process could quietly take half the calls."""

from __future__ import annotations

import fcntl
import os
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
