"""The attacks on tokens (J), each against agents' tokens and against grants."""

import asyncio
import hashlib
import hmac
import json
import socket

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import jose
from broker.errors import StartupError, TokenInvalidError
from broker.jose import cache, compact
from broker.keys import FileSigner
from tests.jose.forge import AGENT, BROKER, TOOL, AgentWorld, GrantWorld, forge, with_claim

SENTENCE = TokenInvalidError().sentence


async def refused(world, token):
    """Says why a token is refused; every refusal has the same public sentence."""
    with pytest.raises(TokenInvalidError) as caught:
        await world.accept(token)
    assert caught.value.sentence == SENTENCE
    assert token[:40] not in caught.value.cause
    return caught.value.cause


@pytest.mark.attack("J1")
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "es256", "HS256", 0, ["ES256"], None])
async def test_another_algorithm(world, alg):
    """No algorithm but the one in the settings, in its exact spelling, verifies: signed or not."""
    header = world.header(alg=alg)
    await refused(world, world.token(header))
    await refused(world, world.token(header, sign=lambda _: b""))
    await refused(world, world.token(header).rsplit(".", 1)[0] + ".")

    assert await world.accept(world.token(world.header(alg="ES256")))


def public_spellings(world):
    """Gives the public key in every form in which it might be taken for a secret."""
    public = world.public
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    point = serialization.PublicFormat.UncompressedPoint
    jwk = jose.public_jwk(public)
    return {
        "PEM": public.public_bytes(pem, info),
        "DER": public.public_bytes(der, info),
        "raw point": public.public_bytes(serialization.Encoding.X962, point),
        "JWK": json.dumps(jwk).encode(),
        "blank": b"",
    }


@pytest.mark.attack("J2", "J3")
@pytest.mark.parametrize("spelling", ["PEM", "DER", "raw point", "JWK", "blank"])
async def test_public_key_as_secret(world, spelling):
    """A MAC made with the public key, or with no key, is no signature."""
    secret = public_spellings(world)[spelling]
    for alg in ("HS256", "ES256"):
        token = world.token(
            world.header(alg=alg), sign=lambda data: hmac.new(secret, data, hashlib.sha256).digest()
        )
        await refused(world, token)

    assert await world.accept(world.token())


@pytest.mark.attack("J4")
async def test_signature_empty_or_borrowed(world):
    """A token without its own signature is refused, and so is one with a bit changed anywhere."""
    good, other = world.token(), world.token(claims=world.claims(jti="018f0000-0000-7000-8000-000000000002"))
    head, payload, _ = good.split(".")
    await refused(world, f"{head}.{payload}.")
    await refused(world, f"{head}.{payload}")
    await refused(world, f"{head}.{payload}.{other.rsplit('.', 1)[1]}")
    for index, char in enumerate(good):
        await refused(world, good[:index] + ("A" if char != "A" else "B") + good[index + 1 :])

    assert await world.accept(good)
    assert await world.accept(other)


@pytest.mark.attack("J5")
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_key_from_the_token(world, name):
    """A key that the token brings or points to is not used, and nobody connects to where it points."""
    attacker = ec.generate_private_key(ec.SECP256R1())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        value = {"jwk": jose.public_jwk(attacker.public_key()), "x5c": ["MIIB"]}.get(name, url)
        for kid in (world.header()["kid"], jose.key_from_public(attacker.public_key()).kid):
            header = world.header(kid=kid, **{name: value})
            await refused(world, world.token(header, sign=FileSigner("", attacker).sign))
        await refused(world, world.token(world.header(**{name: value})))  # well signed, still refused
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            listener.accept()

    assert await world.accept(world.token())


@pytest.mark.attack("J5", "J7", "J8")
@pytest.mark.parametrize("name", sorted(jose.FORBIDDEN_HEADERS))
def test_settings_cannot_open_it(tmp_path, name):
    """An issuer's block that accepts a header which chooses keys refuses to start."""
    with pytest.raises(StartupError):
        AgentWorld(tmp_path, extra_headers=(name,))

    assert AgentWorld(tmp_path, extra_headers=("x5t",))


