"""Proposals that wait, and those that have ended: an end is final, and waiting keeps nobody else out."""

import asyncpg
import pytest

from broker.errors import ProposalEndedError, ProposalOvertakenError, ProposalsFullError
from broker.publishing import Examination, ProposalState
from broker.publishing.publisher import MOST_OF_AUTHOR, MOST_OPEN
from tests.published import ANNA, BORIS, administrator, publisher
from tests.publishing.conftest import SHUT, draft


async def narrows(_question):
    """Finds that nothing becomes wider."""
    return Examination(narrowing=("less",))


async def expire(desk, proposal):
    """Lets a proposal wait no longer."""
    superuser = await asyncpg.connect(desk.database.dsn())
    try:
        await superuser.execute("ALTER TABLE broker.policy_proposal DISABLE TRIGGER ALL")
        await superuser.execute(
            "UPDATE broker.policy_proposal SET expire_time = clock_timestamp() WHERE proposal_id = $1",
            proposal.proposal_id,
        )
    finally:
        await superuser.close()


async def test_an_end_is_final(desk):
    """What expired stays expired when a version follows; nothing that has ended is ended again."""
    acts = desk.publisher
    expired, overtaken, wins = [(await acts.propose(ANNA, draft()))[1] for _ in range(3)]
    await expire(desk, expired)
    await acts.approve(BORIS, wins.proposal_id, wins.digest, "")

    assert (await acts.proposal(expired.proposal_id)).state is ProposalState.EXPIRED
    assert (await acts.proposal(overtaken.proposal_id)).state is ProposalState.OVERTAKEN
    for by, withdraw in ((BORIS, False), (ANNA, True)):
        with pytest.raises(ProposalEndedError) as refused:
            await acts.end(by, expired.proposal_id, "late", withdraw=withdraw)
        assert refused.value.metadata["state"] == "expired"
        with pytest.raises(ProposalOvertakenError):
            await acts.end(by, overtaken.proposal_id, "late", withdraw=withdraw)
    await expire(desk, overtaken)
    assert (await acts.proposal(overtaken.proposal_id)).state is ProposalState.OVERTAKEN  # it was that first


async def test_nobody_alone_fills_the_list(desk):
    """Whoever proposes too much hears it, in whatever spelling; another person's proposal still waits."""
    for _ in range(MOST_OF_AUTHOR):
        await desk.publisher.propose(ANNA, draft())
    for again in (ANNA, administrator("ANNA")):
        with pytest.raises(ProposalsFullError):
            await desk.publisher.propose(again, draft())

    _, waiting, _ = await desk.publisher.propose(BORIS, draft())  # the control arm
    assert waiting.state is ProposalState.OPEN


async def test_an_emergency_finds_room(desk):
    """With as many waiting as may, what its author publishes alone does not wait, and comes into force."""
    for number in range(MOST_OPEN):
        await desk.publisher.propose(administrator(f"person-{number}"), draft())
    acts = publisher(desk.admin, examine=narrows)
    with pytest.raises(ProposalsFullError):
        await acts.propose(ANNA, draft(SHUT))

    _, alone, _ = await acts.propose(ANNA, draft(SHUT, alone=True))
    assert (alone.state, alone.version) == (ProposalState.ALONE, 2)
