"""The folder of signing keys: one PEM file a key, and a manifest that says from when to when.

    manifest.json   {"version": 1, "keys": [{kid, create_time, sign_time, gone_time, public}, …]}
    <kid>.pem       private key, mode 0600; deleted when the key is gone

Order of writes: the key's file is durable before the manifest names it, and the manifest stops
naming a key as usable before its file is deleted. If we die in between, a file is left that nobody
reads; the next rotation removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import jose
from broker.errors import StartupError
from broker.jose import strictjson
from broker.jose.strictjson import Json

PUBLISH_LEAD = 600.0
"""Seconds between publishing a key and signing with it: longer than verifiers keep our JWKS."""

OVERLAP = 3900.0
"""Seconds a key verifies after the next one took over: the longest grant (3600) and some margin."""

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
_KEY_FILE = re.compile(r"[A-Za-z0-9_-]{43}\.pem")
_LOCK = ".lock"
_TEMPORARY = ".new"


class KeyState(StrEnum):
    """Life of a key, in this order and never back."""

    PUBLISHED = "published"  # in the JWKS; signs from `sign_time` on
    ACTIVE = "active"  # signs
    RETIRING = "retiring"  # verifies until `gone_time`
    GONE = "gone"  # known by its public half alone, for old receipts


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key of the manifest; times are POSIX seconds."""

    kid: str
    create_time: float
    sign_time: float  # signs from here on, until a younger key does
    gone_time: float | None  # verifies until here; None while no successor is planned
    public: jose.Key
    state: KeyState


