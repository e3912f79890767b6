"""The transparency log's keys: Ed25519 private keys in files, handed over by a record that both sign.

    log-keys.json   {"version": 1, "origin": …, "keys": [vkey, …], "rotations": [note, …]}
    <id>.pem        private key, mode 0600; deleted once its successor has taken over

Invariants:
- keys stand in the order of their reign; each rotation is signed by the key that goes and the one that
  comes, and names the tree's size: the old one signs up to it, the new one from it on (A13);
- only the sequencer hands over, because only it knows the size that it signed last; the command makes the
  next key and leaves it waiting;
- whoever steals the key can sign a forked log; witnesses and auditors who kept a checkpoint would see it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.errors import StartupError
from broker.jose import strictjson
from broker.keys.folder import check_mode, locked, write_durably
from broker.note import FileNoteSigner, Note, NoteInvalidError, VerifierKey, sign

LOG_MANIFEST = "log-keys.json"
ROTATION = "support-access-broker/log-key-rotation/v1"

MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Rotation:
    """What both keys sign: from this size on the new one speaks for the log."""

    origin: str
    size: int
    old: VerifierKey
    new: VerifierKey

    @property
    def text(self) -> str:
        """Writes what is signed."""
        return f"{ROTATION}\n{self.origin}\n{self.size}\n{self.old}\n{self.new}\n"

    @classmethod
    def verified(cls, note: Note) -> Rotation:
        """Reads a record of rotation and checks both signatures.

        Raises:
            NoteInvalidError: it is none, or one of the two did not sign it.
        """
        lines = note.text.split("\n")
        if len(lines) != 6 or lines[0] != ROTATION or not lines[2].isdecimal():  # noqa: PLR2004 - see `text`
            raise NoteInvalidError("not a record of rotation")
        found = cls(lines[1], int(lines[2]), VerifierKey.parse(lines[3]), VerifierKey.parse(lines[4]))
        if found.text != note.text or len(note.verified_by([found.old, found.new])) != 2:  # noqa: PLR2004
            raise NoteInvalidError("a record of rotation is not signed by both keys")
        return found


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The public side: who signed which sizes, and who signs now."""

    keys: tuple[VerifierKey, ...]
    rotations: tuple[Note, ...]

    @property
    def active(self) -> VerifierKey:
        """Gives the key that signs."""
        return self.keys[len(self.rotations)]

    @property
    def waiting(self) -> VerifierKey | None:
        """Gives the key that takes over at the next checkpoint."""
        return self.keys[-1] if len(self.keys) > len(self.rotations) + 1 else None


