"""Whatever comes in: a token is read or `TokenInvalidError`, a key set is read or `KeySetInvalidError`."""

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import jose
from broker.errors import TokenInvalidError
from broker.jose import strictjson
from tests.jose.forge import AgentWorld, GrantWorld

FAST = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(codec=None), max_size=20)
    | st.sampled_from(["ES256", "at+jwt", "alice", 1_800_000_000, 1_800_000_300, "\0", "\ud800", 10**400])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)
NAMES = [
    "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "groups", "act", "cnf", "sub_id",
    "authorization_details", "policy_version", "alg", "typ", "kid", "crit", "x",
]  # fmt: skip
MEMBERS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=5)


@pytest.fixture(params=[AgentWorld, GrantWorld], ids=["agent", "grant"], scope="module")
def world(request):
    """Gives each world once: the fuzzer comes often."""
    with tempfile.TemporaryDirectory() as folder:
        yield request.param(Path(folder))


def accepted(world, token):
    """Says whether a token is accepted; any error but the one is a failure of the test."""
    try:
        asyncio.run(world.accept(token))
    except TokenInvalidError:
        return False
    return True


@given(st.text(alphabet=st.characters(codec=None)) | st.text("eyJ0.-_A=", min_size=5))
@FAST
def test_any_text(world, text):
    """No text is an error of ours."""
    assert not accepted(world, text)


@given(changes=MEMBERS)
@FAST
def test_any_header(world, changes):
    """No header is an error of ours, and none but the good one is accepted."""
    header = {**world.header(), **changes}
    same = header == world.header()

    assert accepted(world, world.token(json.dumps(header))) == same


@given(changes=MEMBERS)
@FAST
def test_any_claims_well_signed(world, changes):
    """No claims are an error of ours, though the signature is good."""
    accepted(world, world.token(claims=json.dumps({**world.claims(), **changes})))

    assert accepted(world, world.token())


@given(payload=st.binary(max_size=200))
@FAST
def test_any_payload_well_signed(world, payload):
    """No bytes are an error of ours, though the signature is good."""
    assert not accepted(world, world.token(claims=payload))


@given(data=st.data())
@FAST
def test_one_change_to_a_good_token(world, data):
    """A good token with one character changed, added or taken away is refused."""
    good = world.token()
    index = data.draw(st.integers(0, len(good) - 1))
    char = data.draw(st.sampled_from("AQgwz09-_.= \n"))
    kind = data.draw(st.sampled_from(["change", "add", "drop"]))
    text = good[:index] + ("" if kind == "drop" else char) + good[index + (kind != "add") :]

    assert accepted(world, text) == (text == good)


@given(st.text() | VALUES.map(lambda v: json.dumps({"keys": v})) | st.lists(MEMBERS).map(json.dumps))
@FAST
def test_any_key_set(text):
    """No text is an error of ours."""
    with contextlib.suppress(jose.KeySetInvalidError):
        jose.KeySet.from_jwks(text)


JWK_MEMBERS = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", 1, None, "x"]), "kid": st.sampled_from(["a", "b"])},
    optional={
        name: st.sampled_from(["AQAB", "", "P-256", "Ed25519", "A" * 43, "!", 1, None, [], {}, "é"])
        for name in ("n", "e", "crv", "x", "y", "alg", "use", "key_ops")
    },
)


@given(st.lists(JWK_MEMBERS, max_size=3))
@FAST
def test_any_keys(keys):
    """No key is an error of ours."""
    with contextlib.suppress(jose.KeySetInvalidError):
        jose.KeySet.from_jwks(json.dumps({"keys": keys}))


@given(st.binary() | st.text(alphabet='{}[]",:0123456789.eE-+ntfru\\dDcC0 ').map(str.encode))
@FAST
def test_strict_json_agrees(data):
    """What the strict reader accepts is what Python's own reads; the rest is its one error."""
    try:
        value = strictjson.loads(data)
    except strictjson.StrictJsonError:
        return
    assert value == json.loads(data)
