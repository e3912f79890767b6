"""Signed notes as C2SP and Go's package write and read them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.note import FileNoteSigner, Note, NoteInvalidError, VerifierKey, sign
from tests.tlog.witness import Witness

GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
    "yBwJnAM=\n"
)
"""Key and note of the documentation of golang.org/x/mod/sumdb/note."""

SIGNER = FileNoteSigner("broker.test/ledger", Ed25519PrivateKey.from_private_bytes(b"1" * 32))
OTHER = FileNoteSigner("broker.test/ledger", Ed25519PrivateKey.from_private_bytes(b"2" * 32))


def test_reads_gos_note():
    """A note that Go signed verifies here, under Go's key."""
    key = VerifierKey.parse(GO_KEY)

    assert str(key) == GO_KEY
    assert [key] == Note.parse(GO_NOTE).verified_by([key])
    assert str(Note.parse(GO_NOTE)) == GO_NOTE


def test_round_trip():
    """What is signed verifies, under the right key alone, and only as it was."""
    note = Note.parse(str(sign("a\nb\n", SIGNER)))

    assert [SIGNER.key] == note.verified_by([OTHER.key, SIGNER.key])
    assert Note(note.text.replace("a", "c"), note.signatures).verified_by([SIGNER.key]) == []
    assert SIGNER.key == VerifierKey.parse(str(SIGNER.key))


def test_a_signature_under_another_name_is_none():
    """Name and id select the key: the same key under another name has another id."""
    note = sign("a\n", SIGNER)
    renamed = VerifierKey("elsewhere", SIGNER.key.algorithm, SIGNER.key.public)

    assert [SIGNER.key] == note.verified_by([SIGNER.key])
    assert note.verified_by([renamed]) == []


def test_a_witness_cosigns_with_its_time():
    """A cosignature holds for its time, and falls when time or text are changed."""
    witness = Witness("witness.test", b"3" * 32)
    note = sign("a\n", SIGNER)
    cosignature = witness.cosign(note.text, 1_700_000_000)
    cosigned = Note.parse(str(note.with_signatures([cosignature])))
    later = bytes([*cosignature.data[:7], cosignature.data[7] + 1, *cosignature.data[8:]])

    assert [SIGNER.key, witness.key] == cosigned.verified_by([SIGNER.key, witness.key])
    assert witness.key == VerifierKey.parse(str(witness.key))
    assert not witness.key.verifies(note.text, later)
    assert not witness.key.verifies("b\n", cosignature.data)
    assert not witness.key.verifies(note.text, SIGNER.sign(note.text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "a\n",
        "a\n\n",
        "a\n\nno dash\n",
        "a\n\n— name\n",
        "a\n\n— name AAAA\n",
        "a\n\n— name !!!!\n",
        "a\n\n— na+me AAAAAAAA\n",
        "a\n\n— name AAAAAAAA",
        "a\n\n— name AAAAAAAA\r\n",
        "a\x00\n\n— name AAAAAAAA\n",
        "a\n\n— name AAAAAAAB=\n",
        "a\n\n" + "— name AAAAAAAA\n" * 101,
        "a" * (1 << 20) + "\n\n— name AAAAAAAA\n",
    ],
)
def test_what_is_no_note_is_refused(text):
    """A note has one form; the control is the same with a whole signature line."""
    Note.parse("a\n\n— name AAAAAAAA\n")
    with pytest.raises(NoteInvalidError):
        Note.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        GO_KEY[:-4],
        GO_KEY.replace("c74f", "c74e"),
        GO_KEY.replace("Peter", "Paul"),
        "a b+00000000+AQ==",
    ],
)
def test_what_is_no_key_is_refused(text):
    """A key whose id is not its own, or that is cut short, is none."""
    with pytest.raises(NoteInvalidError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("text", ["a", "a\n\nb\n"])
def test_what_cannot_be_a_note_is_not_signed(text):
    """Text without its newline, or with a blank line, would not be read back as it was signed."""
    with pytest.raises(NoteInvalidError):
        sign(text, SIGNER)
