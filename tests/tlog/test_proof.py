"""Proofs stand alone: made from what is published, verified with the public key and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.merkle import leaf_hash, root_of
from broker.note import FileNoteSigner, Note, Signature, sign
from broker.tlog import (
    Checkpoint,
    InclusionProof,
    LogInvalidError,
    TrustedKeys,
    attach,
    cosigned_by,
    find_leaf,
    newest_checkpoint,
    prove_consistency,
    prove_inclusion,
    read_proof,
)
from tests.tlog.conftest import COUNT
from tests.tlog.witness import Witness

SIGNER = FileNoteSigner("broker.test/ledger", Ed25519PrivateKey.from_private_bytes(b"1" * 32))
OTHER = FileNoteSigner("broker.test/ledger", Ed25519PrivateKey.from_private_bytes(b"2" * 32))


def small_proof() -> InclusionProof:
    """Makes the proof of the second of three leaves."""
    leaves = [leaf_hash(b"{}"), leaf_hash(b'{"id":1}'), leaf_hash(b"[]")]
    note = sign(Checkpoint("broker.test/ledger", 3, root_of(leaves)).text, SIGNER)
    return InclusionProof(b'{"id":1}', 1, (leaves[0], leaves[2]), str(note))


class TestInclusion:
    def test_round_trip(self):
        """What is written is read as it was, and verifies."""
        proof = small_proof()
        read = read_proof(json.dumps(proof.as_json()).encode())

        assert read == proof
        assert read.verify([SIGNER.key]).size == 3

    @pytest.mark.parametrize(
        "change",
        [
            {"leaf": b'{"id":2}'},
            {"index": 0},
            {"index": 3},
            {"index": -1},
            {"path": ()},
            {"path": (b"x" * 32, b"y" * 32)},
            {"path": (b"x",)},
            {"checkpoint": str(sign(Checkpoint("broker.test/ledger", 3, b"x" * 32).text, SIGNER))},
            {"checkpoint": ""},
            {"checkpoint": "a\n\n— b AAAAAAAA\n"},
            {"rotations": ("x",)},
        ],
    )
    def test_a_changed_proof_proves_nothing(self, change):
        """One thing changed, and it is refused; the control is the proof as it was."""
        proof = small_proof()
        proof.verify([SIGNER.key])
        with pytest.raises(LogInvalidError):
            replace(proof, **change).verify([SIGNER.key])

    def test_under_another_key_it_proves_nothing(self):
        """The key decides, not the name in it."""
        with pytest.raises(LogInvalidError):
            small_proof().verify([OTHER.key])

    @pytest.mark.attack("A14")
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b"{}",
            b"null",
            b'{"version":1}',
            b'{"version":2,"type":"inclusion"}',
            b"\xff",
            b"[" * 100_000,
            json.dumps({**small_proof().as_json(), "index": 2**31}).encode(),
            json.dumps({**small_proof().as_json(), "index": "1"}).encode(),
            json.dumps({**small_proof().as_json(), "index": True}).encode(),
            json.dumps({**small_proof().as_json(), "path": ["!"]}).encode(),
            json.dumps({**small_proof().as_json(), "type": "x"}).encode(),
            b" " * (5 << 20),
        ],
    )
    def test_a14_what_is_no_proof_is_refused(self, data):
        """Whatever the file holds, the answer is a sentence."""
        with pytest.raises(LogInvalidError):
            read_proof(data).verify([SIGNER.key])


@pytest.fixture
async def auditor(full):
    """Gives a connection as broker_auditor."""
    conn = await asyncpg.connect(full.database.dsn("broker_auditor"))
    yield conn
    await conn.close()


class TestFromTheLog:
    async def test_every_event_is_proved(self, full, auditor):
        """Each event has its proof, over the ends of tiles, and it is of that event's bytes."""
        await full.integrate(300)
        keys = full.keys.load().keys
        for index in (0, 1, 11, 12, 255, 256, 310, 311):
            proof = await prove_inclusion(auditor, full.storage, keys, full.events[index])
            read = read_proof(json.dumps(proof.as_json()).encode())

            assert read.verify(keys).size == len(full.events)
            assert (read.index, json.loads(read.leaf)["id"]) == (index, str(full.events[index]))

    async def test_an_event_without_a_place_has_no_proof(self, full, auditor):
        """Not yet published, and unknown: two sentences."""
        (waiting,) = await full.append(1)
        keys = full.keys.load().keys
        with pytest.raises(LogInvalidError, match="not published yet"):
            await prove_inclusion(auditor, full.storage, keys, waiting)
        await full.integrate(1)
        await prove_inclusion(auditor, full.storage, keys, waiting)
        await full.sql("DELETE FROM broker.ledger_event WHERE id = $1", waiting)
        with pytest.raises(LogInvalidError, match="No event has that id"):
            await prove_inclusion(auditor, full.storage, keys, waiting)

    async def test_a_changed_event_is_not_proved(self, full, auditor):
        """What was changed after its checkpoint is refused when its proof is made."""
        await full.sql("UPDATE broker.ledger_event SET leaf = leaf || ' ' WHERE id = $1", full.events[3])
        with pytest.raises(LogInvalidError):
            await prove_inclusion(auditor, full.storage, full.keys.load().keys, full.events[3])

    async def test_a_receipts_disclosure_is_found(self, full, auditor):
        """The very bytes of a receipt are in the log; a replaced event is told."""
        keys = full.keys.load().keys
        leaf = await full.superuser.fetchval(
            "SELECT leaf FROM broker.ledger_event WHERE id = $1", full.events[3]
        )

        assert (await find_leaf(auditor, full.storage, keys, leaf, full.events[3])).index == 3
        with pytest.raises(LogInvalidError, match="another event"):
            await find_leaf(auditor, full.storage, keys, leaf + b" ", full.events[3])

    @pytest.mark.attack("A8")
    async def test_a8_consistency(self, full, auditor):
        """The log continues each of its earlier sizes; a fork's root is refused."""
        (old,) = full.keys.load().keys
        kept = (await full.published()).root
        full.keys.rotate()
        await full.integrate(300)
        for size in (1, COUNT, 255, 256, COUNT + 300):
            proof = await prove_consistency(auditor, full.storage, [old], size)
            assert read_proof(json.dumps(proof.as_json()).encode()).verify([old]).size == COUNT + 300
        proof = await prove_consistency(auditor, full.storage, [old], COUNT)
        assert proof.old_root == kept
        assert (await prove_consistency(auditor, full.storage, [old], 5, COUNT)).verify([old]).size == COUNT
        with pytest.raises(LogInvalidError):
            replace(proof, old_root=b"f" * 32).verify([old])
        for old_size, new_size in ((0, None), (COUNT + 301, None), (5, COUNT + 1)):
            with pytest.raises(LogInvalidError):
                await prove_consistency(auditor, full.storage, [old], old_size, new_size)


