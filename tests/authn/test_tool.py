"""Client certificates: exactly one name, in one place, of one spelling; and not for ever."""

import base64
import contextlib
import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.authn import Authorities, RevokedSerials, ToolVerifier
from broker.dev.ca import CLIENT, SERVER, DevelopmentAuthority
from broker.errors import StartupError, ToolIdentityError

DESK = "spiffe://support.example/desk"
CLOCK = dt.datetime.now(dt.UTC)

SHA1 = b"""-----BEGIN CERTIFICATE-----
MIIBpTCCAU2gAwIBAgIUA3M9KtgtZpq+tq8cq0RTA2qIBFEwCQYHKoZIzj0EATAA
MCAXDTI2MTEyMzE1NTYyNFoYDzIwNTEwNzE1MTU1NjI0WjAAMFkwEwYHKoZIzj0C
AQYIKoZIzj0DAQcDQgAEBJgleDthyMTRRtXh89lNj+WzUOk/pAhFAgBYDF3ZGPXv
A2HBqWx/gNL12QSv/VNd9YB3i7qX+c/bssW2I6feFaOBozCBoDAdBgNVHQ4EFgQU
o3j7mFP8i4FdjBWFl1VNO+zIts8wHwYDVR0jBBgwFoAUo3j7mFP8i4FdjBWFl1VN
O+zIts8wDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYI
KwYBBQUHAwIwKwYDVR0RAQH/BCEwH4Ydc3BpZmZlOi8vc3VwcG9ydC5leGFtcGxl
L2Rlc2swCQYHKoZIzj0EAQNHADBEAiBFFMYJaSJTzF2Hqx5QPi3ERkvbQLuorztJ
Pow12oWbNQIgM5LC24T9Ovuo1j9DLLo3jcldXGnm5iyJNf+SYA4qPJI=
-----END CERTIFICATE-----
"""
SHA256 = b"""-----BEGIN CERTIFICATE-----
MIIBqTCCAU6gAwIBAgIUepwyDocshhs3umZjnCXk7d6balQwCgYIKoZIzj0EAwIw
ADAgFw0yNjExMjMxNTU2MjRaGA8yMDUxMDcxNTE1NTYyNFowADBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABASYJXg7YcjE0UbV4fPZTY/ls1DpP6QIRQIAWAxd2Rj1
7wNhwalsf4DS9dkEr/1TXfWAd4u6l/nP27LFtiOn3hWjgaMwgaAwHQYDVR0OBBYE
FKN4+5hT/IuBXYwVhZdVTTvsyLbPMB8GA1UdIwQYMBaAFKN4+5hT/IuBXYwVhZdV
TTvsyLbPMAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMBMGA1UdJQQMMAoG
CCsGAQUFBwMCMCsGA1UdEQEB/wQhMB+GHXNwaWZmZTovL3N1cHBvcnQuZXhhbXBs
ZS9kZXNrMAoGCCqGSM49BAMCA0kAMEYCIQDUJ4zIrsFkM6O2z1FazrjGM4MO4Lf3
pYoUE/eC9M5jvAIhAO4y9YCN1Qgs8xd3JarF4HtFzkeupbIdvAdn+LrVAVM1
-----END CERTIFICATE-----
"""
"""The same certificate twice, made by openssl, signed with SHA-1 and with SHA-256."""


class Now:
    def __init__(self, when=CLOCK):
        self.now = when.timestamp()

    def __call__(self):
        return self.now


def verifier(known=None, clock=None, **settings_):
    return ToolVerifier("support.example", known or {DESK}.__contains__, clock or Now(), **settings_)


def refused(tools, certificate, chain=b""):
    with pytest.raises(ToolIdentityError) as caught:
        tools.verify(certificate, chain)
    assert caught.value.sentence == ToolIdentityError().sentence
    return caught.value.cause


def test_gives_identity_and_thumbprint(authority):
    """The tool is the SPIFFE id and the certificate's SHA-256, from PEM as from DER."""
    issued = authority.client(DESK)
    der = issued.certificate.public_bytes(serialization.Encoding.DER)
    tool = verifier().verify(issued.cert_pem)
    assert tool == verifier().verify(der)

    assert tool.identity == DESK
    assert len(tool.thumbprint) == 43
    assert tool.thumbprint != verifier().verify(authority.client(DESK).cert_pem).thumbprint


