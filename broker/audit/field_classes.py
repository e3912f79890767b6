"""Which class each field has: of the newest version of the catalog that declares it.

Invariants:
- a version is parsed once in a process, however many reports ask, and for whatever names;
- parsing is off the event loop, and no transaction waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence

import asyncpg

from broker.database import connection, queries
from broker.policy.catalog_reader import read_catalog
from broker.policy.findings import Findings

Q = queries("exposure")

AT_ONCE = 20
"""Catalogs that are fetched and parsed at once: a third of a second."""

MOST_KEPT = 8
"""Histories whose classes are kept: versions are added one by one, and each makes a new one."""

_kept: dict[bytes, Mapping[str, str]] = {}
"""Classes by the digest over a history of versions; the event loop's alone, oldest first."""


async def field_classes(pool: asyncpg.Pool) -> Mapping[str, str]:
    """Gives the class of every field that any version ever declared.

    Args:
        pool: connections as broker_auditor.
    """
    async with connection(pool) as conn:
        versions = await conn.fetch(Q.versions)
    histories = _histories([row["digest"] for row in versions])
    known = max((at for at, name in enumerate(histories) if name in _kept), default=0)
    classes = _kept.get(histories[known], {})
    for start in range(known, len(versions), AT_ONCE):
        part = [row["version"] for row in versions[start : start + AT_ONCE]]
        async with connection(pool) as conn:
            texts = [row["catalog"] for row in await conn.fetch(Q.catalogs, part)]
        classes = {**classes, **await asyncio.to_thread(_parsed, texts)}
    _keep(histories[-1], classes)
    return classes


def chosen(classes: Mapping[str, str], fields: Iterable[str]) -> dict[str, str]:
    """Gives the classes of some fields; one that no version declares has none."""
    return {name: classes[name] for name in sorted(fields) if name in classes}


def _histories(digests: Sequence[str]) -> list[bytes]:
    """Names what the versions were after none, after one, and so on."""
    names = [b""]
    for digest in digests:
        names.append(hashlib.sha256(names[-1] + digest.encode()).digest())
    return names


def _keep(history: bytes, classes: Mapping[str, str]) -> None:
    _kept.pop(history, None)
    _kept[history] = classes
    while len(_kept) > MOST_KEPT:
        del _kept[next(iter(_kept))]


def _parsed(texts: Iterable[str | None]) -> dict[str, str]:
    """Gives the classes that catalogs declare, oldest first; one that cannot be read declares nothing."""
    classes: dict[str, str] = {}
    before = None
    for text in texts:
        catalog = read_catalog(text, Findings()) if text and text != before else None
        before = text
        if catalog is not None:
            classes |= {sys.intern(name): sys.intern(f.field_class) for name, f in catalog.fields.items()}
    return classes