@pytest.mark.attack("J6")
@pytest.mark.parametrize(
    "kid",
    [
        "../../../../../../dev/null",
        "' OR 1=1 --",
        "k" * 129,
        "k" * 100_000,
        "a\0b",
        " ",
        "",
        1,
        True,
        ["a"],
        {"a": 1},
        "unknown",
        "K\u00e9y",
    ],
)
async def test_key_id(world, kid):
    """A key is found by its exact id or not at all."""
    await refused(world, world.token(world.header(kid=kid)))
    await refused(world, world.token(world.header(kid=None)))
    good = world.header()["kid"]
    for close in (good[:-1], good.swapcase(), good + " ", good + "\n", "/" + good):
        await refused(world, world.token(world.header(kid=close)))

    assert await world.accept(world.token(world.header(kid=good)))


@pytest.mark.attack("J6")
async def test_key_of_another_environment(world, tmp_path):
    """A token that another environment of the same make signed is refused."""
    (tmp_path / "other").mkdir()
    other = type(world)(tmp_path / "other")
    await refused(world, other.token())

    assert await other.accept(other.token())


@pytest.mark.attack("J7")
@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "exp"},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
    ],
)
async def test_critical_extensions(world, extra):
    """We understand no extension, so none is accepted."""
    await refused(world, world.token(world.header(**extra)))

    assert await world.accept(world.token())


@pytest.mark.attack("J8")
@pytest.mark.parametrize("extra", [{"zip": "DEF"}, {"cty": "JWT"}, {"x5t": "AAAA"}, {"whatever": 1}])
async def test_headers_beyond_the_list(world, extra):
    """A header parameter beyond alg, typ and kid is refused unless the issuer's block names it."""
    await refused(world, world.token(world.header(**extra)))

    assert await world.accept(world.token())


@pytest.mark.attack("J8")
async def test_headers_of_the_issuers_block(tmp_path):
    """What one issuer's block names is accepted from that issuer, by that name alone."""
    world = AgentWorld(tmp_path, extra_headers=("x5t",))
    await refused(world, world.token(world.header(X5T="AAAA")))

    assert await world.accept(world.token(world.header(x5t="AAAA")))


@pytest.mark.attack("J8", "J19")
async def test_nested_token(world):
    """A token inside a token is no claims."""
    inner = world.token()
    await refused(world, world.token(claims=inner.encode()))
    await refused(world, world.token(claims=json.dumps(inner)))

    assert await world.accept(inner)


@pytest.mark.attack("J9")
@pytest.mark.parametrize(
    "typ", [None, "JWT", "", "at+jwt+x", "jwt+at", 1, ["at+jwt"], "application/", "id+jwt"]
)
async def test_type(world, typ):
    """A token of another type is refused: a grant is no access token, an identity token is neither."""
    await refused(world, world.token(world.header(typ=typ)))
    swapped = "broker-grant+jwt" if isinstance(world, AgentWorld) else "at+jwt"
    await refused(world, world.token(world.header(typ=swapped)))

    assert await world.accept(world.token(world.header(typ=world.typ)))
    assert await world.accept(world.token(world.header(typ=f"Application/{world.typ.upper()}")))


@pytest.mark.attack("J11", "J12")
@pytest.mark.parametrize(
    "text",
    [
        "null", "true", "[]", "[1800000100]", "{}", "NaN", "Infinity", "-Infinity", "1e999", "1800000100.0",
        "1.8e9", "-1", "0", '"1800000100"', '" 9999999999 "', '"9_999_999_999"', '"\\u0661\\u0668"',
        "99999999999999999999", "1" * 5000, "9223372036854775807", "+1800000100", "0x6b49d264", "01800000100",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
async def test_instants_that_are_none(world, name, text):
    """A time is an int of whole POSIX seconds in a sane range; nothing is coerced."""
    if name == "nbf" and text in {"0", "1.8e9"} and isinstance(world, AgentWorld):
        text = "1800000000.0"  # nbf 0 says nothing, and is what it says
    await refused(world, world.token(claims=with_claim(world.claims(), name, text)))
    if name != "nbf":
        await refused(world, world.token(claims=world.claims(**{name: None})))

    good = {"exp": "1800000100", "iat": "1800000000", "nbf": "1800000000"}[name]
    assert await world.accept(world.token(claims=with_claim(world.claims(), name, good)))


@pytest.mark.attack("J14")
@pytest.mark.parametrize("text", ["true", '"0"', "-1" + "0" * 400, "1" + "0" * 400, "false", "1800000011"])
async def test_not_before(world, text):
    """A token that is not valid yet, or whose `nbf` is no time, is refused."""
    await refused(world, world.token(claims=with_claim(world.claims(), "nbf", text)))

    assert await world.accept(world.token(claims=world.claims(nbf=int(world.now))))


@pytest.mark.attack("J14", "W1")
async def test_issued_in_the_future(world):
    """A signer's clock may be ten seconds ahead of ours, not more."""
    late = int(world.now) + 11
    await refused(world, world.token(claims=world.claims(iat=late, nbf=late)))

    soon = int(world.now) + 10
    assert await world.accept(world.token(claims=world.claims(iat=soon, nbf=soon)))


@pytest.mark.attack("J15")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aud", ["https://broker.example", "https://other.example"]),
        ("aud", []),
        ("aud", "https://broker.example.evil"),
        ("aud", "https://broker.example/"),
        ("aud", "https://other.example"),
        ("aud", None),
        ("aud", 1),
        ("iss", "https://id.exampl"),
        ("iss", "https://id.example/"),
        ("iss", ["https://id.example"]),
        ("iss", None),
        ("sub", 1),
        ("sub", None),
        ("sub", ["alice"]),
    ],
)
async def test_names_that_are_others(world, name, value):
    """Issuer, audience and subject are texts and equal; no prefix, no list, no number."""
    await refused(world, world.token(claims=world.claims(**{name: value})))

    assert await world.accept(world.token(claims=world.claims()))


