"""Witness cosignatures, attached to checkpoints."""

from __future__ import annotations

from broker.database import Connection, queries, translated
from broker.note import Note
from broker.tlog.checkpoint import TrustedKeys
from broker.tlog.storage import CHECKPOINT, Storage

Q = queries("tlog")


async def attach(conn: Connection, storage: Storage, keys: TrustedKeys, text: str) -> bool:
    """Keeps a cosigned checkpoint; publishes it where it is still the newest, and tells whether.

    Args:
        conn: as broker_admin.
        storage: what is published.
        keys: of the log.
        text: the checkpoint with all its signatures; the caller has verified the witness's.

    Raises:
        LogInvalidError: it is not a checkpoint of this log.
    """
    checkpoint, note = keys.open(text), Note.parse(text)
    with translated():
        known = await conn.fetchval(Q.kept, checkpoint.size)
        merged = note if known is None else Note.parse(known).with_signatures(note.signatures)
        await conn.execute(Q.keep, checkpoint.size, checkpoint.root, str(merged))
    newest = await storage.read(CHECKPOINT)
    if newest is None or Note.parse(newest.decode()).text != note.text:
        return False
    shown = Note.parse(newest.decode()).with_signatures(note.signatures)
    return await storage.swap(CHECKPOINT, str(shown).encode(), replaces=newest)
