"""JSON as tokens and key sets must spell it: what two parsers could read in two ways is refused.

Invariants:
- UTF-8 without a mark, no duplicate names, no NaN or Infinity, no number of endless digits;
- depth is counted before the parser sees the text, so it can never recurse;
- no NUL and no lone surrogate in any string: PostgreSQL would refuse them only later.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 8
"""Deepest nesting; identity providers use four levels (`resource_access`), attackers 100,000."""

MAX_DIGITS = 19
"""Longest number; a 64-bit integer fits, and Python's digit limit (4,300) is never reached."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


class StrictJsonError(ValueError):
    """The text is not JSON as we accept it; the message is a fixed phrase."""


def loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parses one JSON text.

    Raises:
        StrictJsonError: anything is wrong with it.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise StrictJsonError("not UTF-8") from exc
    _check_depth(text, max_depth)
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as exc:
        raise StrictJsonError("not JSON") from exc
    if "\\u" in text:  # only an escape can smuggle these in
        _check_strings(value)
    return value


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if match.group() in "[{" else -1
        if depth > max_depth:
            raise StrictJsonError("nested too deep")


def _check_strings(value: Json) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise StrictJsonError("a string holds NUL or a lone surrogate")
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_strings(name)
            _check_strings(item)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError("a name appears twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise StrictJsonError("a number is too long")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if len(digits) > 2 * MAX_DIGITS or not math.isfinite(value):
        raise StrictJsonError("a number is too long or not finite")
    return value


def _constant(_name: str) -> NoReturn:
    raise StrictJsonError("a number is not finite")
