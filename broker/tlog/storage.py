"""Where tiles and checkpoints are published: a directory, or whatever keeps the same promises.

Invariants:
- a tile that is there is never replaced by another content: `put` refuses, whoever asks;
- the checkpoint is swapped: it is replaced only where it is what the writer believes it to be, so a
  sequencer that was overtaken cannot take it back;
- what `put` and `swap` returned from is durable, its name too.

Trust: whoever can write here can take the publication away or put nonsense there, which everybody sees who
holds the public key; he cannot forge a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

CHECKPOINT = "checkpoint"
"""Name of the newest checkpoint (C2SP tlog-tiles)."""

MOST_BYTES = 1 << 20
"""Longest object that is read; a tile has 8 kB."""

AT_ONCE = 16
"""Files that are written side by side."""

_LOCK = ".lock"


class StorageConflictError(Exception):
    """An object is there already, with other content; the message names it."""


class Storage(Protocol):
    """An object store; every failure to read or write is an OSError."""

    async def read(self, name: str) -> bytes | None:
        """Gives an object; None where there is none."""

    async def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Adds objects; each is durable once this returns. The same content again is fine.

        Raises:
            StorageConflictError: one is there with other content; earlier ones may have been added.
        """

    async def swap(self, name: str, data: bytes, *, replaces: bytes | None) -> bool:
        """Replaces an object where it is `replaces` (None: where it is not there); tells whether."""

    async def forget(self, prefix: str) -> None:
        """Removes what lies below a name; unfinished tiles are the only things that are ever removed."""


class Directory:
    """A directory, to be served by any web server; `broker serve` runs on one machine or a shared disk."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder; it is made by the first write."""
        self.folder = folder

    async def read(self, name: str) -> bytes | None:
        """Gives a file's bytes."""
        return await asyncio.to_thread(_read, self.folder / name)

    async def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Adds files, side by side: the disk syncs several for the price of one."""
        changed: set[Path] = set()
        for start in range(0, len(objects), AT_ONCE):
            puts = (asyncio.to_thread(self._put, *each) for each in objects[start : start + AT_ONCE])
            for folders in await asyncio.gather(*puts):
                changed |= folders
        await asyncio.gather(*(asyncio.to_thread(_sync, folder) for folder in changed))

    async def swap(self, name: str, data: bytes, *, replaces: bytes | None) -> bool:
        """Replaces a file, under a lock that a crash frees."""
        return await asyncio.to_thread(self._swap, name, data, replaces)

    async def forget(self, prefix: str) -> None:
        """Removes a folder."""
        await asyncio.to_thread(shutil.rmtree, self.folder / prefix, ignore_errors=True)

    def _put(self, name: str, data: bytes) -> set[Path]:
        """Adds a file; gives the folders whose names changed and are not durable yet."""
        path = self.folder / name
        # All of them, also where nothing was made now: an earlier try may have made them and failed then.
        changed = {*_make(path.parent)}
        changed |= {each for each in path.parents if each.is_relative_to(self.folder)}
        with _written(path.parent, data) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                if _read(path) != data:
                    raise StorageConflictError(f"{name} is there with other content") from None
        return changed

    def _swap(self, name: str, data: bytes, replaces: bytes | None) -> bool:
        made = _make(self.folder)
        path = self.folder / name
        with _locked(self.folder), _written(self.folder, data) as temporary:
            if _read(path) != replaces:
                return False
            temporary.replace(path)
        for folder in (*made, self.folder):
            _sync(folder)
        return True


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _make(folder: Path) -> list[Path]:
    """Makes a folder that is missing, readable by everybody; gives the folders that hold a new name."""
    changed = []
    while not folder.is_dir():
        changed.append(folder)
        folder = folder.parent
    for missing in reversed(changed):
        missing.mkdir(mode=0o755, exist_ok=True)
    return [each.parent for each in changed]


@contextlib.contextmanager
def _written(folder: Path, data: bytes) -> Iterator[Path]:
    """Gives a file with the data, durable and readable by everybody; what is left of it is removed."""
    temporary = folder / f".new-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
