"""Key sets: which keys count, and what spoils them all."""

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

from broker import jose
from broker.errors import StartupError, TokenInvalidError
from tests.jose.forge import AgentWorld, base64url

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose


def jwk(private, **changes):
    members = {**jose.public_jwk(private.public_key()), "kid": "k1", **changes}
    return {name: value for name, value in members.items() if value is not None}


def key_set(*keys):
    return jose.KeySet.from_jwks(json.dumps({"keys": keys}))


class TestBinding:
    @pytest.mark.parametrize(
        ("key", "algorithms"),
        [
            (jwk(P256), {"ES256"}),
            (jwk(P384), {"ES384"}),
            (jwk(ED), {"EdDSA"}),
            (jwk(ED, alg="Ed25519"), {"EdDSA"}),
            (jwk(RSA), {"RS256", "RS384", "PS256"}),
            (jwk(RSA, alg="PS256", use="sig", key_ops=["verify"], x5t="ignored"), {"PS256"}),
        ],
    )
    def test_a_key_checks_its_own_algorithms(self, key, algorithms):
        """Type and curve say what a key may check; its own `alg` narrows that."""
        assert key_set(key).get("k1").algorithms == algorithms

    @pytest.mark.attack("J29")
    @pytest.mark.parametrize("alg", ["EdDSA", "ES256", "ES384", "RS256", "PS256", "RS384"])
    async def test_the_token_does_not_choose(self, tmp_path, alg):
        """With every algorithm accepted, a key still checks none but its own."""
        every = ("ES256", "ES384", "RS256", "RS384", "PS256", "EdDSA")
        world = AgentWorld(tmp_path, algorithms=every)
        for private in (P256, P384, ED, RSA):
            world.jwks.write_text(json.dumps({"keys": [jwk(private), {**jwk(world.key), "kid": "good"}]}))
            own = key_set(jwk(private)).get("k1").algorithms
            if alg not in own:
                with pytest.raises(TokenInvalidError) as caught:
                    await world.accept(world.token(world.header(alg=alg, kid="k1")))
                assert caught.value.cause == "alg is not the key's"

            assert await world.accept(world.token(world.header(kid="good")))


class TestLeftOut:
    @pytest.mark.parametrize(
        "key",
        [
            jwk(WEAK_RSA, kid="odd"),
            jwk(rsa.generate_private_key(3, 2048), kid="odd"),
            jwk(RSA, kid="odd", use="enc"),
            jwk(RSA, kid="odd", key_ops=["encrypt"]),
            jwk(RSA, kid="odd", alg="RSA-OAEP"),
            jwk(P256, kid="odd", alg="ES384"),
            jwk(RSA, kid="odd", alg="HS256"),
            jwk(ec.generate_private_key(ec.SECP521R1()), kid="odd"),
            jwk(ec.generate_private_key(ec.SECP256K1()), kid="odd"),
            {"kty": "OKP", "crv": "X25519", "kid": "odd",
             "x": base64url(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw())},
            {"kty": "OKP", "crv": "Ed448", "kid": "odd",
             "x": base64url(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())},
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "odd"},
            jwk(P256, kid=None),
            jwk(P256, kid=7),
            jwk(P256, kid="has space"),
        ],
    )  # fmt: skip
    def test_keys_that_are_none_of_our_business(self, key):
        """A key for something else, of an unknown kind or too weak does not shut out the others."""
        keys = key_set(key, jwk(P256))
        assert {found.kid for found in keys} == {"k1"}

        with pytest.raises(jose.KeySetInvalidError):
            key_set(key)


