"""Who may pass at each port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.authn import Authenticator, ToolVerifier
from broker.errors import AdminDeniedError
from broker.model import Tool
from broker.policy import AdminTable
from broker.rpc.chain import Identity


class AccessGate:
    """The tools' port: a known tool carrying an agent's token; every RPC is open to every caller."""

    def __init__(self, authenticator: Authenticator) -> None:
        """Takes what authenticates tool and agent."""
        self._authenticator = authenticator

    def tool(self, certificate: bytes, chain: bytes) -> Tool:
        """Authenticates the tool."""
        return self._authenticator.tool(certificate, chain)

    async def identify(self, tool: Tool, metadata: Sequence[tuple[str, Any]]) -> Identity:
        """Authenticates the agent."""
        authorization = [value for key, value in metadata if key == "authorization"]
        caller = await self._authenticator.caller(tool, authorization)
        return Identity(tool.identity, caller)

    def permit(self, identity: Identity, method: str) -> None:
        """Lets every authenticated caller call: what they get is decided per ticket and field."""


class AdminGate:
    """The administrators' port: a known certificate, and a row in the admin table per RPC."""

    def __init__(self, verifier: ToolVerifier, table: Callable[[], AdminTable]) -> None:
        """Takes what reads certificates, and the table in force."""
        self._verifier = verifier
        self._table = table

    def tool(self, certificate: bytes, chain: bytes) -> Tool:
        """Authenticates the administrator."""
        return self._verifier.verify(certificate, chain)

    async def identify(
        self,
        tool: Tool,
        metadata: Sequence[tuple[str, Any]],  # noqa: ARG002 - administrators are their certificates
    ) -> Identity:
        """Gives the administrator."""
        return Identity(tool.identity)

    def permit(self, identity: Identity, method: str) -> None:
        """Asks the admin table; an unknown method is denied in the same words (E6)."""
        if not self._table().allows(identity.tool, method):
            raise AdminDeniedError
