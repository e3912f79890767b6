"""Makes proofs from what is published; the event alone comes from the database."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from broker.database import Connection, queries, translated
from broker.merkle import consistency_proof, inclusion_proof
from broker.note import VerifierKey
from broker.tlog.checkpoint import LogInvalidError, NotPublishedError
from broker.tlog.proof import ConsistencyProof, InclusionProof
from broker.tlog.published import newest_checkpoint, read_hashes, read_root
from broker.tlog.storage import Storage

Q = queries("tlog")


async def prove_inclusion(
    conn: Connection, storage: Storage, anchors: Sequence[VerifierKey], event_id: UUID
) -> InclusionProof:
    """Proves that an event is in the log, under the newest published checkpoint.

    Args:
        conn: as broker_auditor.
        storage: what is published.
        anchors: the log's keys.
        event_id: whose proof.

    Raises:
        LogInvalidError: there is no such event, it is not published yet, or the published log does not
            hold it as the database does.
    """
    found, rotations = await newest_checkpoint(storage, anchors)
    with translated():
        row = await conn.fetchrow(Q.prove_leaf, event_id)
    if row is None:
        raise LogInvalidError("No event has that id, or it was dropped with its partition.")
    if row["seq"] is None or row["seq"] >= found.checkpoint.size:
        raise NotPublishedError("The event is not published yet; try again in a second.")
    size = found.checkpoint.size
    path = await read_hashes(storage, inclusion_proof(row["seq"], size), size, size)
    proof = InclusionProof(row["leaf"], row["seq"], tuple(path), found.note, tuple(rotations))
    proof.verify(anchors)
    return proof


async def prove_consistency(
    conn: Connection, storage: Storage, anchors: Sequence[VerifierKey], old: int, new: int | None = None
) -> ConsistencyProof:
    """Proves that the log begins with an earlier one.

    Args:
        conn: as broker_auditor.
        storage: what is published.
        anchors: the log's keys.
        old: size of the earlier one.
        new: size of a kept checkpoint; None: the newest published one.

    Raises:
        LogInvalidError: the log was never of that size, or it is another one now.
    """
    found, rotations = await newest_checkpoint(storage, anchors)
    published = size = found.checkpoint.size
    note = found.note
    if new is not None and new != size:
        with translated():
            note = await conn.fetchval(Q.kept, new)
        if note is None or new > size:
            raise LogInvalidError(f"No checkpoint of size {new} is kept; the newest has size {size}.")
        size = new
    if not 0 < old <= size:
        raise LogInvalidError(f"A log of {size} leaves does not continue one of {old}.")
    path = await read_hashes(storage, consistency_proof(old, size), size, published) if old < size else []
    root = await read_root(storage, old, published)
    proof = ConsistencyProof(old, root, tuple(path), note, tuple(rotations))
    proof.verify(anchors)
    return proof


async def find_leaf(
    conn: Connection, storage: Storage, anchors: Sequence[VerifierKey], leaf: bytes, event_id: UUID
) -> InclusionProof:
    """Looks for a disclosure that a receipt tells of: proves that these very bytes are in the log.

    Raises:
        LogInvalidError: they are not.
    """
    proof = await prove_inclusion(conn, storage, anchors, event_id)
    if leaf != proof.leaf:
        raise LogInvalidError(f"The log has another event under the id {event_id} than the receipt.")
    return proof