class TestSpoilt:
    @pytest.mark.attack("J27")
    def test_two_keys_with_one_id(self):
        """Two keys of one id are refused, in either order, also when they are the same."""
        for pair in ((jwk(P256), jwk(ED)), (jwk(ED), jwk(P256)), (jwk(P256), jwk(P256))):
            with pytest.raises(jose.KeySetInvalidError):
                key_set(*pair)

        assert len(key_set(jwk(P256), jwk(ED, kid="k2"))) == 2

    @pytest.mark.attack("J2")
    @pytest.mark.parametrize(
        "extra", [{"d": "AAAA"}, {"kty": "oct", "k": "AAAA"}, {"k": "AAAA"}, {"p": "AA"}]
    )
    def test_secrets_in_public(self, extra):
        """A set that publishes a secret is not a set to trust."""
        with pytest.raises(jose.KeySetInvalidError):
            key_set({**jwk(P256), **extra}, jwk(ED, kid="k2"))

        assert len(key_set(jwk(P256), jwk(ED, kid="k2"))) == 2

    @pytest.mark.attack("J29")
    @pytest.mark.parametrize(
        "changes",
        [
            {"crv": "P-384"},
            {"x": "AAAA"},
            {"y": base64url(b"\0" * 32)},
            {"x": base64url(b"\0" * 32), "y": base64url(b"\0" * 32)},
            {"x": None},
            {"x": 1},
            {"x": "!!"},
            {"x": ["AAAA"]},
        ],
    )
    def test_points_off_the_curve(self, changes):
        """Coordinates that are no point of the named curve spoil the set."""
        with pytest.raises(jose.KeySetInvalidError):
            key_set(jwk(P256, **changes), jwk(ED, kid="k2"))

        assert len(key_set(jwk(P256), jwk(ED, kid="k2"))) == 2

    @pytest.mark.parametrize(
        "text",
        [
            "", "[]", "{}", '{"keys":{}}', '{"keys":[]}', '{"keys":[1]}', '{"keys":[],"keys":[]}', "{" * 5000,
            '{"keys":[{"kty":["RSA"]}]}', json.dumps({"keys": [jwk(P256)] * 65}), " " * (256 * 1024 + 1),
        ],
    )  # fmt: skip
    def test_no_sets(self, text):
        """What is no key set is refused whole."""
        with pytest.raises(jose.KeySetInvalidError):
            jose.KeySet.from_jwks(text)


class TestEquality:
    def test_other_material_is_another_key(self):
        """Key material replaced under the same id is noticed."""
        old, new = key_set(jwk(P256)), key_set(jwk(ec.generate_private_key(ec.SECP256R1())))

        assert not new.holds(old.get("k1"))
        assert key_set(jwk(P256)).holds(old.get("k1"))

    def test_thumbprint(self):
        """The thumbprint is RFC 7638's (example of its section 3.1)."""
        n = (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWK"
            "RXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic"
            "AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3"
            "XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        )
        key = {"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}

        assert jose.thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


class TestKeyFile:
    def test_follows_the_file(self, tmp_path):
        """New content is in force at the next look."""
        path = tmp_path / "jwks.json"
        path.write_text(json.dumps({"keys": [jwk(P256)]}))
        file = jose.KeyFile(path)
        assert file.current().get("k1")
        path.write_text(json.dumps({"keys": [jwk(P256, kid="k22")]}))

        assert file.current().get("k1") is None
        assert file.current().get("k22")

    def test_keeps_the_last_good_keys(self, tmp_path):
        """A broken or vanished file takes no key away and says so."""
        path = tmp_path / "jwks.json"
        good = json.dumps({"keys": [jwk(P256)]})
        path.write_text(good)
        file = jose.KeyFile(path)
        path.write_text("{")
        assert file.current().get("k1")
        assert file.error
        path.unlink()
        assert file.current().get("k1")
        assert file.error == "FileNotFoundError"
        path.write_text(good)

        assert file.current().get("k1")
        assert not file.error

    @pytest.mark.parametrize("content", [None, "", "{}"])
    def test_refuses_to_start(self, tmp_path, content):
        """Without one good reading there is no start."""
        path = tmp_path / "jwks.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(StartupError):
            jose.KeyFile(path)

        path.write_text(json.dumps({"keys": [jwk(P256)]}))
        os.utime(path)
        assert jose.KeyFile(path).current()
