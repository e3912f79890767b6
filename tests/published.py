"""Brings policies into force for tests that are about something else: two persons of paper, no examination.

Production has no such way: these call what lies below the RPCs, with a pool of broker_admin and the keys.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import asyncpg

from broker.database import open_pool
from broker.dev.layout import BROKER_ISSUER
from broker.dev.world import World
from broker.errors import PolicyUnavailableError, ProposalOvertakenError
from broker.keys import KeyFolder, SigningKeys
from broker.ledger import EventIds
from broker.model import Agent, Person
from broker.policy import PolicyFiles, PolicyStore, load
from broker.policy.bundle import Bundle
from broker.policy.files import digest_of
from broker.policy.seal import TYPE, Seal, Seals
from broker.policy.table_digest import table_digest
from broker.publishing import Administrator, Draft, Examination, Founding, Publisher
from broker.publishing.gate import Question

ISSUER = BROKER_ISSUER
CONSOLE = "spiffe://broker.dev/admin/console"
IDP = "https://admins.broker.dev"


def administrator(subject: str, *groups: str, issuer: str = IDP, console: str = CONSOLE) -> Administrator:
    """Makes a person at a console."""
    person = Person(Agent(issuer, subject), frozenset(groups), frozenset())
    return Administrator(person, console, "0" * 32)


ANNA = administrator("anna", "security-admins", "approvers")
BORIS = administrator("boris", "security-admins", "approvers")


@cache
def keys() -> SigningKeys:
    """Gives the keys of tests that run no broker."""
    folder = Path(mkdtemp(prefix="broker-test-keys-"))
    KeyFolder(folder).rotate(time.time(), immediately=True)
    return SigningKeys(folder, time.time)


def seals(signing: SigningKeys | None = None) -> Seals:
    """Gives what checks the signatures of those keys."""
    return Seals((signing or keys()).known, ISSUER)


def store(pool: asyncpg.Pool, signing: SigningKeys | None = None) -> PolicyStore:
    """Gives the versions as a broker reads them."""
    return PolicyStore(pool, seals(signing))


async def loads(question: Question) -> Examination:
    """Examines nothing but that the files are a policy, Casbin's word included; it counts as wider."""
    policy = await asyncio.to_thread(load, question.candidate.files, "candidate")
    return Examination(widening=("not compared",), facts={"table": table_digest(policy.table)})


def publisher(pool: asyncpg.Pool, signing: SigningKeys | None = None, **more: object) -> Publisher:
    """Makes a publisher that examines nothing, unless told otherwise."""
    given: dict[str, object] = {
        "examine": loads,
        "methods": (),
        "clock": time.time,
        "ids": EventIds(),
        **more,
    }
    signing = signing or keys()
    return Publisher(pool=pool, store=store(pool, signing), keys=signing, issuer=ISSUER, **given)


def founding(pool: asyncpg.Pool, signing: SigningKeys | None = None, **more: object) -> Founding:
    """Makes what publishes the first version; it examines nothing, unless told otherwise."""
    given: dict[str, object] = {
        "examine": loads, "methods": (), "clock": time.time, "ids": EventIds(), "keys": signing or keys(),
        **more,
    }  # fmt: skip
    return Founding(pool=pool, issuer=ISSUER, **given)


async def activate(
    pool: asyncpg.Pool,
    files: PolicyFiles,
    *,
    expected: str | None = None,
    tests: Mapping[str, str] | None = None,
    signing: SigningKeys | None = None,
) -> str:
    """Makes files the policy in force, as anna and boris would; gives the version.

    Raises:
        PolicyInvalidError: the files are no policy.
        PolicyUnavailableError: another version than expected is in force.
    """
    signing = signing or keys()
    bundle = Bundle.of(files, tests or {})
    if not await store(pool, signing).active_version():
        await founding(pool, signing).found(bundle, by="tests")
        return "1"
    acts = publisher(pool, signing)
    try:
        _, proposal, _ = await acts.propose(ANNA, Draft(bundle, "tests", base=int(expected or 0)))
        assert proposal is not None
        _, proposal = await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    except ProposalOvertakenError:
        raise PolicyUnavailableError(cause="another version than expected is active") from None
    return str(proposal.version)


async def activate_in(world: World, files: PolicyFiles, *, expected: str | None = None) -> str:
    """Makes files the policy in force of a running company."""
    pool = await open_pool(world.dsn("broker_admin"), name="tests: policy", max_size=1)
    try:
        return await activate(
            pool, files, expected=expected, signing=SigningKeys(world.layout.keys, time.time)
        )
    finally:
        await pool.close()


async def force(
    conn: asyncpg.Connection | asyncpg.Pool, texts: object, digest: str, *, signature: str = "none"
) -> int:
    """Goes round every check of the process, as broker_admin in SQL; gives the version."""
    files = json.dumps(texts)
    none = digest_of({})
    first = "SELECT broker.publish_first_policy($1::text::jsonb, $2, '{}', $3, 'tests', $4)"
    if await conn.fetchval(first, files, digest, none, signature):
        return 1
    proposal = uuid.uuid4()
    base = await conn.fetchval("SELECT broker.active_policy_version()")
    state = await conn.fetchval(
        "SELECT broker.propose_policy($1, $2, NULL, $3, $3, $4::text::jsonb, $5, '{}', 'x|a', 'c', 'r', true,"
        " '{}', 60, 100)",
        proposal, base, digest, files, none,
    )  # fmt: skip
    assert state == "open"
    number = await conn.fetchval(
        "SELECT version FROM broker.may_publish_policy($1, $2, 'x|b', false)", proposal, digest
    )
    await conn.execute(
        "SELECT broker.publish_policy($1, $2, 'x|b', 'c', false, '', $3, $4)",
        proposal, digest, number, signature,
    )  # fmt: skip
    return int(number)


async def force_signed(
    pool: asyncpg.Pool, texts: Mapping[str, str], signing: SigningKeys | None = None
) -> int:
    """As `force`, with a signature that fits: what a process with our keys could do."""
    digest = digest_of(texts)
    number = int(await pool.fetchval("SELECT coalesce(max(version), 0) + 1 FROM broker.policy_version"))
    first = number == 1
    persons = {} if first else {"author": "x|a", "approver": "x|b"}
    seal = Seal(number, digest, digest_of({}), "first" if first else "approved", **persons)
    signature = (signing or keys()).sign({"typ": TYPE}, seal.claims(ISSUER, time.time()))
    return await force(pool, texts, digest, signature=signature)
