"""One proposes, another one approves by the digest, and then it is in force: two human beings, always."""

import asyncio
import dataclasses
import json
import time
import uuid

import asyncpg
import pytest

from broker.errors import (
    DatabaseUnavailableError,
    LedgerUnavailableError,
    NotAuthorError,
    ProposalDigestError,
    ProposalEndedError,
    ProposalNotFoundError,
    ProposalOvertakenError,
    SecondPersonError,
)
from broker.ledger import EventIds, append_events
from broker.publishing import Examination, ProposalState
from tests.policy.sample import files
from tests.published import ANNA, BORIS, IDP, administrator, force, publisher, store
from tests.publishing.conftest import OPEN, SHUT, draft, leaves


async def narrows(_question):
    """Finds that nothing becomes wider."""
    return Examination(narrowing=("less",))


async def active(desk):
    """Gives the number in force, as an access worker reads it."""
    return (await store(desk.access).active())[0]


async def test_proposed_approved_in_force(desk):
    """The approval makes a signed version that every role can check, and the ledger names both persons."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    assert (proposal.state, await active(desk)) == (ProposalState.OPEN, "1")  # not yet

    event, approved = await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "fine")
    version, bundle = await store(desk.access).active()
    *_, leaf = await leaves(desk.database)

    assert (approved.state, approved.version, version) == (ProposalState.APPROVED, 2, "2")
    assert bundle.files.digest == OPEN.digest
    assert (leaf["id"], leaf["detail"]["act"], leaf["policy_version"]) == (str(event), "approve", "2")
    assert (leaf["agent"], leaf["detail"]["author"]) == (f"{IDP}|boris", f"{IDP}|anna")


SAME = {
    "the same": administrator("anna"),
    "another session": dataclasses.replace(ANNA, trace_id="1" * 32),
    "another console": administrator("anna", console="spiffe://broker.dev/admin/other"),
    "another case": administrator("Anna"),
    "spaces": administrator(" anna "),
    "the issuer's case": administrator("anna", issuer=IDP.upper()),
    "the issuer with a slash": administrator("anna", issuer=f"{IDP}/"),
    "full width": administrator("ａnna"),  # noqa: RUF001 - that is the point
}


@pytest.mark.attack("C14")
async def test_nobody_approves_what_they_wrote(desk):
    """Whatever session, console or spelling: the author is no second person. Another human being is."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    for name, again in SAME.items():
        with pytest.raises(SecondPersonError):
            await desk.publisher.approve(again, proposal.proposal_id, proposal.digest, name)
    assert await active(desk) == "1"

    await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")  # the control arm
    assert await active(desk) == "2"


@pytest.mark.attack("C14")
async def test_approval_names_what_was_looked_at(desk):
    """An approval of another hash is refused, and so is one of a proposal that is not there."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    _, other, _ = await desk.publisher.propose(ANNA, draft(SHUT))
    for digest in (other.digest, proposal.bundle.files.digest, proposal.digest.upper(), "0" * 64):
        with pytest.raises(ProposalDigestError):
            await desk.publisher.approve(BORIS, proposal.proposal_id, digest, "")
    with pytest.raises(ProposalNotFoundError):
        await desk.publisher.approve(BORIS, uuid.uuid4(), proposal.digest, "")

    assert await active(desk) == "1"


@pytest.mark.attack("C14")
async def test_the_database_wants_two_persons_itself(desk):
    """Past the process, in SQL as its own role: author and approver must differ, and what widens waits."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    publish = "SELECT broker.publish_policy($1, $2, $3, 'c', $4, '', 2, 'x')"
    for person, alone in ((ANNA.key, False), (ANNA.key.upper(), False), (ANNA.key, True), (BORIS.key, True)):
        with pytest.raises(asyncpg.PostgresError, match="cannot be published"):
            await desk.admin.execute(publish, proposal.proposal_id, proposal.digest, person, alone)
    owner = await asyncpg.connect(desk.database.dsn("broker_owner"))
    try:
        with pytest.raises(asyncpg.CheckViolationError):  # the rows themselves say so, too
            await owner.execute(
                "INSERT INTO broker.policy_version (version, digest, files, loaded_by, how, tests,"
                " tests_digest, author, approver, proposal_id, signature) OVERRIDING SYSTEM VALUE"
                " SELECT 2, files_digest, files, 'c', 'approved', tests, tests_digest, author, upper(author),"
                " proposal_id, 'x' FROM broker.policy_proposal"
            )
    finally:
        await owner.close()
    assert await active(desk) == "1"

    await desk.admin.execute(publish, proposal.proposal_id, proposal.digest, BORIS.key, False)  # control
    assert await desk.admin.fetchval("SELECT broker.active_policy_version()") == 2


