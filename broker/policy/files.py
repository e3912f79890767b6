"""The five files of a policy as text: read once, bounded, named by one digest.

Invariants:
- all five or none; a policy that is half there cannot be expressed;
- no file is read beyond its cap, whatever its size on disk;
- what was checked is what is stored and loaded: everything later works on these strings, not on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from broker.errors import PolicyInvalidError

MODEL = "model.conf"
RULES = "policy.csv"
CATALOG = "catalog.yaml"
LIMITS = "limits.yaml"
ADMIN = "admin.csv"

MAX_BYTES: Mapping[str, int] = MappingProxyType(
    {
        ADMIN: 256 * 1024,
        CATALOG: 256 * 1024,
        LIMITS: 64 * 1024,
        MODEL: 16 * 1024,
        RULES: 2 * 1024 * 1024,  # 10,000 rules of 100 characters, and as much comment
    }
)
"""Most bytes per file; its keys are the names of the files that make a policy."""

_UNWANTED = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb]"
)
_UNWANTED_NAMES = {
    "\t": ("tab", "a tab; use spaces"),
    "\r": ("carriage-return", "a carriage return; save the file with LF line ends"),
    "\ufeff": ("byte-order-mark", "a byte order mark; save the file as UTF-8 without BOM"),
    "\0": ("nul", "a NUL byte"),
}


@dataclass(frozen=True)
class PolicyFiles:
    """The text of every file of one policy."""

    texts: Mapping[str, str]

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> PolicyFiles:
        """Reads the files of a directory; others beside them are left alone.

        Raises:
            PolicyInvalidError: a file is missing, not a regular file, too large or not UTF-8.
        """
        texts: dict[str, str] = {}
        found: list[str] = []
        for name in sorted(MAX_BYTES):
            try:
                texts[name] = read_capped(Path(path) / name, name, MAX_BYTES[name])
            except PolicyInvalidError as exc:
                found.extend(exc.findings)
        if found:
            raise PolicyInvalidError(found)
        return cls(MappingProxyType(texts))

    @classmethod
    def from_mapping(cls, texts: Mapping[str, str]) -> PolicyFiles:
        """Takes the files from a mapping of names to texts.

        Raises:
            PolicyInvalidError: a file is missing or unknown, or larger than its cap.
        """
        found = [
            f"{name}:1: the file is missing [file-missing]"
            for name in sorted(MAX_BYTES.keys() - texts.keys())
        ]
        found += [
            f"{name}:1: no such policy file [file-unknown]"
            for name in sorted(texts.keys() - MAX_BYTES.keys())
        ]
        for name in sorted(MAX_BYTES.keys() & texts.keys()):
            if len(texts[name].encode("utf-8", "surrogatepass")) > MAX_BYTES[name]:
                found.append(_too_large(name, MAX_BYTES[name]))
        if found:
            raise PolicyInvalidError(found)
        return cls(MappingProxyType(dict(texts)))

    @cached_property
    def digest(self) -> str:
        """Names the content: hex SHA-256 over names and texts, each with its length before it."""
        return digest_of(self.texts)


def digest_of(texts: Mapping[str, str]) -> str:
    """Gives the hex SHA-256 over names and texts, each with its length before it, in order of the names."""
    sha = hashlib.sha256()
    for name in sorted(texts):
        for part in (name.encode(), texts[name].encode("utf-8", "surrogatepass")):
            sha.update(len(part).to_bytes(8, "big"))
            sha.update(part)
    return sha.hexdigest()


def unwanted_character(line: str) -> tuple[str, str] | None:
    """Finds a character that looks like nothing or turns text around: its name and what to say.

    Such a character makes a rule read otherwise than it is decided, in a comment too.
    """
    if match := _UNWANTED.search(line):
        return _UNWANTED_NAMES.get(
            match.group(),
            ("invisible-character", f"the invisible character U+{ord(match.group()):04X}; remove it"),
        )
    return None


def read_capped(path: Path, name: str, cap: int) -> str:
    """Reads a text file of at most so many bytes, and never more of it.

    Raises:
        PolicyInvalidError: it is missing, not a regular file, too large or not UTF-8.
    """
    try:
        # O_NONBLOCK: a FIFO put here must not hold the start.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise PolicyInvalidError([f"{name}:1: cannot be read: {exc.strerror} [file-missing]"]) from exc
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise PolicyInvalidError([f"{name}:1: is not a regular file [file-irregular]"])
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(cap + 1)
    finally:
        os.close(handle)
    if len(data) > cap:
        raise PolicyInvalidError([_too_large(name, cap)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise PolicyInvalidError([f"{name}:{line}: is not UTF-8 [encoding]"]) from exc


def _too_large(name: str, cap: int) -> str:
    return f"{name}:1: is larger than {cap} bytes [too-large]"
