"""How a value looks when it may only be seen masked; pure.

Invariants:
- a mask shows what its row says and never more, whatever the value:

      mask   | shows at most                                         | for example
      -------|-------------------------------------------------------|------------------
      date   | the year                                              | `1980-••-••`
      email  | first letter of name and of domain, top-level domain  | `a•••@e•••.com`
      phone  | the last two digits, of at least seven                | `•••42`
      tail   | the last four characters, of at least eight           | `•••1111`
      text   | the first letter, of at least three                   | `A•••`

- the length never shows; only that there is a value at all;
- a value that is not clearly of the mask's shape shows nothing;
- masking twice never shows more than masking once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date

from broker.catalog import Mask

HIDDEN = "•••"
"""Stands for any number of characters."""

LONGEST = 4096
"""Longer values show nothing: no shape above is that long, and no time is spent on them."""

_EMAIL = re.compile(
    r"([^\s@\"]{1,64})@([^\s@.\"]{1,63})(?:\.[^\s@.\"]{1,63}){0,8}\.([a-z]{2,24})", re.IGNORECASE | re.ASCII
)
_PHONE = re.compile(r"\+?[0-9() ./-]{7,40}", re.ASCII)
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T][0-9:.]{2,15}(?:Z|[+-][0-9:]{2,8})?)?", re.ASCII)
_TAIL = re.compile(r"[A-Za-z0-9](?:[ -]?[A-Za-z0-9])+", re.ASCII)

SHORTEST_NAME = 3
"""Fewest characters of which one may be shown; of fewer it would be the half or the whole."""

SHORTEST_PHONE = 7
"""Fewest digits of which two may be shown."""

SHORTEST_TAIL = 8
"""Fewest characters of which four may be shown."""


def mask(kind: Mask, value: str | None) -> str | None:
    """Masks one value; None, which no row holds a value for, stays None."""
    if value is None:
        return None
    if len(value) > LONGEST:
        return HIDDEN
    return _MASKS[kind](value)


def _email(value: str) -> str:
    match = _EMAIL.fullmatch(value)
    if match is None:
        return HIDDEN
    name, domain, top = match.groups()
    return f"{_first(name)}{HIDDEN}@{_first(domain)}{HIDDEN}.{top}"


def _phone(value: str) -> str:
    digits = "".join(c for c in value if c.isdecimal())
    if not _PHONE.fullmatch(value) or len(digits) < SHORTEST_PHONE:
        return HIDDEN
    return HIDDEN + digits[-2:]


def _tail(value: str) -> str:
    characters = "".join(c for c in value if c.isalnum())
    if not _TAIL.fullmatch(value) or len(characters) < SHORTEST_TAIL:
        return HIDDEN
    return HIDDEN + characters[-4:]


def _date(value: str) -> str:
    match = _DATE.fullmatch(value)
    if match is None:
        return HIDDEN
    try:
        day = date.fromisoformat(match[1])
    except ValueError:
        return HIDDEN
    return f"{day.year:04d}-••-••"


def _text(value: str) -> str:
    return _first(value) + HIDDEN


def _first(value: str) -> str:
    """Gives the first letter, or nothing where it would be half of one, or most of the value."""
    value = unicodedata.normalize("NFC", value)
    if len(value) < SHORTEST_NAME:
        return ""
    letter, following = value[0], value[1]
    # A mark or joiner behind it belongs to the letter, and the letter alone would be another one.
    if not letter.isalpha() or unicodedata.category(following) in {"Mn", "Mc", "Me", "Cf", "Sk"}:
        return ""
    return letter


_MASKS: Mapping[Mask, Callable[[str], str]] = {
    Mask.DATE: _date,
    Mask.EMAIL: _email,
    Mask.PHONE: _phone,
    Mask.TAIL: _tail,
    Mask.TEXT: _text,
}