class LogKeyFolder:
    """The folder with a log's keys."""

    def __init__(self, folder: Path, origin: str) -> None:
        """Takes the folder, on a local disk and writable by the broker's user alone, and the log's name."""
        self.folder = folder
        self.origin = origin
        self._cached: tuple[tuple[int, int, int], LogKeys, FileNoteSigner] | None = None

    def create(self) -> VerifierKey:
        """Makes the first key.

        Raises:
            StartupError: there is one.
        """
        with locked(self.folder):
            if self._read() is not None:
                raise StartupError("the log has a key: make the next one without --now")
            fresh = self._generate(())
            self._write((fresh,), ())
            return fresh

    def rotate(self) -> VerifierKey:
        """Makes the next key; the sequencer takes it into use at its next checkpoint.

        Raises:
            StartupError: there is no first one, or one waits already.
        """
        with locked(self.folder):
            found = self.load()
            if found.waiting is not None:
                raise StartupError("a new key waits for the sequencer to take it into use")
            fresh = self._generate(found.keys)
            self._write((*found.keys, fresh), found.rotations)
            return fresh

    def load(self) -> LogKeys:
        """Reads the public side.

        Raises:
            StartupError: there is no key yet, or the manifest is wrong.
        """
        found = self._read()
        if found is None:
            raise StartupError(f"{self.folder}: no log key; make one with: broker keys rotate --log --now")
        return found

    def signer(self, size: int) -> FileNoteSigner:
        """Gives the key that signs the next checkpoint; hands over to a waiting key at `size`.

        Args:
            size: of the last checkpoint that was signed.

        Raises:
            StartupError: there is no key, or others may read it.
        """
        stamp = self._stamp()
        if self._cached is not None and self._cached[0] == stamp:
            return self._cached[2]
        found = self.load()
        if found.waiting is not None:
            with locked(self.folder):
                found = self.load()
                if found.waiting is not None:
                    found = self._hand_over(found, found.waiting, size)
        signer = FileNoteSigner(self.origin, self._private(found.active))
        self._cached = (self._stamp(), found, signer)
        return signer

    def active_signer(self) -> FileNoteSigner:
        """Gives the key that signs now, and hands over to none: for statements beside the tree.

        Raises:
            StartupError: there is no key, or others may read it.
        """
        return FileNoteSigner(self.origin, self._private(self.load().active))

    def _hand_over(self, found: LogKeys, waiting: VerifierKey, size: int) -> LogKeys:
        rotation = Rotation(self.origin, size, found.active, waiting)
        signers = [FileNoteSigner(self.origin, self._private(key)) for key in (found.active, waiting)]
        # The record is durable before the old key is gone: if we die between, a file is left that
        # signs nothing any more.
        self._write(found.keys, (*found.rotations, sign(rotation.text, *signers)))
        self._file(found.active).unlink()
        return self.load()

    def _private(self, key: VerifierKey) -> Ed25519PrivateKey:
        path = self._file(key)
        try:
            check_mode(path, 0o077)
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as exc:
            raise StartupError(f"{path}: no private key: {type(exc).__name__}") from exc
        if (
            not isinstance(private, Ed25519PrivateKey)
            or private.public_key().public_bytes_raw() != key.public
        ):
            raise StartupError(f"{path}: not the key that its name says")
        return private

    def _generate(self, others: Sequence[VerifierKey]) -> VerifierKey:
        private = Ed25519PrivateKey.generate()
        key = FileNoteSigner(self.origin, private).key
        if key.key_id in {other.key_id for other in others}:
            raise StartupError("two keys would have one id; try again")
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_durably(self._file(key), pem)
        return key

    def _file(self, key: VerifierKey) -> Path:
        return self.folder / f"{key.key_id.hex()}.pem"

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = (self.folder / LOG_MANIFEST).stat()
        except OSError as exc:
            raise StartupError(f"{self.folder}: no log key: {type(exc).__name__}") from exc
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _write(self, keys: Sequence[VerifierKey], rotations: Sequence[Note]) -> None:
        document = {
            "version": 1,
            "origin": self.origin,
            "keys": [str(key) for key in keys],
            "rotations": [str(note) for note in rotations],
        }
        write_durably(self.folder / LOG_MANIFEST, (json.dumps(document, indent=2) + "\n").encode("ascii"))

    def _read(self) -> LogKeys | None:
        path = self.folder / LOG_MANIFEST
        try:
            check_mode(self.folder, 0o022)
            check_mode(path, 0o022)
            with path.open("rb") as file:
                document = strictjson.loads(file.read(MAX_MANIFEST_BYTES))
            return self._parse(document)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StartupError(f"{path}: {type(exc).__name__}") from exc
        except (strictjson.StrictJsonError, NoteInvalidError) as exc:
            raise StartupError(f"{path}: {exc}") from exc

    def _parse(self, document: strictjson.Json) -> LogKeys:
        if not isinstance(document, dict) or document.get("version") != 1:
            raise NoteInvalidError("not a manifest of version 1")
        if document.get("origin") != self.origin:
            raise NoteInvalidError("the keys of another log; BROKER_TLOG_ORIGIN must stay as it was")
        keys, rotations = document.get("keys"), document.get("rotations")
        if not isinstance(keys, list) or not isinstance(rotations, list) or not keys:
            raise NoteInvalidError("no list of keys")
        found = LogKeys(
            tuple(VerifierKey.parse(str(key)) for key in keys),
            tuple(Note.parse(str(note)) for note in rotations),
        )
        if not 0 <= len(keys) - len(rotations) - 1 <= 1:
            raise NoteInvalidError("a rotation is missing")
        return found