@pytest.mark.attack("J15")
async def test_audience_list_by_the_block(tmp_path):
    """A list of audiences is accepted where the issuer's block says so, and ours is in it."""
    world = AgentWorld(tmp_path, audience_list=True)
    await refused(world, world.token(claims=world.claims(aud=["https://other.example", "x"])))

    ours = ["https://broker.example", "https://other.example"]
    assert await world.accept(world.token(claims=world.claims(aud=ours)))


@pytest.mark.attack("J16")
@pytest.mark.parametrize("value", ["", " ", "\t", "\u3000", "a\nb", "a\x7fb", "a\u2028b"])
@pytest.mark.parametrize("name", ["sub", "jti"])
async def test_blank_names(world, name, value):
    """A blank or invisible name names nobody."""
    await refused(world, world.token(claims=world.claims(**{name: value})))

    assert await world.accept(world.token(claims=world.claims()))


@pytest.mark.attack("J18")
@pytest.mark.parametrize(
    "text", ['"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud800"', '["\\u0000"]', '{"\\udfff":1}']
)
@pytest.mark.parametrize("name", ["sub", "groups", "other"])
async def test_what_postgresql_cannot_store(world, name, text):
    """NUL and lone surrogates are refused here, wherever they stand, and are never an internal error."""
    await refused(world, world.token(claims=with_claim(world.claims(), name, text)))
    await refused(world, world.token(header=world.header(), claims=b'{"sub":"\xff"}'))
    await refused(world, world.token(header=world.header(), claims=b'{"sub":"\xed\xa0\x80"}'))

    assert await world.accept(world.token())


@pytest.mark.attack("J19")
@pytest.mark.parametrize(
    "payload",
    [
        "[]", '"text"', "1", "null", "", "{", "\ufeff{}", "{}{}", "{'a':1}", '{"a":1,}', "{} x",
        '{"a":' * 9 + "1" + "}" * 9, "[" * 3000, '{"a":' * 1000, '{"a":[' + "[" * 2000 + "]" * 2000 + "]}",
        '{"a":' + "1" * 5000 + "}", '{"a":1' + "0" * 5000 + "}", '{"exp":1800000100,"exp":1800000100}',
    ],
)  # fmt: skip
async def test_payloads_that_are_no_claims(world, payload):
    """Arrays, texts, deep nesting, endless digits and doubled names are refused as any bad token is."""
    await refused(world, world.token(claims=payload))
    await refused(world, world.token(header=payload))

    assert await world.accept(world.token())


@pytest.mark.attack("J19")
@pytest.mark.parametrize("name", ["sub", "exp", "iss"])
async def test_names_given_twice(world, name):
    """A name given twice could be read in two ways, so it is refused, also where both say the same."""
    claims = world.claims()
    text = json.dumps(claims)
    for value in (claims[name], "other"):
        twice = f"{text[:-1]},{json.dumps(name)}:{json.dumps(value)}}}"
        await refused(world, world.token(claims=twice))
        first = f"{{{json.dumps(name)}:{json.dumps(value)},{text[1:]}"
        await refused(world, world.token(claims=first))
    header = json.dumps(world.header())
    await refused(world, world.token(header=f'{header[:-1]},"alg":"ES256"}}'))

    assert await world.accept(world.token(header=header, claims=text))