class KeyFolder:
    """The keys on disk, for the commands; `SigningKeys` is what a server uses."""

    def __init__(self, folder: Path, *, publish_lead: float = PUBLISH_LEAD, overlap: float = OVERLAP) -> None:
        """Takes the folder; it is made by the first rotation.

        Args:
            folder: on a local disk, writable by the broker's user alone.
            publish_lead: seconds a new key is published before it signs.
            overlap: seconds an old key verifies after it last signed; at least a grant's life.
        """
        self.folder = folder
        self._lead = publish_lead
        self._overlap = overlap

    def stamp(self) -> tuple[int, int, int] | None:
        """Identifies the manifest's present content by its inode; None where there is none."""
        try:
            found = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def list(self, now: float) -> tuple[KeyInfo, ...]:
        """Gives all keys that ever were, oldest first, with their state at `now`.

        Raises:
            StartupError: the manifest is wrong, or others may write it.
        """
        path = self.folder / MANIFEST
        try:
            check_mode(self.folder, 0o022)
            check_mode(path, 0o022)
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise StartupError(f"{path}: {type(exc).__name__}") from exc
        return with_states(_parse(data, path), now)

    def rotate(self, now: float, *, immediately: bool = False) -> KeyInfo:
        """Makes the next key: published now, signing after the lead; durable once it returns.

        Args:
            now: POSIX seconds.
            immediately: sign with it at once; only where there is no key to wait for.

        Raises:
            StartupError: the last rotation is still under way, or `immediately` without need.
        """
        signs_at = math.ceil(now + self._lead)  # the manifest holds whole seconds; never less than the lead
        now = int(now)
        with locked(self.folder):
            keys = self.list(now)
            living = [key for key in keys if key.state is not KeyState.GONE]
            if immediately and living:
                raise StartupError(
                    "there is a key: a new one signs after its lead, so that verifiers know it"
                )
            if not immediately and not living:
                raise StartupError("there is no key yet: make the first one with --now")
            if any(key.state is KeyState.PUBLISHED for key in living):
                raise StartupError("a published key waits to sign; rotate again when it does")
            sign_time = now if immediately else signs_at
            fresh = self._generate(now, sign_time)
            gone_time = sign_time + self._overlap
            kept = [replace(k, gone_time=k.gone_time or gone_time) for k in keys]
            self._write_manifest([*kept, fresh])
            self._sweep([*kept, fresh], now)
            return fresh

    def revoke(self, kid: str, now: float) -> KeyInfo:
        """Ends a stolen key at once, with everything it signed; gives the key that signs from now on.

        Raises:
            StartupError: no living key has that id.
        """
        now = int(now)
        with locked(self.folder):
            keys = self.list(now)
            stolen = next((k for k in keys if k.kid == kid and k.state is not KeyState.GONE), None)
            if stolen is None:
                raise StartupError("no living key has that id; see `broker keys list`")
            rest = [replace(k, gone_time=now) if k is stolen else k for k in keys]
            waiting = next((k for k in rest if k.state is KeyState.PUBLISHED), None)
            match stolen.state:
                case KeyState.ACTIVE if waiting is not None:
                    rest = [replace(k, sign_time=now) if k is waiting else k for k in rest]
                case KeyState.ACTIVE:
                    rest.append(self._generate(now, now))
                case KeyState.PUBLISHED:  # the one it would have followed goes on for good
                    rest = [replace(k, gone_time=None) if k.state is KeyState.ACTIVE else k for k in rest]
            self._write_manifest(rest)
            self._sweep(rest, now)
            return next(k for k in with_states(rest, now) if k.state is KeyState.ACTIVE)

    def private_key(self, kid: str) -> ec.EllipticCurvePrivateKey:
        """Reads one private key.

        Raises:
            StartupError: others may read it, or it is not the key that its name says (J27).
        """
        path = self.folder / f"{kid}.pem"
        try:
            check_mode(path, 0o077)
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as exc:
            raise StartupError(f"{path}: no private key: {type(exc).__name__}") from exc
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise StartupError(f"{path}: not a P-256 key")
        if jose.thumbprint(jose.public_jwk(private.public_key())) != kid:
            raise StartupError(f"{path}: holds another key than its name says; two keys would have one kid")
        return private

    def _generate(self, now: float, sign_time: float) -> KeyInfo:
        private = ec.generate_private_key(ec.SECP256R1())
        public = jose.key_from_public(private.public_key())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_durably(self.folder / f"{public.kid}.pem", pem)
        state = KeyState.ACTIVE if sign_time <= now else KeyState.PUBLISHED
        return KeyInfo(public.kid, now, sign_time, None, public, state)

    def _write_manifest(self, keys: Sequence[KeyInfo]) -> None:
        entries: list[Json] = [
            {
                "kid": key.kid,
                "create_time": int(key.create_time),
                "sign_time": int(key.sign_time),
                "gone_time": None if key.gone_time is None else int(key.gone_time),
                "public": {**jose.public_jwk(key.public.public), "kid": key.kid},
            }
            for key in keys
        ]
        text = json.dumps({"version": 1, "keys": entries}, indent=2) + "\n"
        write_durably(self.folder / MANIFEST, text.encode("ascii"))

    def _sweep(self, keys: Sequence[KeyInfo], now: float) -> None:
        """Deletes the private halves of keys that are gone, and files of rotations that never finished."""
        living = {f"{key.kid}.pem" for key in with_states(keys, now) if key.state is not KeyState.GONE}
        for path in self.folder.iterdir():
            name = path.name.removesuffix(_TEMPORARY)
            if _KEY_FILE.fullmatch(name) and (path.name != name or name not in living):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps two changes of a folder of keys apart, making it where needed; a crash frees the lock.

    What is written belongs to whoever runs us. Were that another user than the broker's, root above all, then
    the broker could not read it, and a key that is revoked here would go on signing there.

    Raises:
        StartupError: the folder or a key in it belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder, *folder.glob("*.pem")):
        if path.stat().st_uid != os.geteuid():
            raise StartupError(
                f"{path}: belongs to another user; run this as the user that the broker runs as"
            )
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_mode(path: Path, forbidden: int) -> None:
    """Refuses a file or folder that people other than its owner may use.

    Raises:
        StartupError: a forbidden mode bit is set, or it belongs to somebody else.
    """
    found = path.stat()
    if found.st_mode & forbidden:
        raise StartupError(f"{path}: mode {found.st_mode & 0o777:04o} lets others in; chmod go-rwx it")
    if found.st_uid not in {0, os.geteuid()}:
        raise StartupError(f"{path}: belongs to another user")


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file (0600) whole or not at all; it is durable once this returns."""
    temporary = path.with_name(path.name + _TEMPORARY)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parse(data: bytes, path: Path) -> list[KeyInfo]:
    try:
        document = strictjson.loads(data)
        entries = (
            document.get("keys") if isinstance(document, dict) and document.get("version") == 1 else None
        )
        if not isinstance(entries, list):
            raise StartupError(f"{path}: not a manifest of version 1")
        keys = [_parse_entry(entry) for entry in entries]
        jose.KeySet(key.public for key in keys)  # refuses two of one kid
    except (strictjson.StrictJsonError, jose.KeySetInvalidError, KeyError, TypeError) as exc:
        raise StartupError(f"{path}: {exc}") from exc
    return keys


def _parse_entry(entry: Json) -> KeyInfo:
    if not isinstance(entry, dict):
        raise TypeError("a key is not an object")
    kid, gone = entry["kid"], entry["gone_time"]
    times = [entry["create_time"], entry["sign_time"], 0 if gone is None else gone]
    create, sign, end = (value if type(value) is int else None for value in times)
    if create is None or sign is None or end is None:
        raise TypeError("a time is not whole POSIX seconds")
    public = next(iter(jose.KeySet.from_jwks(json.dumps({"keys": [entry["public"]]}))))
    if public.kid != kid or public.thumbprint != kid:
        raise jose.KeySetInvalidError("a kid is not its key's thumbprint")
    return KeyInfo(kid, create, sign, None if gone is None else end, public, KeyState.GONE)


def with_states(keys: Sequence[KeyInfo], now: float) -> tuple[KeyInfo, ...]:
    """Computes the states: of the living keys whose time to sign has come, the youngest signs.

    Where none has come of age the eldest signs: another machine, whose clock is ahead, made it.
    """
    living = [key for key in keys if key.gone_time is None or now < key.gone_time]
    signing = [key for key in living if key.sign_time <= now]
    eldest = min(living, key=lambda key: key.sign_time, default=None)
    active = max(signing, key=lambda key: key.sign_time, default=eldest)

    def state(key: KeyInfo) -> KeyState:
        if key not in living:
            return KeyState.GONE
        if key is active:
            return KeyState.ACTIVE
        return KeyState.PUBLISHED if key.sign_time > now else KeyState.RETIRING

    return tuple(replace(key, state=state(key)) for key in keys)
