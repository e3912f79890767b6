"""Who may pass at each port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from broker.authn import Authenticator, PersonVerifier, ToolVerifier
from broker.errors import AdminDeniedError
from broker.model import Person, Tool
from broker.policy import AdminTable
from broker.rpc.calls import Identity

PERSONAL = frozenset({"broker.v1.PolicyService", "broker.v1.AuditService"})
"""Services that persons use through a console: the certificate's roles and the person's must both allow."""


def is_personal(method: str) -> bool:
    """Says whether a method, by its full name, takes a person beside the certificate."""
    return method.removeprefix("/").partition("/")[0] in PERSONAL


class AccessGate:
    """The tools' port: a known tool carrying an agent's token; every RPC is open to every caller."""

    def __init__(self, authenticator: Authenticator) -> None:
        """Takes what authenticates tool and agent."""
        self._authenticator = authenticator

    def tool(self, certificate: bytes, chain: bytes) -> Tool:
        """Authenticates the tool."""
        return self._authenticator.tool(certificate, chain)

    async def identify(
        self,
        tool: Tool,
        metadata: Sequence[tuple[str, Any]],
        method: str,  # noqa: ARG002 - every method here takes an agent
    ) -> Identity:
        """Authenticates the agent."""
        caller = await self._authenticator.caller(tool, _authorization(metadata))
        return Identity(tool.identity, caller)

    def permit(self, identity: Identity, method: str) -> None:
        """Lets every authenticated caller call: what they get is decided per ticket and field."""


class AdminGate:
    """The administrators' port: a known certificate, and a row in the admin table per RPC.

    Personal services have a second lock of the same make: the roles to which a person's groups lead.
    """

    def __init__(
        self, verifier: ToolVerifier, persons: PersonVerifier, table: Callable[[], AdminTable]
    ) -> None:
        """Takes what reads certificates and persons' tokens, and the table in force."""
        self._verifier = verifier
        self._persons = persons
        self._table = table

    def tool(self, certificate: bytes, chain: bytes) -> Tool:
        """Authenticates the administrator."""
        return self._verifier.verify(certificate, chain)

    async def identify(self, tool: Tool, metadata: Sequence[tuple[str, Any]], method: str) -> Identity:
        """Gives the administrator: the certificate, and for a personal service the person.

        The certificate's lock comes first: without it no token is looked at, and nobody learns from the
        answer which methods there are (E6).
        """
        identity = Identity(tool.identity)
        if not is_personal(method):
            return identity
        table = self._table()
        if not table.allows(tool.identity, method):
            raise AdminDeniedError(cause="certificate")
        principal = await self._persons.verify(_authorization(metadata))
        return replace(
            identity, person=Person(principal.agent, principal.groups, table.roles_of(principal.groups))
        )

    def permit(self, identity: Identity, method: str) -> None:
        """Asks the admin table; an unknown method is denied in the same words (E6)."""
        table = self._table()
        if not table.allows(identity.tool, method):
            raise AdminDeniedError(cause="certificate")
        if is_personal(method) and (
            identity.person is None or not table.allows_person(identity.person.groups, method)
        ):
            raise AdminDeniedError(cause="person")


def _authorization(metadata: Sequence[tuple[str, Any]]) -> list[Any]:
    return [value for key, value in metadata if key == "authorization"]
