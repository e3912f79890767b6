"""Catalogs of versions that were in force: what they called data does not end with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from broker.catalog import Catalog
from broker.policy.catalog_reader import read_catalog
from broker.policy.findings import Findings, TooManyFindingsError

UNREAD = "{} catalogs that were in force cannot be read by this release; what they protected is not known"
CAME_BACK = "{} comes back as class {}, it was {} ({}); no test of that class asks for it"


def catalog_of(text: str) -> Catalog | None:
    """Reads a catalog; None where it is none."""
    findings = Findings()
    with suppress(TooManyFindingsError):
        catalog = read_catalog(text, findings)
        return None if len(findings) else catalog
    return None


def catalogs_of(texts: Collection[str]) -> tuple[list[Catalog], list[str]]:
    """Reads catalogs, and says how many of them cannot be read any more."""
    read = [catalog for text in texts if (catalog := catalog_of(text)) is not None]
    missing = len(texts) - len(read)
    return read, [UNREAD.format(missing)] if missing else []


def came_back(now: Catalog, active: Catalog, before: Sequence[Catalog]) -> list[str]:
    """Names fields that are new since the version in force and were of another class when they were there.

    By name or by column: else whoever takes a field out and brings it back later has it asked for less, in
    two steps that each look like nothing.

    Args:
        now: the candidate's.
        active: of the version in force; what changed since, a comparison tells.
        before: of all versions that were, newest first.
    """
    places = {active.place_of(field) for field in active.fields.values()}
    told = []
    for name, field in now.fields.items():
        if name in active.fields or (place := now.place_of(field)) in places:
            continue
        was = next(
            (f for c in before for n, f in c.fields.items() if n == name or c.place_of(f) == place), None
        )
        if was is not None and was.field_class != field.field_class:
            told.append(CAME_BACK.format(name, field.field_class, was.field_class, was.full_name))
    return told
