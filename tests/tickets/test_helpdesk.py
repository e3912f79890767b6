"""The development helpdesk keeps the promises of a real one, also from one start to the next."""

from __future__ import annotations

import stat

from broker.dev.helpdesk import KEY_NAME, Helpdesk
from broker.tickets import Outcome
from tests.tickets.conftest import ALICE, BOB


async def test_restored(world, tmp_path):
    """After a restart it goes on with the same key, number and versions."""
    await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))
    world.helpdesk.save(tmp_path)
    world.helpdesk.save(tmp_path)

    restored = Helpdesk.restore(tmp_path, world.clock)

    assert restored.jwks() == world.helpdesk.jwks()
    assert await world.send(restored.reassign("T-1", BOB)) == (Outcome.APPLIED,)
    assert restored.seq == 2
    assert list(restored.ticket_ids()) == ["T-1"]


def test_key_is_private(tmp_path):
    """The key file is for its owner alone."""
    Helpdesk("helpdesk", lambda: 0).save(tmp_path)

    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
