"""Whoever publishes has held the table against Casbin and signs which; workers compile, compare and swap."""

import asyncio
import threading
import time
from dataclasses import dataclass

import asyncpg
import pytest

from broker.database import open_pool
from broker.policy import PolicyHolder, store
from broker.policy.bundle import Bundle
from broker.policy.decision import VOUCHED, compile_files
from broker.policy.files import digest_of
from broker.policy.listener import PolicyListener
from broker.policy.seal import TYPE, Seal
from broker.policy.table import Table
from broker.publishing import Draft, Examination, Founding, Publisher, in_this_process
from tests.conftest import Database
from tests.policy.sample import files
from tests.published import ANNA, BORIS, ISSUER, force, founding, keys, publisher
from tests.published import store as store_of
from tests.publishing.conftest import GOVERNED
from tests.publishing.test_gate import MORE, RULES, SHUT
from tests.publishing.test_news import listeners, until

ROLL_BACK = "/broker.v1.PolicyService/Rollback"
GOVERNED_BACK = GOVERNED.replace(
    "# end", f"p, console, {ROLL_BACK}, allow\np, security-admin, {ROLL_BACK}, allow\n# end"
)


def policy(old, new):
    """Gives the small policy with one place of its rules edited, under which one may roll back."""
    return files(admin_csv=GOVERNED_BACK, policy_csv=RULES.replace(old, new, 1))


FIRST = policy("", "")
NARROW = policy(*SHUT)
WIDE = policy("# end", MORE + "\n# end")


class Spoilt(Table):
    """Takes its denials for allows."""

    def __init__(self, *args):
        """Compiles, and spoils it."""
        super().__init__(*args)
        self.deny, self.allow = 0, self.everything


@dataclass(frozen=True)
class House:
    """A database with version 1, and all who publish, with examinations as a broker has them."""

    database: Database
    access: asyncpg.Pool
    admin: asyncpg.Pool
    publisher: Publisher
    glass: Founding

    def holder(self) -> PolicyHolder:
        """Gives a worker's holder."""
        return PolicyHolder(store_of(self.access))


@pytest.fixture
async def house(database):
    """Gives the house."""
    pools = [
        await open_pool(database.dsn(f"broker_{role}"), name="house", max_size=3)
        for role in ("access", "admin", "owner")
    ]
    access, admin, owner = pools
    assert await founding(admin, examine=in_this_process).found(Bundle.of(FIRST, {}), by="serve")
    acts = publisher(admin, examine=in_this_process, thorough=False)
    yield House(database, access, admin, acts, founding(owner, examine=in_this_process))
    for pool in pools:
        await pool.close()


async def _nothing(_house):
    """Leaves version 1."""


async def _approved(house):
    _, proposal, _ = await house.publisher.propose(ANNA, Draft(Bundle.of(WIDE, {}), "a test", base=0))
    await house.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")


async def _alone(house):
    await house.publisher.propose(ANNA, Draft(Bundle.of(NARROW, {}), "a test", base=0, alone=True))


async def _back(house):
    """Goes back from a wider version."""
    _, proposal, found = await house.publisher.roll_back(ANNA, 1, "a test")
    assert proposal is not None, found.refusals
    assert proposal.version, found.widening


async def _wider_and_back(house):
    await _approved(house)
    await _back(house)


async def _broken(house):
    await house.glass.break_glass(Bundle.of(NARROW, {}), by="root", reason="a test", despite_refusals=True)


WAYS = {
    "the first": ("1", _nothing),
    "approved": ("2", _approved),
    "alone": ("2", _alone),
    "rolled back": ("3", _wider_and_back),
    "with a broken glass": ("2", _broken),
}


@pytest.mark.parametrize(("version", "publish"), WAYS.values(), ids=WAYS)
async def test_every_way_into_force_says_which_table_was_compared(house, monkeypatch, version, publish):
    """A worker that compiles the very table swaps it in without a question to Casbin."""
    await publish(house)
    monkeypatch.setattr("broker.policy.decision.verify", None)
    holder = house.holder()
    await holder.refresh()

    assert (holder.alert, holder.current.version) == ("", version)
    assert holder.current.verification == VOUCHED


async def test_an_act_whose_examination_compared_nothing_vouches_for_nothing(house):
    """Where the examination says of no table that Casbin agrees, the worker asks."""

    async def blind(_question):
        return Examination(widening=("not compared",))

    acts = publisher(house.admin, examine=blind)
    _, proposal, _ = await acts.propose(ANNA, Draft(Bundle.of(WIDE, {}), "a test", base=0))
    await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    holder = house.holder()
    await holder.refresh()

    assert holder.current.version == "2"
    assert "equals Casbin" in holder.current.verification