@pytest.mark.attack("C12")
async def test_alone_only_where_nothing_widens(desk):
    """In an emergency a narrowing is in force at once and says so; a widening waits for a second person."""
    _, waiting, _ = await desk.publisher.propose(ANNA, draft(alone=True))
    assert (waiting.state, await active(desk)) == (ProposalState.OPEN, "1")

    alone = publisher(desk.admin, examine=narrows)
    _, proposal, _ = await alone.propose(ANNA, draft(SHUT, alone=True))
    *_, leaf = await leaves(desk.database)

    assert (proposal.state, proposal.version) == (ProposalState.ALONE, 2)
    assert (leaf["detail"]["act"], leaf["detail"]["widens"]) == ("publish alone", False)


async def test_an_emergency_waits_for_no_replay(desk):
    """The replay is for an approver to read; where there is none, nobody asks what may take a minute."""
    asked = []

    async def replay(_by, bundle):
        asked.append(bundle.digest)
        return {}

    publishes = publisher(desk.admin, examine=narrows, replay=replay)
    await publishes.propose(ANNA, draft(SHUT, alone=True))
    assert asked == []

    _, waiting, _ = await publishes.propose(ANNA, draft())  # the control arm
    assert asked == [waiting.digest]


async def test_narrowing_waits_too_where_nobody_called_it_an_emergency(desk):
    """Alone is asked for, never assumed."""
    _, proposal, _ = await publisher(desk.admin, examine=narrows).propose(ANNA, draft(SHUT))

    assert (proposal.state, await active(desk)) == (ProposalState.OPEN, "1")


async def changes_nothing(_question):
    """Finds no difference."""
    return Examination()


@pytest.mark.attack("C14")
async def test_what_narrows_nothing_is_no_emergency(desk):
    """Who changes nothing publishes nothing alone: else a copy of what is in force ends all proposals."""
    _, of_another, _ = await desk.publisher.propose(BORIS, draft())
    idle = publisher(desk.admin, examine=changes_nothing)
    _, again, _ = await idle.propose(ANNA, draft(files(), alone=True))
    _, back, _ = await idle.roll_back(ANNA, 1, "it is in force")

    assert (again.state, back.state, await active(desk)) == (ProposalState.OPEN, ProposalState.OPEN, "1")
    await desk.publisher.approve(ANNA, of_another.proposal_id, of_another.digest, "")  # still waiting


async def test_what_the_examination_refuses_is_not_stored(desk):
    """A refusal is on the ledger, and there is no proposal."""

    async def refuses(_question):
        return Examination(refusals=("it fails",))

    _, proposal, found = await publisher(desk.admin, examine=refuses).propose(ANNA, draft())
    *_, leaf = await leaves(desk.database)

    assert (proposal, found.refusals) == (None, ("it fails",))
    assert (leaf["outcome"], leaf["reason"], leaf["agent"]) == ("refused", "POLICY_REFUSED", ANNA.key)
    assert await desk.admin.fetchval("SELECT count(*) FROM broker.policy_proposal") == 0


async def test_rejected_withdrawn_expired(desk):
    """A proposal that has ended in any way comes into force no more; only its author withdraws."""
    acts = desk.publisher
    made = [(await acts.propose(ANNA, draft()))[1] for _ in range(3)]
    rejected, withdrawn, expired = made
    await acts.end(BORIS, rejected.proposal_id, "no", withdraw=False)
    with pytest.raises(NotAuthorError):
        await acts.end(BORIS, withdrawn.proposal_id, "no", withdraw=True)
    await acts.end(administrator("ANNA"), withdrawn.proposal_id, "a typo", withdraw=True)
    superuser = await asyncpg.connect(desk.database.dsn())
    try:
        await superuser.execute("ALTER TABLE broker.policy_proposal DISABLE TRIGGER ALL")
        await superuser.execute(
            "UPDATE broker.policy_proposal SET expire_time = now() WHERE proposal_id = $1",
            expired.proposal_id,
        )
    finally:
        await superuser.close()

    states = []
    for proposal in made:
        with pytest.raises(ProposalEndedError) as refused:
            await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
        states.append(refused.value.metadata["state"])
    assert states == ["rejected", "withdrawn", "expired"]
    assert await active(desk) == "1"


