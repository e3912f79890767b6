"""Names a compiled table by everything that decides in it, so that what Casbin said of it in one process is
known of the very same table in another.

Invariants:
- two tables with one digest decide alike everywhere: the bitsets are in it, and the code that reads them;
- what compared them is in it, too: under another Casbin or Python the name is another, and the table is
  held against Casbin anew;
- it follows from the table, never from hashing or the order of words.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from broker.policy import table as code
from broker.policy.table import Table

BY = (
    hashlib.sha256(Path(code.__file__).read_bytes()).hexdigest(),
    version("pycasbin"),
    platform.python_version(),
)
"""What reads the bitsets, and what they were compared with. Of the moment of the import: an upgrade may lay
another file there while this process runs."""


def table_digest(table: Table) -> str:
    """Gives the hex SHA-256 of a table; some 30 ms for ten thousand rules."""
    said = {
        "by": BY,
        "rules": [(rule.line, *rule.words) for rule in table.rules],
        "columns": [_named(column) for column in table.columns],
        "roles": _named(table.roles),
        "fields": _named(table.fields),
        "bits": [f"{bits:x}" for bits in table.whole],
        "purposes": sorted(table.purposes),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _named(bitsets: Mapping[str, int]) -> dict[str, str]:
    return {word: f"{bits:x}" for word, bits in bitsets.items()}