async def _sealed(house, table):
    """Publishes past the process, with our keys and a word on a table."""
    texts = dict(WIDE.texts)
    seal = Seal(
        2, digest_of(texts), digest_of({}), "approved", author="x|a", approver="x|b", table=table
    )  # fmt: skip
    signature = keys().sign({"typ": TYPE}, seal.claims(ISSUER, time.time()))
    assert await force(house.admin, texts, digest_of(texts), signature=signature) == 2


@pytest.mark.parametrize("table", ["0" * 64, "x"])
async def test_a_seal_over_another_table_is_no_word_on_this_one(house, monkeypatch, table):
    """The table that came out here is not the one that was signed: Casbin decides whether it is served."""
    await _sealed(house, table)
    holder = house.holder()
    await holder.refresh()
    assert "equals Casbin" in holder.current.verification  # the control arm

    monkeypatch.setattr("broker.policy.decision.Table", Spoilt)
    spoilt = house.holder()
    await spoilt.refresh()

    assert not spoilt.loaded
    assert "table-differs" in spoilt.alert


async def test_a_table_spoilt_in_one_worker_alone_is_not_served(house, monkeypatch):
    """The seal names the right table; the worker whose own differs asks Casbin, and keeps what it had."""
    holder = house.holder()
    await holder.refresh()
    await _alone(house)

    with monkeypatch.context() as patched:
        patched.setattr("broker.policy.decision.Table", Spoilt)
        await holder.refresh()
        assert holder.current.version == "1"
        assert "table-differs" in holder.alert
    holder = house.holder()
    await holder.refresh()

    assert (holder.current.version, holder.alert) == ("2", "")  # the control arm


@pytest.fixture
async def listening(house):
    """Gives a holder with a listener, and the listener's task."""
    holder = house.holder()
    await holder.refresh()
    task = asyncio.create_task(PolicyListener(house.database.dsn("broker_access"), holder, name="test").run())
    await listeners(house)
    yield holder, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("publish", [_alone, _back, _broken])
async def test_what_was_not_announced_is_compiled_once(house, listening, monkeypatch, publish):
    """A proposal and its version are heard of in one moment: one compilation serves both."""
    holder, _ = listening
    if publish is _back:
        await _approved(house)
        await until(lambda: holder.current.version == "2")
        holder._ahead.clear()  # as if many versions lay between
    before, builds = holder.current.version, []

    def counted(files, **options):
        builds.append(files.digest)
        return compile_files(files, **options)

    monkeypatch.setattr(store, "compile_files", counted)
    await publish(house)
    await until(lambda: holder.current.version != before)
    await asyncio.gather(*holder._ahead.values())

    assert len(builds) == 1
    assert holder.current.verification == VOUCHED


async def test_a_listener_that_dies_takes_no_compilation_with_it(house, listening, monkeypatch):
    """Its connection's end while a proposal is compiled ends nothing that a refresh waits for."""
    holder, task = listening
    building, go_on, builds = threading.Event(), threading.Event(), []

    def slowly(files, **options):
        builds.append(files.digest)
        building.set()
        go_on.wait(10)
        return compile_files(files, **options)

    monkeypatch.setattr(store, "compile_files", slowly)
    _, proposal, _ = await house.publisher.propose(ANNA, Draft(Bundle.of(WIDE, {}), "a test", base=0))
    await asyncio.to_thread(building.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await house.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    refresh = asyncio.create_task(holder.refresh())
    await asyncio.sleep(0)
    go_on.set()
    await refresh

    assert (holder.alert, holder.current.version, len(builds)) == ("", "2", 1)


async def test_a_compilation_that_died_ahead_is_made_again(house, listening, monkeypatch):
    """Whatever a proposal's compilation died of, its version is compiled as if nobody had tried."""
    holder, _ = listening
    died = []

    def dies(files, **_options):
        died.append(files.digest)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(store, "compile_files", dies)
        _, proposal, _ = await house.publisher.propose(ANNA, Draft(Bundle.of(WIDE, {}), "a test", base=0))
        await until(lambda: died)
    await house.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    await until(lambda: holder.current.version == "2")

    assert (holder.alert, died) == ("", [WIDE.digest])
