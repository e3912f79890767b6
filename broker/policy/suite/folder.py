"""The test files of a policy folder, `<folder>/tests/*.yaml`: read once, bounded in number and size."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from broker.errors import PolicyInvalidError
from broker.policy.files import read_capped

FOLDER = "tests"
"""Where tests lie, beside the files of the policy."""

MAX_FILES = 50
"""Most test files."""

MAX_TEST_BYTES = 128 * 1024
"""Most bytes of one: some 500 tests."""

MAX_ENTRIES = 1000
"""Most entries of the folder that are looked at, whatever they are."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}\.yaml")


def read_test_files(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """Reads the test files of a policy folder; a folder without tests has none.

    Args:
        path: of the policy folder.

    Returns:
        The texts by name, `tests/<file>.yaml`.

    Raises:
        PolicyInvalidError: too many, too large, not a regular file, not UTF-8, or of a strange name.
    """
    try:
        with os.scandir(Path(path) / FOLDER) as entries:
            names = sorted(entry.name for entry in islice(entries, MAX_ENTRIES + 1))
    except FileNotFoundError:
        return MappingProxyType({})
    except OSError as exc:
        raise PolicyInvalidError([f"{FOLDER}:1: cannot be read: {exc.strerror} [file-missing]"]) from exc
    wanted = [name for name in names if name.casefold().endswith((".yaml", ".yml"))]
    if len(names) > MAX_ENTRIES or len(wanted) > MAX_FILES:
        raise PolicyInvalidError([f"{FOLDER}:1: more than {MAX_FILES} test files [too-many]"])
    texts: dict[str, str] = {}
    found: list[str] = []
    for name in wanted:
        if not _NAME.fullmatch(name):
            found.append(f"{FOLDER}:1: {name[:80]!r} is no name of a test file (<word>.yaml) [file-unknown]")
            continue
        try:
            full = f"{FOLDER}/{name}"
            texts[full] = read_capped(Path(path) / FOLDER / name, full, MAX_TEST_BYTES)
        except PolicyInvalidError as exc:
            found.extend(exc.findings)
    if found:
        raise PolicyInvalidError(found)
    return MappingProxyType(texts)
