"""A version whose catalog the installed guard does not cover waits; what asks no more of it does not."""

import pytest

from broker.errors import GuardBehindError
from broker.publishing import Examination, GuardCheck, Reading
from broker.records.shape import guard_shape, shape_text
from tests.policy.sample import CATALOG, files, small
from tests.published import ANNA, BORIS, publisher, store
from tests.publishing.conftest import SHUT, draft

MORE = files(catalog_yaml=CATALOG.replace("rows: 50", "rows: 60"))


async def narrows(_question):
    """Finds that nothing becomes wider."""
    return Examination(narrowing=("less",))


def checked(desk):
    """Makes a publisher that asks what workers said of the guard."""
    return publisher(desk.admin, examine=narrows, check_guard=GuardCheck(Reading(desk.admin)))


async def test_what_the_guard_lacks_is_told(desk):
    """Neither an approval nor an emergency brings it into force; once the guard has it, both do."""
    acts = checked(desk)
    _, waiting, _ = await acts.propose(ANNA, draft(MORE))
    for catalog, lacking in ((None, "no access worker"), (small().catalog, "50 rows at most, not 60")):
        if catalog:
            await store(desk.access).report("a worker", 1, shape_text(guard_shape(catalog)))
        with pytest.raises(GuardBehindError) as refused:
            await acts.approve(BORIS, waiting.proposal_id, waiting.digest, "")
        assert lacking in refused.value.metadata["finding"]
        with pytest.raises(GuardBehindError):
            await acts.propose(ANNA, draft(MORE, alone=True))

    shape = guard_shape(small(catalog_yaml=MORE.texts["catalog.yaml"]).catalog)
    await store(desk.access).report("a worker", 1, shape_text(shape))
    _, approved = await acts.approve(BORIS, waiting.proposal_id, waiting.digest, "")
    assert approved.version == 2


async def test_an_emergency_does_not_wait_for_workers(desk):
    """With every worker and the records database down, what asks no more of the guard is in force at once."""
    acts = checked(desk)
    _, alone, _ = await acts.propose(ANNA, draft(SHUT, alone=True))
    assert alone.version == 2

    _, waiting, _ = await acts.propose(ANNA, draft(files()))
    _, approved = await acts.approve(BORIS, waiting.proposal_id, waiting.digest, "")
    assert approved.version == 3
