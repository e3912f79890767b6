"""Signing keys: published before they sign, verifying after, never two of one id, closed to others."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as other_jwt
from joserfc.jwk import KeySet as OtherKeySet

from broker import jose
from broker.client import ReceiptInvalidError, verify_receipt
from broker.client.receipts import root_of
from broker.errors import StartupError, TokenInvalidError
from broker.keys import FileSigner, KeyFolder, KeyState, SigningKeys, published
from tests.client.test_receipts import receipt
from tests.jose.forge import base64url

NOW = 1_800_000_000.0
LEAD, OVERLAP = 600.0, 3900.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    """Gives a folder with its first key."""
    folder = KeyFolder(tmp_path / "keys")
    folder.rotate(NOW, immediately=True)
    return folder


def states(keys, now):
    return [key.state.value for key in keys.list(now)]


def verifies(keys, token):
    try:
        jose.read(token, keys=keys.verifying(), algorithms=("ES256",), types=("t",))
    except TokenInvalidError:
        return False
    return True


class TestRotation:
    def test_life_of_a_key(self, folder):
        """A key is published, signs, verifies and goes, by the clock alone."""
        folder.rotate(NOW)
        table = {
            0: ["active", "published"],
            LEAD - 1: ["active", "published"],
            LEAD: ["retiring", "active"],
            LEAD + OVERLAP - 1: ["retiring", "active"],
            LEAD + OVERLAP: ["gone", "active"],
            10**9: ["gone", "active"],
        }

        assert {after: states(folder, NOW + after) for after in table} == table

    @pytest.mark.attack("J27", "R8")
    def test_overlap(self, folder, clock):
        """No token is refused while it can still run, none is accepted after the overlap."""
        keys = SigningKeys(folder, clock)
        old = keys.sign({"typ": "t"}, {"n": 1})
        folder.rotate(clock.now)
        clock.now += LEAD - 1
        last = keys.sign({"typ": "t"}, {"n": 2})
        clock.now += 1
        new = keys.sign({"typ": "t"}, {"n": 3})
        assert jose.peek(last).kid != jose.peek(new).kid
        assert all(verifies(keys, token) for token in (old, last, new))
        clock.now += OVERLAP - 1
        assert all(verifies(keys, token) for token in (old, last, new))
        clock.now += 1

        assert [verifies(keys, token) for token in (old, last, new)] == [False, False, True]

    @pytest.mark.attack("R8")
    def test_another_process_knows_the_key_before_it_signs(self, folder, clock):
        """A process whose clock is ten seconds behind accepts the first token of a new key."""
        behind = Clock()
        behind.now -= 10
        keys, other = SigningKeys(folder, clock), SigningKeys(folder, behind)
        folder.rotate(clock.now)
        clock.now += LEAD
        behind.now += LEAD

        assert verifies(other, keys.sign({"typ": "t"}, {"n": 1}))

    def test_a_key_is_published_for_its_whole_lead(self, tmp_path):
        """Fractions of a second are rounded in favour of those who have yet to look."""
        folder = KeyFolder(tmp_path / "keys", publish_lead=1.5)
        folder.rotate(NOW, immediately=True)

        assert folder.rotate(NOW + 0.9).sign_time >= NOW + 0.9 + 1.5

    def test_first_key_needs_the_word(self, tmp_path):
        """The first key signs at once, and only the first may."""
        folder = KeyFolder(tmp_path / "keys")
        with pytest.raises(StartupError):
            folder.rotate(NOW)
        assert folder.rotate(NOW, immediately=True).state is KeyState.ACTIVE
        with pytest.raises(StartupError):
            folder.rotate(NOW, immediately=True)

        assert folder.rotate(NOW).state is KeyState.PUBLISHED

    def test_one_rotation_at_a_time(self, folder):
        """While a key waits to sign there is no other rotation."""
        folder.rotate(NOW)
        with pytest.raises(StartupError):
            folder.rotate(NOW + LEAD - 1)

        assert folder.rotate(NOW + LEAD)

    def test_private_halves_go_with_their_keys(self, folder):
        """A key that is gone leaves its public half in the manifest and nothing on disk."""
        first = folder.list(NOW)[0]
        folder.rotate(NOW)
        folder.rotate(NOW + LEAD + OVERLAP)
        assert not (folder.folder / f"{first.kid}.pem").exists()

        assert folder.list(NOW)[0].kid == first.kid
        assert len(list(folder.folder.glob("*.pem"))) == 2

    def test_rotations_at_once(self, folder):
        """Of many rotations at one moment one happens."""
        made = []

        def rotate():
            try:
                made.append(folder.rotate(NOW))
            except StartupError:
                made.append(None)

        threads = [threading.Thread(target=rotate) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len([key for key in made if key]) == 1
        assert len(folder.list(NOW)) == 2

    def test_crash_between_key_and_manifest(self, folder, monkeypatch, clock):
        """A rotation that died before the manifest was written leaves everything as it was."""
        before = folder.list(NOW)
        monkeypatch.setattr(KeyFolder, "_write_manifest", lambda *_: (_ for _ in ()).throw(OSError("power")))
        with pytest.raises(OSError, match="power"):
            folder.rotate(NOW)
        monkeypatch.undo()
        assert folder.list(NOW) == before
        assert SigningKeys(folder, clock).sign({}, {})

        folder.rotate(NOW)
        assert len(list(folder.folder.glob("*.pem"))) == 2  # the orphan is swept

    def test_an_old_receipt_is_verified_with_a_key_that_is_gone(self, folder, clock):
        """Published it is no more; the public half that the folder keeps proves the receipt as it did."""
        keys = SigningKeys(folder, clock)
        unsigned = receipt()
        root = base64url(root_of(unsigned.leaf, unsigned.leaf_index, unsigned.tree_size, unsigned.path))
        claims = {"root": root, "size": unsigned.tree_size, "iat": int(NOW)}
        old = replace(unsigned, signed_root=keys.sign({"typ": "broker-receipt+jwt"}, claims))
        assert verify_receipt(old, keys.jwks())
        folder.rotate(NOW)
        clock.now += LEAD + OVERLAP
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(old, keys.jwks())

        assert verify_receipt(old, {"keys": [published(key) for key in folder.list(clock.now)]})


class TestRevocation:
    def test_a_stolen_key_ends_at_once(self, folder, clock):
        """What a revoked key signed is refused within a second, and another key signs."""
        keys = SigningKeys(folder, clock)
        stolen = keys.sign({"typ": "t"}, {"n": 1})
        assert verifies(keys, stolen)
        heir = folder.revoke(jose.peek(stolen).kid, clock.now)
        clock.now += 1

        assert not verifies(keys, stolen)
        assert jose.peek(keys.sign({"typ": "t"}, {"n": 2})).kid == heir.kid

    @pytest.mark.attack("R8")
    def test_another_process_knows_the_heir_at_once(self, folder, clock):
        """What the heir signs is accepted by a process whose next look at the keys is yet to come."""
        keys, other = SigningKeys(folder, clock), SigningKeys(folder, clock)
        stolen = keys.sign({"typ": "t"}, {"n": 1})
        heir = folder.revoke(jose.peek(stolen).kid, clock.now)
        token = SigningKeys(folder, clock).sign({"typ": "t"}, {"n": 2})

        assert jose.peek(token).kid == heir.kid
        assert other.verifying().get(heir.kid) is None, "control: it has not looked yet"
        assert other.verifying(heir.kid).get(heir.kid) is not None
        assert keys.known(heir.kid).get(heir.kid) is not None

    def test_a_made_up_id_costs_no_more_than_a_look(self, folder, clock):
        """Nothing is worked out anew for it: the keys in force are the very set that they were."""
        keys = SigningKeys(folder, clock)
        before = keys.verifying()

        assert keys.verifying("made-up") is before
        assert keys.verifying() is before

    def test_the_published_key_takes_over(self, folder):
        """A key that waits to sign need not wait when the active one is stolen."""
        waiting = folder.rotate(NOW)
        active = folder.list(NOW)[0]

        assert folder.revoke(active.kid, NOW).kid == waiting.kid
        assert states(folder, NOW) == ["gone", "active"]

    def test_a_stolen_key_that_waits(self, folder):
        """The active key goes on for good when its successor is revoked."""
        waiting = folder.rotate(NOW)
        folder.revoke(waiting.kid, NOW)

        assert states(folder, NOW + LEAD + OVERLAP) == ["active", "gone"]
        assert folder.rotate(NOW)

    def test_a_stolen_key_that_retires(self, folder):
        """Nothing else changes when a key is revoked that no longer signs."""
        folder.rotate(NOW)
        folder.rotate(NOW + LEAD)
        first, second, third = folder.list(NOW + LEAD)
        assert folder.revoke(first.kid, NOW + LEAD).kid == second.kid

        assert states(folder, NOW + LEAD) == ["gone", "active", "published"]
        assert folder.list(NOW)[2].sign_time == third.sign_time

    @pytest.mark.parametrize("theirs", [".", "*.pem"])
    def test_another_users_folder(self, folder, monkeypatch, theirs):
        """Nobody but the folder's user revokes: what another one writes the broker could not read."""
        (path,) = folder.folder.glob(theirs) if theirs != "." else [folder.folder]
        (folder.folder / ".lock").unlink()
        kid = folder.list(NOW)[0].kid
        before = folder.stamp()
        found = path.stat()
        stat = Path.stat

        def stat_of_another(self, **options):
            if self != path:
                return stat(self, **options)
            return os.stat_result((*found[:4], os.geteuid() + 1, *found[5:]))

        monkeypatch.setattr(Path, "stat", stat_of_another)
        monkeypatch.setattr("broker.keys.folder.check_mode", lambda *_: None)  # it lets root's files pass
        for act in (lambda: folder.revoke(kid, NOW), lambda: folder.rotate(NOW)):
            with pytest.raises(StartupError, match="belongs to another user"):
                act()
        assert folder.stamp() == before
        assert not (folder.folder / ".lock").exists()
        monkeypatch.undo()

        assert folder.revoke(kid, NOW)

    def test_unknown(self, folder):
        """Only a living key can be revoked."""
        with pytest.raises(StartupError):
            folder.revoke("unknown", NOW)


