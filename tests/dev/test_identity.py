"""The development authority and issuer: made once, closed to others, good for the real verifiers."""

import time

import pytest
from cryptography import x509

from broker import jose
from broker.authn import AgentVerifier, ToolVerifier, open_sources
from broker.dev.ca import DevelopmentAuthority
from broker.dev.oidc import DevelopmentIssuer
from broker.errors import StartupError
from broker.settings import IssuerSettings

DESK = "spiffe://support.example/desk"


class TestAuthority:
    def test_is_made_once(self, tmp_path):
        """The second opening of a folder finds the first one's authority."""
        first = DevelopmentAuthority.open(tmp_path / "ca")

        assert DevelopmentAuthority.open(tmp_path / "ca").cert_pem == first.cert_pem
        assert DevelopmentAuthority.open(tmp_path / "other").cert_pem != first.cert_pem

    def test_files_are_closed(self, tmp_path):
        """Folder and files are the owner's alone."""
        authority = DevelopmentAuthority.open(tmp_path / "ca")
        authority.client(DESK).write(tmp_path / "ca", "desk")

        assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()} == {0o600}

    def test_broken(self, tmp_path):
        """A folder that holds something else is not made over."""
        DevelopmentAuthority.open(tmp_path)
        (tmp_path / "development-ca-key.pem").write_text("x")
        with pytest.raises(StartupError):
            DevelopmentAuthority.open(tmp_path)

    def test_died_while_made(self, tmp_path, monkeypatch):
        """A key without its certificate is an authority that was never finished: it is made anew."""
        (tmp_path / "development-ca-key.pem").write_text("half")

        assert DevelopmentAuthority.open(tmp_path).cert_pem

    def test_client(self, tmp_path):
        """Its client certificates pass the strict verifier and have no common name."""
        issued = DevelopmentAuthority.open(tmp_path).client(DESK)
        assert issued.certificate.subject == x509.Name([])

        tools = ToolVerifier("support.example", {DESK}.__contains__, time.time)
        assert tools.verify(issued.cert_pem).identity == DESK


class TestIssuer:
    async def test_tokens_pass_the_strict_verifier(self, tmp_path):
        """A minted token is accepted by way of the key set file that the settings name."""
        issuer = DevelopmentIssuer.open("https://id.example", tmp_path)
        block = IssuerSettings(
            issuer=issuer.issuer, audience="broker", algorithms=("ES256",), jwks_file=tmp_path / "jwks.json"
        )
        verifier = AgentVerifier([block], open_sources([block]), time.time)
        token = issuer.mint("alice", audience="broker", client_id="desk", groups=["tier1"])

        principal = await verifier.verify([f"Bearer {token}"])
        assert principal.agent.subject == "alice"
        assert principal.groups == {"tier1"}

    def test_is_made_once(self, tmp_path):
        """The second opening of a folder finds the first one's key, and the file is closed."""
        first = DevelopmentIssuer.open("https://id.example", tmp_path)
        assert DevelopmentIssuer.open("https://id.example", tmp_path).public == first.public

        assert jose.KeySet.from_jwks((tmp_path / "jwks.json").read_text()).holds(first.public)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}

    def test_broken(self, tmp_path):
        """A folder that holds something else is not made over."""
        (tmp_path / "development-issuer-key.pem").write_text("x")
        with pytest.raises(StartupError):
            DevelopmentIssuer.open("https://id.example", tmp_path)
