"""Who may pass at each port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.authn import Authenticator, ToolVerifier
from broker.errors import AdminDeniedError
from broker.policy import AdminTable
from broker.rpc.chain import Context, Identity

CERTIFICATE = "x509_pem_cert"
"""Key of grpc's auth context; `x509_common_name` and `peer_identities` are never looked at."""


def certificate_of(context: Context) -> bytes:
    """Gives the peer's certificate as PEM, b"" where there is none."""
    values = list(context.auth_context().get(CERTIFICATE, ()))
    return bytes(values[0]) if len(values) == 1 else b""


class AccessGate:
    """The tools' port: a known tool carrying an agent's token; every RPC is open to every caller."""

    def __init__(self, authenticator: Authenticator) -> None:
        """Takes what authenticates tool and agent."""
        self._authenticator = authenticator

    async def identify(self, context: Context, metadata: Sequence[tuple[str, Any]]) -> Identity:
        """Authenticates tool and agent."""
        authorization = [value for key, value in metadata if key == "authorization"]
        caller = await self._authenticator.authenticate(certificate_of(context), authorization)
        return Identity(caller.tool.thumbprint, caller.tool.identity, caller)

    def permit(self, identity: Identity, method: str) -> None:
        """Lets every authenticated caller call: what they get is decided per ticket and field."""


class AdminGate:
    """The administrators' port: a known certificate, and a row in the admin table per RPC."""

    def __init__(self, verifier: ToolVerifier, table: Callable[[], AdminTable]) -> None:
        """Takes what reads certificates, and the table in force."""
        self._verifier = verifier
        self._table = table

    async def identify(
        self,
        context: Context,
        metadata: Sequence[tuple[str, Any]],  # noqa: ARG002 - administrators are their certificates
    ) -> Identity:
        """Authenticates the administrator."""
        admin = self._verifier.verify(certificate_of(context))
        return Identity(admin.thumbprint, admin.identity)

    def permit(self, identity: Identity, method: str) -> None:
        """Asks the admin table; an unknown method is denied in the same words (E6)."""
        if not self._table().allows(identity.tool, method):
            raise AdminDeniedError
