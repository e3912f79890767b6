"""A version is served only as it was signed: this number, these files, by this broker's key, the newest."""

import time

import asyncpg
import pytest

from broker.errors import PolicyInvalidError
from broker.keys import KeyFolder, SigningKeys
from broker.policy import PolicyHolder
from broker.policy.files import digest_of
from broker.policy.seal import TYPE, Seal, Seals
from tests.policy.sample import TEXTS, files
from tests.published import ISSUER, activate, force, force_signed, keys, seals, store
from tests.publishing.conftest import OPEN, SHUT

NO_TESTS = digest_of({})


def signed(number, digest, *, tests=NO_TESTS, header=None, issuer=ISSUER, signing=None, **claims):
    """Signs a seal, with claims changed."""
    said = Seal(number, digest, tests, "approved").claims(issuer, time.time()) | claims
    return (signing or keys()).sign(header or {"typ": TYPE}, said)


WRONG = {
    "nothing": lambda: None,
    "no token": lambda: "x",
    "another number": lambda: signed(8, "a" * 64),
    "other files": lambda: signed(7, "b" * 64),
    "other tests": lambda: signed(7, "a" * 64, tests="b" * 64),
    "another broker's": lambda: signed(7, "a" * 64, issuer="https://other"),
    "a number as text": lambda: signed(7, "a" * 64, version="7"),
    "a claim more": lambda: signed(7, "a" * 64, extra=1),
    "a grant's type": lambda: signed(7, "a" * 64, header={"typ": "at+jwt"}),
}


@pytest.mark.attack("C15")
@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_seals(make):
    """A seal for another number, other files, another broker or another purpose is none."""
    seals().check(signed(7, "a" * 64), 7, "a" * 64, NO_TESTS)  # the control arm

    with pytest.raises(PolicyInvalidError, match="no good signature"):
        seals().check(make(), 7, "a" * 64, NO_TESTS)


@pytest.mark.attack("C15")
def test_a_strangers_key(tmp_path):
    """A key that is not in the folder signs nothing; one that is gone still vouches for what it signed."""
    folder = KeyFolder(tmp_path / "theirs")
    folder.rotate(time.time(), immediately=True)
    stranger = SigningKeys(folder, time.time)
    with pytest.raises(PolicyInvalidError):
        seals().check(signed(7, "a" * 64, signing=stranger), 7, "a" * 64, NO_TESTS)

    old = signed(7, "a" * 64, signing=stranger)
    folder.revoke(stranger.list()[0].kid, time.time())
    later = SigningKeys(folder, time.time)
    Seals(later.known, ISSUER).check(old, 7, "a" * 64, NO_TESTS)


async def _as_superuser(desk, *statements):
    conn = await asyncpg.connect(desk.database.dsn())
    try:
        for table in ("policy_version", "policy_active", "policy_proposal", "policy_proposal_end"):
            await conn.execute(f"ALTER TABLE broker.{table} DISABLE TRIGGER ALL")
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


SWAPPED = (
    "UPDATE broker.policy_version AS n SET files = o.files, digest = o.digest,"
    " signature = o.signature FROM broker.policy_version AS o WHERE n.version = 2 AND o.version = 1"
)
COPIED = (
    "INSERT INTO broker.policy_version OVERRIDING SYSTEM VALUE SELECT 3, digest, files, loaded_by,"
    " create_time, how, tests, tests_digest, base_version, NULL, author, approver, reason, signature"
    " FROM broker.policy_version WHERE version = 1"
)
BACK = "UPDATE broker.policy_active SET version = 1"
TAMPERED = {
    "old content under the new number": [SWAPPED],
    "an old row as a new one": [COPIED, "UPDATE broker.policy_active SET version = 3"],
    "pointed back": [BACK],
    "pointed back, and the newer row is gone": [
        BACK,
        "DELETE FROM broker.policy_proposal_end",
        "DELETE FROM broker.policy_version WHERE version = 2",
    ],
    "files alone": ["UPDATE broker.policy_version SET files = jsonb_set(files, '{policy.csv}', '\"x\"')"],
}


@pytest.mark.attack("C15")
@pytest.mark.parametrize("statements", TAMPERED.values(), ids=TAMPERED)
async def test_whoever_owns_the_database_cannot_bring_the_old_policy_back(desk, statements):
    """Version 1 showed more. However its rows are moved, a running worker keeps version 2 and says so."""
    await activate(desk.admin, SHUT)
    holder = PolicyHolder(store(desk.access))
    await holder.refresh()
    assert (holder.current.version, holder.alert) == ("2", "")
    # A worker that is told of version 2 again looks at its row again.
    await _as_superuser(desk, *statements)
    looking = PolicyHolder(store(desk.access))
    looking._policy, looking._files = holder.current, SHUT
    if "UPDATE broker.policy_active" not in "".join(statements):
        fresh = PolicyHolder(store(desk.access))
        await fresh.refresh()
        assert not fresh.loaded
        assert "signature" in fresh.alert or "digest" in fresh.alert
        return
    await looking.refresh()

    assert looking.current.version == "2"
    assert looking.alert


@pytest.mark.attack("C15")
async def test_a_new_worker_takes_nothing_but_the_newest(desk):
    """A worker that starts has no memory: what is active must still be the newest there is."""
    await activate(desk.admin, SHUT)
    await _as_superuser(desk, "UPDATE broker.policy_active SET version = 1")
    holder = PolicyHolder(store(desk.access))
    await holder.refresh()

    assert not holder.loaded
    assert "is active though 2 was published" in holder.alert


async def test_unsigned_is_not_served(desk):
    """Past the process, as broker_admin in SQL: the row is there, no broker serves it, the old one stays."""
    holder = PolicyHolder(store(desk.access))
    await holder.refresh()
    await force(desk.admin, dict(OPEN.texts), OPEN.digest)
    await holder.refresh()
    assert (holder.current.version, "not" in holder.alert or "signature" in holder.alert) == ("1", True)

    await force_signed(desk.admin, dict(OPEN.texts))  # the control arm: with our keys it is
    await holder.refresh()
    assert (holder.current.version, holder.alert) == ("3", "")


async def test_files_of_the_first_version_are_signed_too(desk):
    """Version 1, too, is served by its signature alone."""
    assert (await store(desk.access).active())[1].files.digest == files().digest == digest_of(TEXTS)
    await _as_superuser(desk, "UPDATE broker.policy_version SET signature = 'x'")

    with pytest.raises(PolicyInvalidError, match="signature"):
        await store(desk.access).active()


@pytest.mark.attack("C14")
@pytest.mark.parametrize("column", ["author", "approver"])
async def test_persons_cannot_be_changed_behind_their_backs(desk, column):
    """Whoever owns the database makes nobody the author or approver of a version: it is not served then."""
    await activate(desk.admin, SHUT)
    assert (await store(desk.access).active())[0] == "2"  # the control arm

    await _as_superuser(
        desk, f"UPDATE broker.policy_version SET {column} = 'https://idp|mallory' WHERE version = 2"
    )
    with pytest.raises(PolicyInvalidError, match="other persons"):
        await store(desk.access).active()
    with pytest.raises(PolicyInvalidError, match="other persons"):
        await store(desk.access).version(2)
