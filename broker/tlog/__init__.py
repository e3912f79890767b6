"""The transparency log: the ledger's events as leaves of a Merkle tree that anybody can check.

    sequencer.py    events become leaves; the head is signed, swapped and published
    published.py    what everybody can read: checkpoint, tiles, proofs from them
    checkpoint.py   which signature is believed at which size
    storage.py      where it is published

Invariants:
- hashes are published, leaves never;
- the database is not believed: `verify` recomputes everything from its bytes and from what is published.
"""

from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.database import Head, TreeTable
from broker.tlog.sequencer import LogState, Sequencer, Step
from broker.tlog.storage import Directory, Storage, StorageConflictError

__all__ = [
    "Checkpoint",
    "Directory",
    "Head",
    "LogInvalidError",
    "LogState",
    "Sequencer",
    "Step",
    "Storage",
    "StorageConflictError",
    "TreeTable",
    "TrustedKeys",
]
