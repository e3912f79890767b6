"""Agents as people type them: one reader and one help text for every verb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.cli.connections import Broker
    from broker.client import AgentName

AGENT = "issuer|subject as events show it, or the subject alone where one issuer of agents is known."
IN_FULL = "write issuer|subject, as `broker audit events --json` shows it"


def agent_name(text: str, broker: Broker | None = None) -> AgentName:
    """Reads `issuer|subject`, or a subject alone where only one person can be meant.

    Args:
        text: as it was typed.
        broker: that is asked. In the sample company its agents are known; elsewhere, and where a database is
            asked, the issuers of the settings are.

    Raises:
        StartupError: it is neither, nobody of that name is known, or several could be meant.
    """
    from broker.client import AgentName

    issuer, bar, subject = text.partition("|")
    if bar:
        if not issuer or not subject:
            raise StartupError(f"agent {text!r} lacks its issuer or its subject: {IN_FULL}")
        return AgentName(issuer, subject)
    if broker is not None and broker.sample is not None:
        return _of_the_sample(text, broker)
    issuers = _issuers()
    if len(issuers) > 1:
        written = ", ".join(f'"{each}|{text}"' for each in issuers)
        raise StartupError(f"agent {text!r} could be one of several; write which: {written}")
    if not issuers:
        raise StartupError(f"agent {text!r}: no issuer of agents is known here; {IN_FULL}")
    return AgentName(issuers[0], text)


def _of_the_sample(text: str, broker: Broker) -> AgentName:
    from broker.client import AgentName
    from broker.dev.layout import AGENT_ISSUER, Layout

    agents = Layout.existing(broker.sample).agents() if broker.sample else {}
    if text not in agents:
        raise StartupError(
            f"no agent {text!r} here; there are: {', '.join(sorted(agents))}\n  for anybody else {IN_FULL}"
        )
    return AgentName(AGENT_ISSUER, text)


def _issuers() -> list[str]:
    from broker.settings import read_settings

    return list(dict.fromkeys(block.issuer for block in read_settings().issuers))
