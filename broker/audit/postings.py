"""Places of values in chunks of the log: what `100_event_index.sql` writes, read and intersected.

Invariants:
- pure: bytes in, places out;
- two values' places in common cost the bytes of both, however often each occurs.
"""

from __future__ import annotations

from collections.abc import Iterable

CHUNK = 4096
"""Leaves of a chunk."""

BITMAP = CHUNK // 8
"""Bytes of a bitmap; fewer are places of two bytes each."""


def bits_of(places: bytes) -> int:
    """Gives places as an integer whose bit n is place n."""
    if len(places) == BITMAP:
        return _reversed(places)
    bits = 0
    for at in range(0, len(places), 2):
        bits |= 1 << int.from_bytes(places[at : at + 2])
    return bits


def places_of(bits: int) -> list[int]:
    """Gives the places of the bits that are set, ascending."""
    return [place for place, bit in enumerate(f"{bits:b}"[::-1]) if bit == "1"] if bits else []


def common(postings: Iterable[bytes]) -> list[int]:
    """Gives the places that all have, ascending."""
    bits = -1
    for places in postings:
        bits &= bits_of(places)
    return places_of(bits) if bits >= 0 else []


_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _reversed(bitmap: bytes) -> int:
    """Reads a bitmap whose first bit is the highest of its first byte."""
    return int.from_bytes(bitmap.translate(_TURNED), "little")
