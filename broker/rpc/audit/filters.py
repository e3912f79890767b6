"""Filters of events, checked."""

from __future__ import annotations

import re
from collections.abc import Container

from broker.audit.event_filter import EventFilter
from broker.errors import CATALOGUE, RequestMalformedError
from broker.ledger import EventKind
from broker.model import Agent
from broker.rpc import checks
from broker.v1 import audit_service_pb2 as pb
from broker.v1 import common_pb2

OUTCOMES = frozenset({"done", "granted", "refused", "released"})
NAME_LENGTH = 256
MOST_PAGE = 500
DEFAULT_PAGE = 100
VERSION = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
PSEUDONYM = re.compile(r"[0-9a-f]{32}", re.ASCII)


def event_filter(asked: pb.EventFilter) -> EventFilter:
    """Checks a filter and names what is wrong.

    Raises:
        RequestMalformedError: a field is out of its bounds.
    """
    since = checks.moment(asked, "since", "filter.since")
    until = checks.moment(asked, "until", "filter.until")
    if since and until and since >= until:
        raise RequestMalformedError(field="filter.until", cause="no time between")
    agent = agent_of(asked.agent, "filter.agent") if asked.HasField("agent") else None
    return EventFilter(
        agent=agent.key if agent else None,
        tool=checks.bounded(asked.tool, "filter.tool", NAME_LENGTH) if asked.tool else None,
        customer=pseudonym(asked.customer, "filter.customer") if asked.customer else None,
        ticket=pseudonym(asked.ticket, "filter.ticket") if asked.ticket else None,
        grant_id=checks.uuid(asked.grant_id, "filter.grant_id") if asked.grant_id else None,
        kind=_one_of(asked.kind, frozenset(EventKind), "filter.kind"),
        outcome=_one_of(asked.outcome, OUTCOMES, "filter.outcome"),
        reason=_one_of(asked.reason, CATALOGUE.keys(), "filter.reason"),
        policy_version=_version(asked.policy_version, "filter.policy_version"),
        since=since,
        until=until,
    )


def pseudonym(text: str, field: str) -> str:
    """Checks a pseudonym of a customer or ticket."""
    if not PSEUDONYM.fullmatch(text):
        raise RequestMalformedError(field=field, cause="pseudonym")
    return text


def agent_of(ref: common_pb2.AgentRef, field: str) -> Agent:
    """Checks a person's name."""
    issuer = checks.bounded(ref.issuer, f"{field}.issuer", NAME_LENGTH)
    if "|" in issuer:
        raise RequestMalformedError(field=f"{field}.issuer", cause="bar in issuer")
    return Agent(issuer, checks.bounded(ref.subject, f"{field}.subject", NAME_LENGTH))


def _one_of(text: str, words: Container[str], field: str) -> str | None:
    if not text:
        return None
    if text not in words:
        raise RequestMalformedError(field=field, cause="word")
    return text


def _version(text: str, field: str) -> int | None:
    if not text:
        return None
    if not VERSION.fullmatch(text):
        raise RequestMalformedError(field=field, cause="version")
    return int(text)


def page_size(number: int) -> int:
    """Checks the size of a page of events or spans; 0 means the default."""
    if not 0 <= number <= MOST_PAGE:
        raise RequestMalformedError(field="page_size", cause="page size")
    return number or DEFAULT_PAGE