@pytest.mark.attack("R4")
async def test_two_proposals_one_winner(desk):
    """Two persons propose at once on one version: one comes into force, the other is told to look again."""
    one, two = await asyncio.gather(
        desk.publisher.propose(ANNA, draft()), desk.publisher.propose(BORIS, draft(SHUT))
    )
    outcomes = await asyncio.gather(
        desk.publisher.approve(BORIS, one[1].proposal_id, one[1].digest, ""),
        desk.publisher.approve(ANNA, two[1].proposal_id, two[1].digest, ""),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ProposalOvertakenError", "tuple"]
    assert await active(desk) == "2"
    with pytest.raises(ProposalOvertakenError):
        await desk.publisher.propose(ANNA, draft(base=1))


@pytest.mark.attack("R4")
async def test_two_approvers_one_version(desk):
    """Two persons approve one proposal at once: one version; the other hears that it is done."""
    carol = administrator("carol", "approvers")
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    outcomes = await asyncio.gather(
        *(desk.publisher.approve(by, proposal.proposal_id, proposal.digest, "") for by in (BORIS, carol)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ProposalEndedError", "tuple"]
    assert await desk.admin.fetchval("SELECT count(*) FROM broker.policy_version") == 2


async def test_an_approval_may_be_repeated(desk):
    """Whose answer was lost asks again and gets the same version; nobody else does."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    first = await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    again = await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")

    assert again[1].version == first[1].version == 2
    with pytest.raises(ProposalEndedError):
        await desk.publisher.approve(administrator("carol"), proposal.proposal_id, proposal.digest, "")


async def test_roll_back(desk):
    """Old content comes back under a new number; where it might widen, a second person is needed."""
    narrowing = publisher(desk.admin, examine=narrows)
    _, shut, _ = await narrowing.propose(ANNA, draft(SHUT, alone=True))
    assert shut.version == 2
    _, waiting, _ = await desk.publisher.roll_back(ANNA, 1, "took too much away")

    assert (waiting.state, waiting.restores_version) == (ProposalState.OPEN, 1)
    await desk.publisher.approve(BORIS, waiting.proposal_id, waiting.digest, "")
    version, bundle = await store(desk.access).active()
    assert (version, bundle.files.digest) == ("3", files().digest)

    _, back, _ = await narrowing.roll_back(ANNA, 2, "it was right")  # narrows: at once
    assert (back.state, back.version) == (ProposalState.ALONE, 4)


async def test_database_dies_before_the_commit(desk, monkeypatch):
    """The session ends behind the version's row and before the commit: the old version stays, for all."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())

    async def dies(conn, *args, **options):
        superuser = await asyncpg.connect(desk.database.dsn())
        await superuser.execute("SELECT pg_terminate_backend($1, 5000)", conn.get_server_pid())
        await superuser.close()
        return await append_events(conn, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr("broker.publishing.publisher.append_events", dies)
        with pytest.raises((DatabaseUnavailableError, LedgerUnavailableError)):
            await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    assert await active(desk) == "1"
    assert (await desk.publisher.proposal(proposal.proposal_id)).state is ProposalState.OPEN

    await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")  # and then it works
    assert await active(desk) == "2"


@pytest.mark.attack("W1")
async def test_a_clock_that_is_off(desk):
    """A process an hour off publishes nothing: its event would lie about the time. A second off is fine."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    late = publisher(desk.admin, ids=EventIds(lambda: time.time() + 3600))
    with pytest.raises(LedgerUnavailableError):
        await late.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    assert await active(desk) == "1"

    near = publisher(desk.admin, clock=lambda: time.time() + 3600, ids=EventIds(lambda: time.time() + 1))
    await near.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    assert await active(desk) == "2"


@pytest.mark.attack("C15")
async def test_two_persons_mend_what_was_tampered_with(desk):
    """What is active is nobody's: a good version follows it, by two persons, as if it widened."""
    await force(desk.admin, dict(OPEN.texts), OPEN.digest)
    narrowing = publisher(desk.admin, examine=_asks_what_is_in_force)
    _, proposal, found = await narrowing.propose(ANNA, draft(SHUT, alone=True))
    assert (proposal.state, found.widens) == (ProposalState.OPEN, True)

    await narrowing.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    version, bundle = await store(desk.access).active()
    assert (version, bundle.files.digest) == ("3", SHUT.digest)


async def _asks_what_is_in_force(question):
    """Finds what the gate finds where there is nothing to compare with."""
    return Examination(widening=("nothing is in force",) if question.active is None else ())


@pytest.mark.attack("C14")
async def test_files_swapped_behind_the_digest(desk):
    """Whoever owns the database changes what a proposal holds and not its digest: nothing is signed."""
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    superuser = await asyncpg.connect(desk.database.dsn())
    try:
        await superuser.execute("ALTER TABLE broker.policy_proposal DISABLE TRIGGER ALL")
        await superuser.execute(
            "UPDATE broker.policy_proposal SET files = $1::text::jsonb, files_digest = $2",
            json.dumps(dict(SHUT.texts)), SHUT.digest,
        )  # fmt: skip
    finally:
        await superuser.close()

    with pytest.raises(ProposalDigestError):
        await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    assert await active(desk) == "1"
