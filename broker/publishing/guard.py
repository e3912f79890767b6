"""A version whose catalog the installed guard does not cover cannot come into force.

The admin process holds no credentials of the records database. The access workers read the guard's
shape with their reader's rights and say it in the broker's database.
"""

from __future__ import annotations

from broker.errors import GuardBehindError
from broker.policy.bundle import Bundle
from broker.policy.files import CATALOG
from broker.publishing.catalogs import catalog_of
from broker.publishing.reading import Reading
from broker.records import guard_shape, uncovered

FRESH = 60.0
"""Seconds that a worker's word on the guard counts; they say it every ten."""

UNKNOWN = "no access worker has said within a minute what the installed guard holds; is one running?"


class GuardCheck:
    """Compares a bundle's catalog with the installed guard."""

    def __init__(self, reading: Reading, *, unknown_passes: bool = False) -> None:
        """Takes where the workers' words are read, and whether a bundle passes where there are none."""
        self._reading = reading
        self._unknown_passes = unknown_passes

    async def __call__(self, bundle: Bundle, active: Bundle | None) -> None:
        """Lets a bundle pass that the guard covers, or that asks no more of it than the version in force.

        Covering is enough, equality is not asked for: installing comes first. What asks no more must not
        wait for workers: they may be down for what it is to mend.

        Raises:
            GuardBehindError: it does not, or nobody knows; the metadata says what is lacking.
        """
        catalog = catalog_of(bundle.files.texts[CATALOG])
        if catalog is None:  # it was examined before
            raise GuardBehindError(cause="no catalog", metadata={"finding": "its catalog cannot be read"})
        served = catalog_of(active.files.texts[CATALOG]) if active else None
        if served and not uncovered(guard_shape(served), catalog):
            return
        shape = await self._reading.guard(FRESH)
        if shape is None:
            if self._unknown_passes:
                return
            raise GuardBehindError(cause="no report", metadata={"finding": UNKNOWN})
        if lacking := uncovered(shape, catalog):
            raise GuardBehindError(cause="uncovered", metadata={"finding": "; ".join(lacking)[:1000]})
