"""What is proposed, approved and published together: the five files of a policy, and its tests.

Invariants:
- tests are read once, bounded, and named by a digest of their own: replacing them is part of what is
  approved;
- a test file's name is a plain word, so that it is nobody's path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType

from broker.errors import PolicyInvalidError
from broker.policy.files import PolicyFiles, digest_of
from broker.policy.suite.folder import MAX_FILES, read_test_files

MAX_TESTS_BYTES = 768 * 1024
"""Most bytes of all tests: files and tests fit one message of the admin port."""

_NAME = re.compile(r"tests/[a-z0-9][a-z0-9_-]{0,59}\.yaml")


@dataclass(frozen=True)
class Bundle:
    """A policy with its tests."""

    files: PolicyFiles
    tests: Mapping[str, str]  # `tests/<file>.yaml` -> text

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Bundle:
        """Reads a folder of policy files and the `tests/*.yaml` in it.

        Raises:
            PolicyInvalidError: with everything that is wrong.
        """
        return cls.of(PolicyFiles.from_directory(path), read_test_files(path))

    @classmethod
    def of(cls, files: PolicyFiles, tests: Mapping[str, str]) -> Bundle:
        """Takes files and the texts of the tests by file name.

        Raises:
            PolicyInvalidError: a name that is none, too many, or too large.
        """
        found = [
            "tests:1: a file name that is none [file-unknown]" for name in tests if not _NAME.fullmatch(name)
        ]
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in tests.values())
        if len(tests) > MAX_FILES or size > MAX_TESTS_BYTES:
            found.append(f"tests:1: more than {MAX_FILES} files or {MAX_TESTS_BYTES} bytes [too-large]")
        if found:
            raise PolicyInvalidError(found)
        return cls(files, MappingProxyType(dict(sorted(tests.items()))))

    @cached_property
    def tests_digest(self) -> str:
        """Names the tests' content, as `PolicyFiles.digest` names the files'."""
        return digest_of(self.tests)

    @cached_property
    def file_digests(self) -> Mapping[str, str]:
        """Gives the hex SHA-256 of each file and test, by name."""
        texts = {**self.files.texts, **self.tests}
        return {
            name: sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for name, text in texts.items()
        }

    @cached_property
    def digest(self) -> str:
        """Names the whole: what an approver approves."""
        return digest_of({"files": self.files.digest, "tests": self.tests_digest})
