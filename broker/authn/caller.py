"""Tool and agent together: a tool carries tokens of its own OAuth clients only (K12)."""

from __future__ import annotations

from collections.abc import Sequence

from broker.authn.agent import AgentVerifier
from broker.authn.tool import ToolVerifier
from broker.errors import TokenInvalidError
from broker.model import Caller, Tool
from broker.settings import ToolSettings


class Authenticator:
    """Gives the caller of a call on the access port."""

    def __init__(self, tools: ToolVerifier, agents: AgentVerifier, settings: Sequence[ToolSettings]) -> None:
        """Takes both verifiers and which clients each tool may carry tokens of."""
        self._tools = tools
        self._agents = agents
        self._clients = {tool.identity: frozenset(tool.client_ids) for tool in settings}

    async def authenticate(
        self, certificate: bytes, authorization: Sequence[str], chain: bytes = b""
    ) -> Caller:
        """Gives the caller; the tool is looked at first, so that a stranger's token costs nothing.

        Args:
            certificate: the peer's certificate; b"" where there is none.
            authorization: every value of the `authorization` metadata key.
            chain: what the peer sent beside its certificate.

        Raises:
            ToolIdentityError: the certificate does not name one known tool.
            TokenInvalidError: the token is no good, or was issued to another tool's client.
            KeysUnavailableError: the issuer's keys are not to be had.
        """
        return await self.caller(self.tool(certificate, chain), authorization)

    def tool(self, certificate: bytes, chain: bytes = b"") -> Tool:
        """Gives the tool alone, as `authenticate` does first."""
        return self._tools.verify(certificate, chain)

    async def caller(self, tool: Tool, authorization: Sequence[str]) -> Caller:
        """Gives the caller that a tool speaks for, as `authenticate` does then."""
        principal = await self._agents.verify(authorization)
        if principal.client_id not in self._clients.get(tool.identity, frozenset()):
            raise TokenInvalidError(cause="token was issued to another client than the tool's")
        return Caller(tool, principal)
