"""A version whose catalog the installed guard does not cover cannot come into force.

The admin process holds no credentials of the records database. The access workers read the guard's
shape with their reader's rights and say it in the broker's database.
"""

from __future__ import annotations

from broker.errors import GuardBehindError
from broker.policy.bundle import Bundle
from broker.policy.catalog_reader import read_catalog
from broker.policy.files import CATALOG
from broker.policy.findings import Findings
from broker.publishing.reading import Reading
from broker.records import uncovered

FRESH = 60.0
"""Seconds that a worker's word on the guard counts; they say it every ten."""

UNKNOWN = "no access worker has said within a minute what the installed guard holds; is one running?"


class GuardCheck:
    """Compares a bundle's catalog with the installed guard."""

    def __init__(self, reading: Reading) -> None:
        """Takes where the workers' words are read."""
        self._reading = reading

    async def __call__(self, bundle: Bundle) -> None:
        """Lets a bundle pass that the guard covers.

        Covering is enough, equality is not asked for: installing comes first.

        Raises:
            GuardBehindError: it does not, or nobody knows; the metadata says what is lacking.
        """
        shape = await self._reading.guard(FRESH)
        if shape is None:
            raise GuardBehindError(cause="no report", metadata={"finding": UNKNOWN})
        catalog = read_catalog(bundle.files.texts[CATALOG], Findings())
        if catalog is None:  # it was examined before
            raise GuardBehindError(cause="no catalog")
        if lacking := uncovered(shape, catalog):
            raise GuardBehindError(cause="uncovered", metadata={"finding": "; ".join(lacking)[:1000]})