@pytest.mark.attack("J19", "J20")
async def test_deep_and_long(world, monkeypatch):
    """A token of megabytes is refused by its length, before anything is hashed, decoded or verified."""
    decoded = []
    genuine = compact._decode

    def counted(part):
        decoded.append(len(part))
        return genuine(part)

    def hashed(token):
        decoded.append(len(token))
        return digest(token)

    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", hashed)
    monkeypatch.setattr(compact, "_decode", counted)
    for claims in ("[" * 100_000 + "]" * 100_000, world.claims(other="x" * 16_000_000)):
        await refused(world, world.token(claims=claims))
    assert not decoded

    assert await world.accept(world.token())
    assert len(decoded) > 3


@pytest.mark.attack("J21")
async def test_one_token_has_one_text(world):
    """Padding, white space, and stray bits at the end are other texts, hence no tokens."""
    good = world.token()
    last = good[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = good[:-1] + alphabet[alphabet.index(last) ^ 1]  # 64 bytes leave four unused bits
    for text in (good + "=", good + "==", stray, good + "\n", " " + good, good.replace(".", "=.", 1)):
        await refused(world, text)
    await refused(world, good.replace("-", "+").replace("_", "/") + "/")

    assert await world.accept(good)


@pytest.mark.attack("J29")
async def test_signatures_that_are_trivial(world):
    """r and s of zero or of the group's order, and every other length, verify nothing."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    claims = world.claims()
    signing_input = world.token(claims=claims).rsplit(".", 1)[0].encode()
    good = world.sign(signing_input)
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (order, order), (0, s), (r, 0), (order, s), (r, order),
             (order - 1, s), (r, 2**256 - 1), (2**256 - 1, 2**256 - 1), (s, r)]  # fmt: skip
    signatures = [bad_r.to_bytes(32, "big") + bad_s.to_bytes(32, "big") for bad_r, bad_s in pairs]
    signatures += [good[:-1], good + b"\0", good[:32], good * 2, b"\0" + good[:31] + good[32:]]
    signatures.append(world.key.sign(signing_input, ec.ECDSA(hashes.SHA256())))  # DER, not r and s
    for signature in signatures:
        token = world.token(claims=claims, sign=lambda _, signature=signature: signature)
        assert await refused(world, token) == "signature is wrong"

    assert await world.accept(world.token(claims=claims, sign=lambda _: good))


@pytest.mark.attack("J24")
async def test_grant_of_another(tmp_path):
    """A grant is refused on another tool's connection, key or with another agent's token."""
    world = GrantWorld(tmp_path)
    token = world.grants.mint(world.grant())
    good = {"tool": TOOL, "agent": AGENT, "audience": BROKER}
    others = {
        "another certificate": {"tool": type(TOOL)(TOOL.identity, "B" * 43)},
        "another tool": {"tool": type(TOOL)("spiffe://support.example/other", TOOL.thumbprint)},
        "another agent": {"agent": type(AGENT)(AGENT.issuer, "mallory")},
        "another agent ": {"agent": type(AGENT)("https://other.example", AGENT.subject)},
        "another audience": {"audience": "https://other.example"},
    }
    for _ in range(2):  # the second time the signature is remembered
        for cause, change in others.items():
            with pytest.raises(TokenInvalidError) as caught:
                world.grants.verify(token, **{**good, **change})
            assert cause.strip() in caught.value.cause

        assert world.grants.verify(token, **good).ticket_id == "T-1"


@pytest.mark.attack("W2", "W3")
async def test_expiry_is_never_remembered(world):
    """A token that was good a moment ago is refused at its last second, however often it was used."""
    token = world.token()
    expires = int(world.claims()["exp"])
    for _ in range(3):
        assert await world.accept(token)
    world.now = expires - 0.001
    assert await world.accept(token)
    world.now = expires
    assert await refused(world, token) == "expired"
    assert await refused(world, token) == "expired"


async def test_forged_token_is_good():
    """The forge makes what PyJWT takes for a good token, so a refusal is about the one difference."""
    key = ec.generate_private_key(ec.SECP256R1())
    token = forge({"alg": "ES256"}, {"a": 1}, FileSigner("", key).sign)

    assert jwt.decode(token, key.public_key(), algorithms=["ES256"]) == {"a": 1}