class TestFiles:
    def test_modes(self, folder):
        """Folder, keys and manifest are the owner's alone."""
        assert folder.folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.folder.iterdir()} == {0o600}

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
    def test_open_key_refused(self, folder, clock, mode):
        """A private key that others may read or write stops the start."""
        (path,) = folder.folder.glob("*.pem")
        path.chmod(mode)
        with pytest.raises(StartupError, match="lets others in"):
            SigningKeys(folder, clock)
        path.chmod(0o600)

        assert SigningKeys(folder, clock)

    @pytest.mark.parametrize("name", [".", "manifest.json"])
    def test_open_folder_refused(self, folder, clock, name):
        """A folder or manifest that others may write stops the start."""
        path = folder.folder / name
        mode = path.stat().st_mode
        path.chmod(0o722)
        with pytest.raises(StartupError, match="lets others in"):
            SigningKeys(folder, clock)
        path.chmod(mode)

        assert SigningKeys(folder, clock)

    @pytest.mark.attack("J27")
    def test_two_keys_one_id(self, folder, clock):
        """A key file that holds another key than its name says stops the start."""
        (path,) = folder.folder.glob("*.pem")
        good = path.read_bytes()
        other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(other)
        with pytest.raises(StartupError, match="two keys would have one kid"):
            SigningKeys(folder, clock)
        path.write_bytes(good)

        assert SigningKeys(folder, clock)

    @pytest.mark.attack("J27")
    def test_manifest_names_a_key_twice(self, folder, clock):
        """A manifest with one id twice stops the start."""
        path = folder.folder / "manifest.json"
        good = path.read_text()
        document = json.loads(good)
        path.write_text(json.dumps({**document, "keys": document["keys"] * 2}))
        with pytest.raises(StartupError, match="one kid"):
            SigningKeys(folder, clock)
        path.write_text(good)

        assert SigningKeys(folder, clock)

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "[]", '{"version":2,"keys":[]}', '{"version":1,"keys":[1]}', '{"version":1,"keys":[{}]}'],
    )
    def test_broken_manifest(self, folder, clock, text):
        """A manifest that is none stops the start; a running server goes on with its last good keys."""
        keys = SigningKeys(folder, clock)
        path = folder.folder / "manifest.json"
        good = path.read_text()
        path.write_text(text)
        with pytest.raises(StartupError):
            SigningKeys(folder, clock)
        clock.now += 2
        assert verifies(keys, keys.sign({"typ": "t"}, {}))
        assert keys.trouble()
        path.write_text(good)
        clock.now += 2

        assert not keys.trouble()
        assert keys.sign({}, {})

    def test_nothing_there(self, tmp_path, clock):
        """Without a key there is no start, and the message says how to make one."""
        with pytest.raises(StartupError, match="rotate --now"):
            SigningKeys(tmp_path / "none", clock)

    def test_vanished_folder(self, folder, clock, tmp_path):
        """A running server survives its folder."""
        keys = SigningKeys(folder, clock)
        folder.folder.rename(tmp_path / "away")
        clock.now += 2

        assert keys.sign({}, {})
        assert keys.error


