"""Witness cosignatures, attached to checkpoints.

Invariants:
- only signatures of witnesses whom the operator named are taken over, each verified: a witness's file may
  hold whatever else it likes, and none of it reaches what is published;
- what is kept or published can be read by everybody: a note with more signatures than readers take is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.database import Connection, queries, translated
from broker.note import Note, NoteInvalidError, VerifierKey
from broker.tlog.checkpoint import LogInvalidError, TrustedKeys
from broker.tlog.storage import CHECKPOINT, Storage

Q = queries("tlog")


async def attach(
    conn: Connection, storage: Storage, keys: TrustedKeys, witnesses: Sequence[VerifierKey], text: str
) -> bool:
    """Keeps a cosigned checkpoint; publishes it where it is still the newest, and tells whether.

    Args:
        conn: as broker_admin.
        storage: what is published.
        keys: of the log.
        witnesses: whose signatures are taken over.
        text: the checkpoint with their signatures.

    Raises:
        LogInvalidError: it is not a checkpoint of this log, none of the witnesses signed it, or what is kept
            or published of it takes no more signatures.
    """
    checkpoint, note = keys.open(text), Note.parse(text)
    theirs = [signature for key in witnesses for signature in note.signatures_of(key)]
    if not theirs:
        raise LogInvalidError("None of the witnesses signed the checkpoint.")
    ours = [signature for key in keys.at(checkpoint.size) for signature in note.signatures_of(key)]
    newest = await storage.read(CHECKPOINT)
    try:
        with translated():
            known = await conn.fetchval(Q.kept, checkpoint.size)
        kept = Note(note.text, tuple(ours)) if known is None else Note.parse(known)
        kept = kept.with_signatures(theirs)
        shown = None if newest is None else Note.parse(newest.decode())
        fresh = None if shown is None or shown.text != note.text else shown.with_signatures(theirs)
    except (NoteInvalidError, UnicodeDecodeError) as exc:
        raise LogInvalidError(f"The cosignature cannot be put to what is kept and published: {exc}.") from exc
    with translated():
        await conn.execute(Q.keep, checkpoint.size, checkpoint.root, str(kept))
    if fresh is None:
        return False
    return await storage.swap(CHECKPOINT, str(fresh).encode(), replaces=newest)
