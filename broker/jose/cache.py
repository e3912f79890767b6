"""What was verified once, by the digest of the token's text; expiry is never part of it.

Only the signature's check is remembered. Whoever uses an entry looks at the clock, and at whatever
else can change, each time; an entry whose key has gone is no entry.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from broker.jose.keyset import Key

T = TypeVar("T")

CAPACITY = 8192
"""Tokens remembered; at about 2 KiB each this bounds a worker's share to 16 MiB."""

MAX_TEXT = 16 * 1024
"""Longest text that is looked for; no token is longer, and hashing megabytes would be a way in."""


class VerifiedCache(Generic[T]):
    """A bounded map from token text to what verifying it gave; least recently used goes first.

    Not for use from several threads: it lives on the event loop.
    """

    def __init__(self, still_good: Callable[[Key, T], bool], capacity: int = CAPACITY) -> None:
        """Makes an empty cache.

        Args:
            still_good: asked on every use; says whether the key that signed is still in force.
            capacity: most entries.
        """
        self._still_good = still_good
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[Key, T]] = OrderedDict()

    def get(self, token: str) -> T | None:
        """Gives what was remembered, if the key that signed is still in force."""
        if len(token) > MAX_TEXT:
            return None
        digest = _digest(token)
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if not self._still_good(*entry):
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry[1]

    def put(self, token: str, key: Key, value: T) -> None:
        """Remembers what verifying a token gave."""
        self._entries[_digest(token)] = (key, value)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        """Counts the entries."""
        return len(self._entries)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