class TestSigning:
    def test_other_libraries_verify(self, folder, clock):
        """What we sign verifies with another library, from nothing but our JWK Set."""
        keys = SigningKeys(folder, clock)
        token = keys.sign({"typ": "broker-grant+jwt"}, {"sub": "alice"})
        other = OtherKeySet.import_key_set(json.loads(keys.jwks()))

        decoded = other_jwt.decode(token, other, algorithms=["ES256"])
        assert decoded.claims == {"sub": "alice"}
        assert decoded.header["typ"] == "broker-grant+jwt"

    def test_jwks_holds_nothing_private(self, folder, clock):
        """The published set says what verifies, and no more."""
        (key,) = json.loads(SigningKeys(folder, clock).jwks())["keys"]

        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}

    def test_bytes(self, folder, clock):
        """A signature over bytes is for one label, one text and one key, and outlives the key."""
        keys = SigningKeys(folder, clock)
        kid, signature = keys.sign_bytes("receipt", b"root")
        assert not keys.verify_bytes(kid, "checkpoint", b"root", signature)
        assert not keys.verify_bytes(kid, "receipt", b"roof", signature)
        assert not keys.verify_bytes("unknown", "receipt", b"root", signature)
        assert not keys.verify_bytes(kid, "receipt", b"root", b"\0" * 64)
        assert not keys.verify_bytes(kid, "receipt", b"root", signature[:-1])
        folder.rotate(clock.now)
        clock.now += LEAD + OVERLAP

        assert keys.verify_bytes(kid, "receipt", b"root", signature)

    def test_bytes_are_never_a_token(self, folder, clock):
        """Whoever chooses the bytes cannot have a token signed."""
        keys = SigningKeys(folder, clock)
        head, payload, _ = keys.sign({"typ": "t"}, {"sub": "mallory"}).split(".")
        _, signature = keys.sign_bytes("receipt", f"{head}.{payload}".encode())

        assert not verifies(keys, f"{head}.{payload}.{base64url(signature)}")

    def test_another_signer(self, folder, clock):
        """A key management service takes the place of the files at one seam."""
        asked = []

        class Service:
            def __init__(self, kid, private):
                self.kid = kid
                self.private = private

            def sign(self, data):
                asked.append(data)
                return FileSigner(self.kid, self.private).sign(data)

        keys = SigningKeys(folder, clock, signer=lambda info: Service(info.kid, folder.private_key(info.kid)))

        assert verifies(keys, keys.sign({"typ": "t"}, {}))
        assert len(asked) == 1