class TestNames:
    @pytest.mark.attack("T2")
    @pytest.mark.parametrize("more", [{}, {"dns": ["desk.support.example"]}, {"addresses": ["127.0.0.1"]}])
    def test_no_uri(self, authority, more):
        """A common name is never an identity, nor is a DNS name where nobody said so."""
        certificate = authority.issue(common_name=DESK, **more).cert_pem
        assert "no " in refused(verifier(), certificate)

        assert verifier().verify(authority.issue(common_name="x", uris=[DESK], **more).cert_pem)

    @pytest.mark.attack("T3")
    @pytest.mark.parametrize(
        "uris",
        [
            [DESK, "spiffe://support.example/phone"],
            [DESK, DESK],
            [DESK, "https://support.example/desk"],
            ["https://support.example/desk"],
            ["urn:spiffe:support.example:desk"],
            ["spiffe://support.example"],
            ["spiffe://support.example/"],
            ["spiffe://support.example/desk/"],
            ["spiffe://support.example//desk"],
            ["spiffe://support.example/./desk"],
            ["spiffe://support.example/../desk"],
            ["spiffe://support.example/x/../desk"],
            ["spiffe://support.example/desk/.."],
            ["spiffe://support.example/%64esk"],
            ["spiffe://support.example/x%2e%2e/desk"],
            ["spiffe://support.example/desk?x=1"],
            ["spiffe://support.example/desk#x"],
            ["spiffe://support.example/desk "],
            ["spiffe://support.example/desk\n"],
            ["spiffe://user@support.example/desk"],
            ["spiffe://support.example:443/desk"],
            ["spiffe://support.example.evil/desk"],
            ["spiffe://staging.support.example/desk"],
            ["spiffe://evil/spiffe://support.example/desk"],
            ["spiffe://Support.example/desk"],
            ["spiffe://SUPPORT.EXAMPLE/desk"],
            ["SPIFFE://support.example/desk"],
            ["Spiffe://support.example/desk"],
            ["spiffe:support.example/desk"],
            [""],
            ["spiffe://support.example/" + "a" * 2048],
        ],
    )
    def test_other_spellings(self, authority, uris):
        """Two names, another scheme, another domain or another spelling name nobody, known or not."""
        refused(verifier(known=lambda _: True), authority.issue(uris=uris).cert_pem)

        good = authority.issue(uris=["spiffe://support.example/a/B-c_d.e"]).cert_pem
        assert verifier(known=lambda _: True).verify(good)

    def test_unknown_identity(self, authority):
        """A good certificate of a tool that the settings do not name is refused, and may be named later."""
        known = set()
        tools = verifier(known=known.__contains__)
        certificate = authority.client(DESK).cert_pem
        assert refused(tools, certificate) == "identity is not known here"
        known.add(DESK)
        assert tools.verify(certificate).identity == DESK
        known.clear()

        refused(tools, certificate)

    def test_dns_where_the_settings_say_so(self, authority):
        """One DNS name counts where it is allowed, alone, in lower case; a URI always goes first."""
        tools = verifier(known=lambda _: True, dns_identities=True)
        for more in (
            {"dns": ["a.example", "b.example"]},
            {"dns": ["*.example"]},
            {"dns": ["Desk.example"]},
            {"dns": ["localhost"]},
            {"dns": ["a..example"]},
            {"dns": ["a.example"], "addresses": ["127.0.0.1"]},
            {"dns": ["a.example"], "uris": ["https://a.example"]},
            {"common_name": "a.example"},
        ):
            refused(tools, authority.issue(**more).cert_pem)

        assert tools.verify(authority.issue(dns=["desk.example"]).cert_pem).identity == "desk.example"
        both = authority.issue(dns=["desk.example"], uris=[DESK]).cert_pem
        assert tools.verify(both).identity == DESK

    @pytest.mark.parametrize(
        "domain", ["", "Support.example", "spiffe://support.example", "a/b", "a:1", "a b"]
    )
    def test_trust_domain_that_is_none(self, domain):
        """A trust domain that cannot be matched exactly refuses to start."""
        with pytest.raises(StartupError):
            ToolVerifier(domain, lambda _: True, Now())

        assert ToolVerifier("support.example", lambda _: True, Now())


