"""A policy becomes active together with its ledger event, in one transaction, or not at all."""

from __future__ import annotations

import asyncpg

from broker.database import transaction
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.policy import PolicyFiles
from broker.policy.store import PolicyStore


async def activate(
    pool: asyncpg.Pool, ids: EventIds, files: PolicyFiles, *, loaded_by: str, expected: str | None = None
) -> str:
    """Makes a policy the active one; every replica decides by it from its next append on.

    Args:
        pool: connections as broker_admin.
        ids: event ids.
        files: checked again on the way.
        loaded_by: who does this, for the record.
        expected: the version thought active; None: whichever is.

    Returns:
        The new version.

    Raises:
        PolicyInvalidError: the files are no policy; nothing changed.
        PolicyUnavailableError: another version than expected is active; nothing changed.
    """
    async with transaction(pool) as conn:
        version = await PolicyStore(pool).activate(files, loaded_by, conn, expected=expected)
        await append_events(conn, [_event(ids, "activate", files, loaded_by, version)], door=ADMIN_DOOR)
    return version


async def bootstrap(pool: asyncpg.Pool, ids: EventIds, files: PolicyFiles, *, loaded_by: str) -> str:
    """Makes a policy the active one on an empty database, and only there; gives the active version."""
    async with transaction(pool) as conn:
        version, created = await PolicyStore(pool).bootstrap(files, loaded_by, conn)
        if created:
            await append_events(conn, [_event(ids, "bootstrap", files, loaded_by, version)], door=ADMIN_DOOR)
    return version


def _event(ids: EventIds, act: str, files: PolicyFiles, loaded_by: str, version: str) -> Event:
    return Event(
        id=ids.new(),
        kind=EventKind.POLICY,
        outcome="done",
        trace_id=NO_TRACE,
        tool=loaded_by,
        policy_version=version,
        detail={"act": act, "digest": files.digest},
    )
