"""A file that is there whole or not at all, and never in the place of another."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Opens a file beside its place; it gets its name when it is whole and durable.

    Args:
        path: its place.
        mode: who may read it; its owner alone, where nothing is said.

    Raises:
        FileExistsError: there is one of that name, at the latest when this one is whole.
        OSError: it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path} is there already")
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
    ) as file:
        try:
            yield file
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)  # unlike a rename, never over a file that is there
        finally:
            Path(file.name).unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
