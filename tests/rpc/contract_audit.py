"""AuditService's rows of the contract."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit.events import TOKEN_LENGTH
from broker.v1 import audit_service_pb2 as audit
from broker.v1 import common_pb2 as common
from tests.rpc.company import Company, creation
from tests.rpc.contract import TEXTS, UUIDS, Rpc, _constant, _tokens, ref

personal = functools.partial(
    Rpc, "admin", certificate="console", stranger="feed", person="audrey", outsider="anna"
)
"""An RPC that audrey, an auditor, may call at the console."""

PSEUDONYMS = ("c1", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0' OR '1'='1" + "0" * 20, "0" * 31 + "\n")
TIMES = {
    "before there were ids": Timestamp(seconds=-1),
    "after all": Timestamp(seconds=253_402_300_799),
    "out of the type's range": Timestamp(seconds=2**62),
    "negative parts": Timestamp(seconds=1_700_000_000, nanos=-1),
}


async def _decision(company: Company) -> Message:
    async with company.peer("alice") as peer:
        refused = await peer.call("AccessService/CreateGrant", creation("T-nobody"))
    return audit.GetEventRequest(event_id=refused.decision_id)


def filters(wrap: Callable[[audit.EventFilter], Message]) -> Mapping[str, tuple[str, Message]]:
    """Lists what is wrong in a filter, in the request that holds it."""
    wrong: dict[str, tuple[str, audit.EventFilter]] = {}
    for n, text in enumerate(TEXTS):
        wrong[f"issuer {n}"] = ("filter.agent.issuer", audit.EventFilter(agent=ref(issuer=text)))
        wrong[f"subject {n}"] = ("filter.agent.subject", audit.EventFilter(agent=ref(subject=text)))
        if text:
            wrong[f"tool {n}"] = ("filter.tool", audit.EventFilter(tool=text))
    wrong["bar in the issuer"] = (
        "filter.agent.issuer",
        audit.EventFilter(agent=common.AgentRef(issuer="a|b")),
    )
    for n, text in enumerate(PSEUDONYMS):
        wrong[f"customer {n}"] = ("filter.customer", audit.EventFilter(customer=text))
        wrong[f"ticket {n}"] = ("filter.ticket", audit.EventFilter(ticket=text))
    for name, text in UUIDS.items():
        if text:
            wrong[f"grant {name}"] = ("filter.grant_id", audit.EventFilter(grant_id=text))
    for text in ("reads", "READ", "read ", "x' OR 1=1", "read\0"):
        wrong[f"kind {text!r}"] = ("filter.kind", audit.EventFilter(kind=text))
        wrong[f"outcome {text!r}"] = ("filter.outcome", audit.EventFilter(outcome=text))
        wrong[f"reason {text!r}"] = ("filter.reason", audit.EventFilter(reason=text))
    for text in ("0", "-1", "01", "1.5", "9" * 16, "\u0661", "1 "):
        wrong[f"version {text!r}"] = ("filter.policy_version", audit.EventFilter(policy_version=text))
    for name, stamp in TIMES.items():
        wrong[f"since {name}"] = ("filter.since", audit.EventFilter(since=stamp))
        wrong[f"until {name}"] = ("filter.until", audit.EventFilter(until=stamp))
    noon = Timestamp(seconds=1_700_000_000)
    wrong["no time between"] = ("filter.until", audit.EventFilter(since=noon, until=noon))
    return {sentence: (field, wrap(bad)) for sentence, (field, bad) in wrong.items()}


def _pages() -> Mapping[str, tuple[str, Message]]:
    sizes = (-1, 501, -(2**31), 2**31 - 1)
    return {f"page size {n}": ("page_size", audit.ListEventsRequest(page_size=n)) for n in sizes}


CONTRACT: dict[str, Rpc] = {
    "AuditService/ListEvents": personal(
        _constant(audit.ListEventsRequest(page_size=3)),
        {
            **_pages(),
            **_tokens(audit.ListEventsRequest, TOKEN_LENGTH),
            **filters(lambda bad: audit.ListEventsRequest(filter=bad)),
        },
    ),
    "AuditService/GetEvent": personal(
        _decision,
        {f"id {n}": ("event_id", audit.GetEventRequest(event_id=text)) for n, text in UUIDS.items()},
    ),
}
