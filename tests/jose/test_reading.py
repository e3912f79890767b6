"""The reader's own promises: what it gives, what it remembers, and that others can read what we write."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker import jose
from broker.errors import TokenInvalidError
from broker.jose import strictjson
from broker.keys import FileSigner, sign_compact

KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = jose.key_from_public(KEY.public_key())
KEYS = jose.KeySet([PUBLIC])


def signed(claims, typ="helpdesk-event+jwt"):
    return sign_compact(FileSigner(PUBLIC.kid, KEY), {"typ": typ}, claims)


def read(token, **changes):
    good = {"keys": KEYS, "algorithms": ("ES256",), "types": ("helpdesk-event+jwt",)}
    return jose.read(token, **{**good, **changes})


class TestRead:
    def test_gives_header_claims_and_key(self):
        """A good token gives what it says and which key vouches for it."""
        verified = read(signed({"iss": "helpdesk", "n": 3}))

        assert verified.header == {"alg": "ES256", "typ": "helpdesk-event+jwt", "kid": PUBLIC.kid}
        assert dict(verified.claims) == {"iss": "helpdesk", "n": 3}
        assert verified.key == PUBLIC

    def test_length_is_the_callers_to_choose(self):
        """A caller with longer tokens says so."""
        token = signed({"text": "x" * 10_000})
        with pytest.raises(TokenInvalidError):
            read(token)

        assert read(token, max_bytes=20_000)

    def test_not_even_the_caller_opens_it(self):
        """A header that chooses keys is refused though the caller named it; another is not."""
        for name in sorted(jose.FORBIDDEN_HEADERS):
            token = sign_compact(FileSigner(PUBLIC.kid, KEY), {"typ": "helpdesk-event+jwt", name: "x"}, {})
            with pytest.raises(TokenInvalidError) as caught:
                read(token, extra_headers=(name,))
            assert caught.value.cause == "header parameter is not accepted"

        token = sign_compact(FileSigner(PUBLIC.kid, KEY), {"typ": "helpdesk-event+jwt", "x5t": "x"}, {})
        assert read(token, extra_headers=("x5t",))

    def test_stray_bits_are_ours_to_refuse(self):
        """The one spelling of a token is checked before PyJWT sees it."""
        good = signed({})
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        stray = good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]
        with pytest.raises(TokenInvalidError) as caught:
            jose.peek(stray)
        assert caught.value.cause == "token is not canonical base64url"

        assert jose.peek(good)

    def test_two_readings(self, monkeypatch):
        """Should PyJWT ever verify another payload than we read, the token is refused."""
        token = signed({"n": 1})
        assert read(token)
        genuine = jwt.PyJWS.decode_complete

        def another(*args, **kwargs):
            return {**genuine(*args, **kwargs), "payload": b'{"n":2}'}

        monkeypatch.setattr(jwt.PyJWS, "decode_complete", another)
        with pytest.raises(TokenInvalidError) as caught:
            read(token)

        assert caught.value.cause == "two readings of the token differ"

    def test_no_keys(self):
        """An empty key set verifies nothing."""
        with pytest.raises(TokenInvalidError) as caught:
            read(signed({}), keys=jose.KeySet())

        assert caught.value.cause == "kid is unknown"

    def test_none_is_never_an_algorithm(self):
        """Not even a caller can ask for an algorithm without a key."""
        for algorithm in ("none", "HS256"):
            token = signed({})
            with pytest.raises(TokenInvalidError):
                read(token, algorithms=(algorithm,))


class TestClaims:
    claims = jose.Claims({"n": 1, "t": "x", "l": ["a"], "o": {"k": "v"}, "f": 1.5, "b": True, "z": None})

    @pytest.mark.parametrize(
        ("method", "good"),
        [("text", "t"), ("texts", "l"), ("members", "o"), ("integer", "n"), ("instant", "n")],
    )
    def test_by_exact_type(self, method, good):
        """Each reader takes its own type and no other, and an absent name is an error."""
        for name in {"n", "t", "l", "o", "f", "b", "z", "absent"} - {good}:
            with pytest.raises(TokenInvalidError):
                getattr(self.claims, method)(name)

        assert getattr(self.claims, method)(good)

    def test_optional(self):
        """An absent optional claim is nothing; null is not absent."""
        assert self.claims.optional_text("absent") is None
        assert self.claims.optional_texts("absent") == ()
        for method in (self.claims.optional_text, self.claims.optional_texts):
            with pytest.raises(TokenInvalidError):
                method("z")

    def test_exactly(self):
        """A token of our own form has all its claims and no other."""
        claims = jose.Claims({"a": 1, "b": 2})
        for names in (("a",), ("a", "b", "c")):
            with pytest.raises(TokenInvalidError):
                claims.check_exactly(names)

        claims.check_exactly(("a", "b"))
        claims.check_exactly(("a",), optional=("b", "c"))

    @pytest.mark.parametrize(("exp", "max_age"), [(100, 3600), (99, 3600), (4000, 3600)])
    def test_lifetime(self, exp, max_age):
        """A token that ends before it begins or lives too long is refused."""
        with pytest.raises(TokenInvalidError):
            jose.Claims({"iat": 100, "exp": exp}).check_times(100, max_age=max_age)

        assert jose.Claims({"iat": 100, "exp": 3700}).check_times(100, max_age=max_age) == 3700


class TestCache:
    def test_is_bounded(self):
        """The least recently used entry goes first."""
        cache = jose.VerifiedCache(lambda _key, _value: True, capacity=2)
        cache.put("a", PUBLIC, 1)
        cache.put("b", PUBLIC, 2)
        assert cache.get("a") == 1
        cache.put("c", PUBLIC, 3)

        assert [cache.get(token) for token in "abc"] == [1, None, 3]
        assert len(cache) == 2

    def test_an_entry_without_its_key_is_none(self):
        """What a key vouched for goes with the key, and does not come back with it."""
        good = [True]
        cache = jose.VerifiedCache(lambda _key, _value: good[0])
        cache.put("a", PUBLIC, 1)
        assert cache.get("a") == 1
        good[0] = False
        assert cache.get("a") is None
        good[0] = True

        assert cache.get("a") is None


class TestStrictJson:
    def test_depth(self):
        """Brackets inside texts do not count."""
        assert strictjson.loads(b'{"a":"[[[[[[[[[[{{{{{{\\"[[["}') == {"a": '[[[[[[[[[[{{{{{{"[[['}
        assert strictjson.loads(b"[[[[[[[[1]]]]]]]]")
        with pytest.raises(strictjson.StrictJsonError):
            strictjson.loads(b"[[[[[[[[[1]]]]]]]]]")
