"""Finds markers in bytes, however they were written: raw, escaped, encoded, reversed or in parts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, quote_plus

SHORTEST = 6
"""Fewest characters of a part that count as found; fewer would be anywhere by chance."""


@dataclass(frozen=True)
class Marker:
    """One value that exists once in the whole company."""

    name: str  # as `customer.email of 9000000001`
    value: str


@dataclass(frozen=True)
class Find:
    """Where a marker came out."""

    marker: str
    form: str
    around: bytes


def parts(value: str) -> Iterator[tuple[str, str]]:
    """Gives a value whole, and what somebody might cut it down to."""
    yield "whole", value
    local, at, domain = value.partition("@")
    if at:
        yield "local part", local
        yield "domain", domain
    digits = "".join(c for c in value if c.isdigit())
    if len(digits) > SHORTEST:
        yield "digits", digits
        yield "last six digits", digits[-6:]
    for word in re.split(r"[\s,@]+", value):
        if word not in {value, digits}:
            yield "word", word
    squeezed = "".join(c for c in value if c.isalnum())
    if squeezed not in {value, digits}:
        yield "letters and digits", squeezed


def encodings(text: str) -> Iterator[tuple[str, bytes]]:
    """Gives a text as it may be written."""
    raw = text.encode()
    yield "raw", raw
    yield "lower case", text.lower().encode()
    yield "upper case", text.upper().encode()
    yield "json", json.dumps(text).strip('"').encode()
    if not text.isdigit():  # a short number read backwards is any number
        yield "reversed", text[::-1].encode()
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "url", quote(text, safe="").encode()
    yield "form", quote_plus(text, safe="").encode()
    yield "utf-16", text.encode("utf-16-le")
    for shift in range(3):  # what stands before it decides how the groups of three fall
        encoded = base64.b64encode(bytes(shift) + raw)
        whole = encoded[(0, 2, 3)[shift] : (len(raw) + shift) * 8 // 6]
        yield f"base64+{shift}", whole
        yield f"base64url+{shift}", whole.replace(b"+", b"-").replace(b"/", b"_")


@cache
def needles(marker: Marker) -> dict[bytes, str]:
    """Gives every byte string that would give a marker away, with what it is."""
    found: dict[bytes, str] = {}
    for part, text in parts(marker.value):
        if len(text) < SHORTEST:
            continue
        for encoding, needle in encodings(text):
            if len(needle) >= SHORTEST:
                found.setdefault(needle, f"{part}, {encoding}")
    return found


def search(haystack: bytes, markers: Iterable[Marker]) -> list[Find]:
    """Looks for every form of every marker."""
    finds = []
    for marker in markers:
        for needle, form in needles(marker).items():
            if needle.isdigit():  # a run of digits counts alone: not inside a longer one, nor as a fraction
                match = re.search(rb"(?<![\d.])" + needle + rb"(?!\d)", haystack)
                at = match.start() if match else -1
            else:
                at = haystack.find(needle)
            if at >= 0:
                finds.append(Find(marker.name, form, haystack[max(at - 40, 0) : at + len(needle) + 40]))
    return finds


def opened(text: bytes) -> bytes:
    """Gives a token's text and, below it, what its parts say."""
    encoded = [part for part in re.findall(rb"[A-Za-z0-9_-]{16,}", text) if len(part) % 4 != 1]
    return b"\n".join([text, *(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in encoded)])


def written(rows: Iterable[Mapping[str, object]]) -> bytes:
    """Writes each different cell once, as a dump would; bytes both in hex and as they are."""
    lines: set[bytes] = set()
    for row in rows:
        for cell in row.values():
            if isinstance(cell, bytes):
                lines |= {cell.hex().encode(), cell}
            elif isinstance(cell, list):
                lines |= {str(each).encode() for each in cell}
            elif cell is not None:
                lines.add(str(cell).encode())
    return b"\n".join(sorted(lines))
