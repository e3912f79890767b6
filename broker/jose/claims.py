"""Claims of a verified token, read by exact type: nothing is coerced, nothing has a default.

Invariants:
- a name is absent or has exactly the type asked for; null is neither;
- text is never blank and holds no control character; an instant is an int, never a bool, float or text;
- expiry has no leeway; only "not yet" has, for another machine's clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from broker.errors import TokenInvalidError
from broker.jose.strictjson import Json

CLOCK_SKEW = 10.0
"""Seconds by which the clock of whoever signed may be ahead of ours (`iat`, `nbf`)."""

MAX_TEXT = 512
"""Longest text claim in characters; a subject is at most 255 (OpenID Connect Core, 2)."""

MAX_LIST = 512
"""Most entries of a list; 8 KiB of token hold no more that mean anything."""

MAX_INSTANT = 253_402_300_799
"""The last second of the year 9999, which is the last that PostgreSQL and datetime agree on."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Claims(Mapping[str, Json]):
    """The claims of one token; as a mapping it gives them raw, by method it gives them checked."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Json]) -> None:
        """Holds the members of the token's payload."""
        self._members = members

    def __getitem__(self, name: str) -> Json:
        """Gives a claim as it stands."""
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        """Goes over the names."""
        return iter(self._members)

    def __len__(self) -> int:
        """Counts the claims."""
        return len(self._members)

    def text(self, name: str, *, max_length: int = MAX_TEXT) -> str:
        """Gives a claim that must be a non-blank string."""
        return _text(self._required(name), name, max_length)

    def optional_text(self, name: str, *, max_length: int = MAX_TEXT) -> str | None:
        """Gives a claim that is absent or a non-blank string."""
        return self.text(name, max_length=max_length) if name in self._members else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Gives a claim that must be a list of non-blank strings."""
        value = self._required(name)
        if not isinstance(value, list) or len(value) > MAX_LIST:
            raise TokenInvalidError(cause=f"claim {name} is not a list of texts")
        return tuple(_text(item, name, MAX_TEXT) for item in value)

    def optional_texts(self, name: str) -> tuple[str, ...]:
        """Gives a claim that is absent (no entries) or a list of non-blank strings."""
        return self.texts(name) if name in self._members else ()

    def members(self, name: str) -> Claims:
        """Gives a claim that must be an object, as claims of its own."""
        value = self._required(name)
        if not isinstance(value, dict):
            raise TokenInvalidError(cause=f"claim {name} is not an object")
        return Claims(value)

    def integer(self, name: str, *, most: int = 2**53) -> int:
        """Gives a claim that must be an integer from 0 to `most`."""
        value = self._required(name)
        if type(value) is not int or not 0 <= value <= most:
            raise TokenInvalidError(cause=f"claim {name} is not an integer in range")
        return value

    def instant(self, name: str) -> int:
        """Gives a claim that must be a time in whole POSIX seconds."""
        return self.integer(name, most=MAX_INSTANT)

    def check_exactly(self, names: Collection[str], *, optional: Collection[str] = ()) -> None:
        """Refuses a missing name, or one beyond those listed; for tokens whose form is our own."""
        present = set(self._members)
        if not set(names) <= present <= {*names, *optional}:
            raise TokenInvalidError(cause="claims are missing or unknown")

    def check_issuer(self, issuer: str) -> None:
        """Refuses any other `iss`; equal means equal, no prefix and no trailing slash."""
        if self.text("iss") != issuer:
            raise TokenInvalidError(cause="iss is not accepted")

    def check_audience(self, audience: str, *, listed: bool = False) -> None:
        """Refuses a token for another audience.

        Args:
            audience: the exact `aud`.
            listed: whether a list that holds it is accepted; else a string or a list of it alone.
        """
        value = self._required("aud")
        found = self.texts("aud") if isinstance(value, list) else (self.text("aud"),)
        if audience not in found or (len(found) > 1 and not listed):
            raise TokenInvalidError(cause="aud is not accepted")

    def check_times(self, now: float, *, max_age: float) -> int:
        """Refuses a token that is expired, not yet valid, or lives too long; gives `exp`.

        Args:
            now: POSIX seconds.
            max_age: longest accepted `exp - iat`, seconds.
        """
        issued, expires = self.instant("iat"), self.instant("exp")
        begins = self.instant("nbf") if "nbf" in self._members else issued
        if not issued < expires <= issued + max_age:
            raise TokenInvalidError(cause="lifetime is not accepted")
        check_window(now, begins=max(issued, begins), expires=expires)
        return expires

    def _required(self, name: str) -> Json:
        try:
            return self._members[name]
        except KeyError:
            raise TokenInvalidError(cause=f"claim {name} is missing") from None


def check_window(now: float, *, begins: float, expires: float) -> None:
    """Refuses what is expired or not yet valid at `now`; cheap, so it is done on every use."""
    if now >= expires:
        raise TokenInvalidError(cause="expired")
    if now < begins - CLOCK_SKEW:
        raise TokenInvalidError(cause="not yet valid")


def _text(value: Json, name: str, max_length: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > max_length or _CONTROL.search(value):
        raise TokenInvalidError(cause=f"claim {name} is not an accepted text")
    return value
