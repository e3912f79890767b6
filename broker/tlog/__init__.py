"""The transparency log: the ledger's events as leaves of a Merkle tree that anybody can check.

    sequencer.py    events become leaves; the head is signed, swapped and published
    continuity.py   whether the database goes on from what was published
    published.py    what everybody can read: checkpoint, tiles, proofs from them
    checkpoint.py   which signature is believed at which size
    storage.py      where it is published
    verify.py       everything recomputed, and what does not fit
    proof.py        proofs that stand alone (prove.py makes them)
    statements.py   what the log's key says about events that are not there any more

Invariants:
- hashes are published, leaves never;
- the database is not believed: `verify` recomputes everything from its bytes and from what is published.
"""

from broker.tlog.checkpoint import Checkpoint, LogInvalidError, NotPublishedError, TrustedKeys
from broker.tlog.continuity import LossError, Memory, check_head, read_past
from broker.tlog.cosigning import attach
from broker.tlog.database import Head, TreeTable
from broker.tlog.proof import ConsistencyProof, InclusionProof, Proof, cosigned_by, read_proof
from broker.tlog.prove import find_leaf, prove_consistency, prove_inclusion
from broker.tlog.published import (
    Published,
    newest_checkpoint,
    read_checkpoint,
    read_leaf_hashes,
    read_root,
    read_rotations,
    trusted_keys,
)
from broker.tlog.sequencer import LogState, Sequencer, Step
from broker.tlog.statements import Gone, Statement, runs_of
from broker.tlog.storage import Directory, Storage, StorageConflictError
from broker.tlog.verify import Finding, Verification, Verifier

__all__ = [
    "Checkpoint",
    "ConsistencyProof",
    "Directory",
    "Finding",
    "Gone",
    "Head",
    "InclusionProof",
    "LogInvalidError",
    "LogState",
    "LossError",
    "Memory",
    "NotPublishedError",
    "Proof",
    "Published",
    "Sequencer",
    "Statement",
    "Step",
    "Storage",
    "StorageConflictError",
    "TreeTable",
    "TrustedKeys",
    "Verification",
    "Verifier",
    "attach",
    "check_head",
    "cosigned_by",
    "find_leaf",
    "newest_checkpoint",
    "prove_consistency",
    "prove_inclusion",
    "read_checkpoint",
    "read_leaf_hashes",
    "read_past",
    "read_proof",
    "read_root",
    "read_rotations",
    "runs_of",
    "trusted_keys",
]