class TestStrength:
    @pytest.mark.attack("T4")
    @pytest.mark.parametrize(
        "usages",
        [(), SERVER, (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), (ExtendedKeyUsageOID.CODE_SIGNING,)],
    )
    def test_not_for_clients(self, authority, usages):
        """A certificate that was not made for clients is refused."""
        assert "not for clients" in refused(verifier(), authority.issue(uris=[DESK], usages=usages).cert_pem)

        assert verifier().verify(authority.issue(uris=[DESK], usages=(*SERVER, *CLIENT)).cert_pem)

    @pytest.mark.attack("T4")
    def test_weak_keys(self, authority):
        """A weak key proves nothing, whoever signed for it."""
        weak = (
            rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose
            ec.generate_private_key(ec.SECP224R1()),
            ec.generate_private_key(ec.SECP256K1()),
        )
        for key in weak:
            assert "too weak" in refused(verifier(), authority.issue(uris=[DESK], key=key).cert_pem)

        strong = (
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.generate(),
        )
        for key in strong:
            assert verifier().verify(authority.issue(uris=[DESK], key=key).cert_pem)

    @pytest.mark.attack("T4")
    def test_sha1(self):
        """A signature over SHA-1 is refused; the same certificate over SHA-256 is not."""
        later = Now(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
        assert "digest" in refused(verifier(clock=later), SHA1)

        assert verifier(clock=later).verify(SHA256).identity == DESK

    def test_authority_as_client(self, authority):
        """An authority's certificate is no client's."""
        certificate = authority.issue(uris=[DESK], authority=True).cert_pem

        assert "authority" in refused(verifier(), certificate)

    @given(data=st.data())
    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def test_any_bytes(self, data):
        """No bytes are an error of ours, and a changed certificate gives no other name."""
        good = x509.load_pem_x509_certificate(SHA256).public_bytes(serialization.Encoding.DER)
        tools = verifier(clock=Now(dt.datetime(2030, 1, 1, tzinfo=dt.UTC)))
        assert tools.verify(good).identity == DESK
        index = data.draw(st.integers(0, len(good) - 1))
        changed = (
            good[:index] + data.draw(st.binary(max_size=4)) + good[index + data.draw(st.integers(0, 4)) :]
        )
        for certificate in (changed, data.draw(st.binary(max_size=64)), b"-----BEGIN " + changed):
            with contextlib.suppress(ToolIdentityError):
                assert tools.verify(certificate).identity == DESK

    def test_no_certificate(self, authority):
        """No certificate, two, or far too much of one names nobody."""
        pem = authority.client(DESK).cert_pem
        for certificate in (b"", b" ", pem + pem, pem.replace(b"A", b"B"), pem + b"x" * 20_000):
            refused(verifier(), certificate)

        assert verifier().verify(pem)


class TestEveryCall:
    @pytest.mark.attack("T1", "T7", "W2")
    def test_validity(self, authority):
        """A certificate that has ended since the handshake, or has not begun, is refused."""
        start = CLOCK.replace(microsecond=0)
        issued = authority.issue(uris=[DESK], not_before=start, not_after=start + dt.timedelta(hours=1))
        clock = Now(start)
        tools = verifier(clock=clock)
        assert tools.verify(issued.cert_pem)
        clock.now += 3601
        assert refused(tools, issued.cert_pem) == "certificate is not valid now"
        clock.now = start.timestamp() - 1
        assert refused(tools, issued.cert_pem) == "certificate is not valid now"

        clock.now = start.timestamp() + 3600
        assert tools.verify(issued.cert_pem)

    @pytest.mark.attack("T6")
    def test_revoked(self, authority, tmp_path):
        """A serial on the deny list is refused at the next call, and its neighbour is not."""
        path = tmp_path / "revoked.txt"
        path.write_text("# nobody yet\n")
        stolen, other = authority.client(DESK), authority.client(DESK)
        tools = verifier(revoked=RevokedSerials(path))
        assert tools.verify(stolen.cert_pem)
        colons = ":".join(f"{stolen.certificate.serial_number:040x}"[i : i + 2] for i in range(0, 40, 2))
        path.write_text(f"# stolen on Monday\n\n  {colons.upper()}  \n")
        assert refused(tools, stolen.cert_pem) == "certificate is revoked"
        assert tools.verify(other.cert_pem)
        path.write_text(f"{stolen.serial}\n{other.serial}\n")

        refused(tools, stolen.cert_pem)
        refused(tools, other.cert_pem)

    @pytest.mark.attack("T6")
    def test_broken_deny_list(self, authority, tmp_path):
        """A slip in the file, or its loss, frees nobody; what it does say counts."""
        path = tmp_path / "revoked.txt"
        first, second, third = (authority.client(DESK) for _ in range(3))
        path.write_text(first.serial)
        revoked = RevokedSerials(path)
        tools = verifier(revoked=revoked)
        path.write_text(f"{second.serial}\nthird one: {third.serial}\n")
        for issued in (first, second):
            refused(tools, issued.cert_pem)
        assert tools.verify(third.cert_pem)
        assert revoked.error == "line 2 is no hex serial"
        path.unlink()
        refused(tools, first.cert_pem)
        assert "FileNotFoundError" in revoked.error
        path.write_text(third.serial)
        refused(tools, third.cert_pem)
        assert not revoked.error

        assert tools.verify(first.cert_pem)

    @pytest.mark.attack("T6")
    @pytest.mark.parametrize("form", ["{}", "serial={}", "serial={}\n"])
    def test_serial_as_openssl_prints_it(self, authority, tmp_path, form):
        """The line of `openssl x509 -noout -serial` is a serial; `trouble` looks by itself."""
        path = tmp_path / "revoked.txt"
        path.write_text("")
        revoked = RevokedSerials(path)
        first, second = (authority.client(DESK) for _ in range(2))
        path.write_text(form.format(f"{first.certificate.serial_number:X}"))
        assert revoked.trouble() == ""
        assert first.certificate.serial_number in revoked
        assert second.certificate.serial_number not in revoked
        path.write_text("number=1")

        assert revoked.trouble() == f"{path}: line 1 is no hex serial"

    @pytest.mark.parametrize("content", [None, "x", "\u00e9"])
    def test_deny_list_at_the_start(self, tmp_path, content):
        """A deny list that cannot be read refuses to start."""
        path = tmp_path / "revoked.txt"
        if content is not None:
            path.write_text(content, "utf-8")
        with pytest.raises(StartupError):
            RevokedSerials(path)

        path.write_text("")
        assert RevokedSerials(path)

    @pytest.mark.attack("T7")
    def test_authority_removed(self, authority, tmp_path):
        """A certificate goes with its authority, at the next call."""
        other = DevelopmentAuthority.create()
        path = tmp_path / "authorities.pem"
        path.write_bytes(authority.cert_pem + other.cert_pem)
        authorities = Authorities(path)
        tools = verifier(authorities=authorities)
        ours, theirs = authority.client(DESK).cert_pem, other.client(DESK).cert_pem
        assert tools.verify(ours)
        assert tools.verify(theirs)
        path.write_bytes(authority.cert_pem)
        assert refused(tools, theirs) == "certificate is of no authority of ours"
        assert tools.verify(ours)
        path.write_bytes(b"")
        assert tools.verify(ours)
        assert authorities.error
        path.write_bytes(other.cert_pem)

        refused(tools, ours)
        assert tools.verify(theirs)

    def test_issued_through_others(self, authority, tmp_path):
        """A chain that the client sent is followed to an authority of ours, through authorities alone."""
        path = tmp_path / "authorities.pem"
        path.write_bytes(authority.cert_pem)
        tools = verifier(authorities=Authorities(path))
        name = "intermediate"
        middle = DevelopmentAuthority(authority.issue(common_name=name, authority=True, usages=()))
        leaf = middle.client(DESK)
        assert refused(tools, leaf.cert_pem) == "certificate is of no authority of ours"
        assert tools.verify(leaf.cert_pem, leaf.cert_pem + middle.cert_pem)

        no_authority = DevelopmentAuthority(authority.issue(common_name=name, usages=()))
        forged = no_authority.client(DESK)
        refused(tools, forged.cert_pem, forged.cert_pem + no_authority.cert_pem)
        refused(tools, forged.cert_pem, b"-----BEGIN nonsense")
        refused(tools, forged.cert_pem, b"x" * 100_000)

    def test_authorities_at_the_start(self, tmp_path):
        """A file without an authority refuses to start."""
        path = tmp_path / "authorities.pem"
        for content in (None, b"", b"x"):
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(StartupError):
                Authorities(path)

    def test_memory_is_bounded(self, authority, monkeypatch):
        """Certificates that come once do not stay for ever."""
        monkeypatch.setattr("broker.authn.tool.MAX_REMEMBERED", 3)
        tools = verifier()
        for _ in range(6):
            tools.verify(authority.client(DESK).cert_pem)

        assert len(tools._remembered) == 3


def test_thumbprint_is_rfc_8705(authority):
    """The thumbprint is what other services compute from the certificate."""
    issued = authority.client(DESK)
    der = x509.load_pem_x509_certificate(issued.cert_pem).public_bytes(serialization.Encoding.DER)
    expected = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")

    assert verifier().verify(issued.cert_pem).thumbprint == expected