class TestCosignatures:
    async def test_attached_kept_and_proved(self, full, auditor):
        """A witness's cosignature is published with the checkpoint, kept, and counts in proofs."""
        witness = Witness("witness.test", b"3" * 32)
        keys = TrustedKeys.of(full.keys.load())
        found, _ = await newest_checkpoint(full.storage, keys.keys)
        note = type(sign("x\n", SIGNER)).parse(found.note)
        cosigned = str(note.with_signatures([witness.cosign(note.text, 1_700_000_000)]))
        assert cosigned_by(found.note, [witness.key]) == {}
        assert await attach(full.admin, full.storage, keys, [witness.key], cosigned)
        proof = await prove_inclusion(auditor, full.storage, keys.keys, full.events[0])

        assert cosigned_by(proof.checkpoint, [witness.key]) == {"witness.test": 1_700_000_000}
        assert (
            await auditor.fetchval("SELECT note FROM broker.tlog_checkpoint WHERE size = $1", COUNT)
            == cosigned
        )
        await full.integrate(1)  # the sequencer goes on over it
        assert (await full.published()).size == COUNT + 1
        assert not await attach(full.admin, full.storage, keys, [witness.key], cosigned)
        with pytest.raises(LogInvalidError):
            cosigned_by(found.note, [SIGNER.key])

    @pytest.mark.parametrize("hostile", [True, False])
    async def test_a_hostile_witness_publishes_nothing_of_its_own(self, full, hostile):
        """A legal note full of other signatures: the witness's is taken over, and everybody reads on."""
        witnesses = [Witness(f"witness{n}.test", bytes([n]) * 32) for n in (3, 4)]
        keys = TrustedKeys.of(full.keys.load())
        for at, witness in enumerate(witnesses, 1_700_000_000):
            note = Note.parse((full.folder / "log" / "checkpoint").read_text())
            junk = [Signature("junk", b"junk", bytes([n, at % 256])) for n in range(97)] if hostile else []
            cosigned = str(note.with_signatures([witness.cosign(note.text, at), *junk]))
            assert await attach(full.admin, full.storage, keys, [witness.key], cosigned)

        shown = Note.parse((full.folder / "log" / "checkpoint").read_text())
        assert [each.name for each in shown.signatures] == [
            full.keys.origin,
            "witness3.test",
            "witness4.test",
        ]
        kept = await full.superuser.fetchval("SELECT note FROM broker.tlog_checkpoint WHERE size = $1", COUNT)
        assert Note.parse(kept).signatures == shown.signatures
        await full.integrate(1)
        assert (await full.published()).size == COUNT + 1

    async def test_more_signatures_than_anybody_reads_are_refused(self, full):
        """A witness that signs again and again fills the note; the one that is published stays readable."""
        witness = Witness("witness.test", b"3" * 32)
        keys = TrustedKeys.of(full.keys.load())
        note = Note.parse((full.folder / "log" / "checkpoint").read_text())
        cosigned = str(note.with_signatures([witness.cosign(note.text, at) for at in range(99)]))
        assert await attach(full.admin, full.storage, keys, [witness.key], cosigned)
        again = str(note.with_signatures([witness.cosign(note.text, 100)]))
        with pytest.raises(LogInvalidError, match="at most 100"):
            await attach(full.admin, full.storage, keys, [witness.key], again)
        with pytest.raises(LogInvalidError, match="None of the witnesses"):
            await attach(full.admin, full.storage, keys, [], again)

        assert (await full.published()).size == COUNT
