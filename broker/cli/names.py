"""Agents as people type them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.cli.connections import Broker
    from broker.client import AgentName


def agent_name(text: str, broker: Broker) -> AgentName:
    """Reads `issuer|subject`; in the sample company a subject alone is one of its agents.

    Raises:
        StartupError: it is neither.
    """
    from broker.client import AgentName

    issuer, bar, subject = text.partition("|")
    if bar and issuer and subject:
        return AgentName(issuer, subject)
    if not broker.sample or bar:
        raise StartupError("name the agent as issuer|subject, as in the ledger")
    from broker.dev.layout import AGENT_ISSUER

    return AgentName(AGENT_ISSUER, text)
