"""AuditService's rows of the contract."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit.events import TOKEN_LENGTH
from broker.audit.spans import TOKEN_LENGTH as SPANS_TOKEN
from broker.client import BrokerCallError, EventQuery
from broker.v1 import audit_service_pb2 as audit
from broker.v1 import common_pb2 as common
from tests.rpc.company import Company, creation, eventually
from tests.rpc.contract import HIDDEN, TEXTS, TIMES, UUIDS, Rpc, _constant, _tokens, ref

personal = functools.partial(
    Rpc, "admin", certificate="console", stranger="feed", person="audrey", outsider="anna"
)
"""An RPC that audrey, an auditor, may call at the console."""

PSEUDONYMS = ("c1", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0' OR '1'='1" + "0" * 20, "0" * 31 + "\n")


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


async def _minute(company: Company) -> tuple[Timestamp, Timestamp]:
    now = int(time.time())
    return Timestamp(seconds=now - 60), Timestamp(seconds=now)


async def _spans(company: Company) -> Message:
    since, until = await _minute(company)
    return audit.SearchSpansRequest(since=since, until=until)


async def _reconcile(company: Company) -> Message:
    since, until = await _minute(company)
    return audit.ReconcileRequest(since=since, until=until)


async def _trace(company: Company) -> Message:
    async with company.peer("alice") as peer:
        granted = await company.grant(peer, await company.ticket())
    return audit.GetTraceRequest(id=granted.grant.decision_id)


async def _published(company: Company) -> str:
    """Gives an event that is published."""
    async with company.world.audit() as auditor:
        page = await auditor.event_page(EventQuery(), oldest_first=True, page_size=1)

        async def provable() -> bool:
            try:
                return bool(await auditor.prove(page.events[0].event_id))
            except BrokerCallError:
                return False

        await eventually(provable)
    return page.events[0].event_id


async def _checkpoint(company: Company) -> Message:
    await _published(company)
    return audit.GetCheckpointRequest()


async def _inclusion(company: Company) -> Message:
    return audit.ProveInclusionRequest(event_id=await _published(company))


async def _consistency(company: Company) -> Message:
    await _published(company)
    return audit.ProveConsistencyRequest(old_size=1)


def _periods(kind: type[Message]) -> dict[str, tuple[str, Message]]:
    noon = Timestamp(seconds=1_700_000_000)
    wrong: dict[str, tuple[str, Message]] = {
        "no since": ("since", kind(until=noon)),
        "no until": ("until", kind(since=noon)),
        "no time between": ("until", kind(since=noon, until=noon)),
    }
    for name, stamp in TIMES.items():
        wrong[f"since {name}"] = ("since", kind(since=stamp, until=noon))
        wrong[f"until {name}"] = ("until", kind(since=noon, until=stamp))
    return wrong


def _searches() -> Mapping[str, tuple[str, Message]]:
    day = {"since": Timestamp(seconds=1_700_000_000), "until": Timestamp(seconds=1_700_000_060)}
    search = functools.partial(audit.SearchSpansRequest, **day)
    pair = audit.SpanAttribute
    wrong: dict[str, tuple[str, Message]] = dict(_periods(audit.SearchSpansRequest))
    for n in (-1, 501, 2**31 - 1):
        wrong[f"page size {n}"] = ("page_size", search(page_size=n))
    for text in ("x", "0" * (SPANS_TOKEN + 1), "!" * SPANS_TOKEN, "\0" * SPANS_TOKEN, "0" * SPANS_TOKEN):
        wrong[f"page token {text[:3]!r} {len(text)}"] = ("page_token", search(page_token=text))
    for n, text in enumerate(TEXTS[1:]):
        wrong[f"name {n}"] = ("name", search(name=text))
        wrong[f"value {n}"] = ("attributes[0].value", search(attributes=[pair(key="a", value=text)]))
    for text in ("", "A", "a b", "a'b", "a\0", "x" * 101):
        wrong[f"key {text[:5]!r}"] = ("attributes[0].key", search(attributes=[pair(key=text, value="x")]))
    nine = [pair(key=f"k{n}", value="x") for n in range(9)]
    return wrong | {"nine attributes": ("attributes", search(attributes=nine))}


def _pseudonyms() -> Mapping[str, tuple[str, Message]]:
    wrong = {
        f"pseudonym {n}": ("pseudonyms[0]", audit.ResolvePseudonymsRequest(pseudonyms=[text], reason="why"))
        for n, text in enumerate(PSEUDONYMS)
    }
    for sentence, names in {
        "none": [],
        "twice": ["0" * 32] * 2,
        "too many": [f"{n:032x}" for n in range(1001)],
    }.items():
        wrong[sentence] = ("pseudonyms", audit.ResolvePseudonymsRequest(pseudonyms=names, reason="why"))
    for n, text in enumerate(TEXTS):
        wrong[f"reason {n}"] = (
            "reason",
            audit.ResolvePseudonymsRequest(pseudonyms=["0" * 32], reason=text),
        )
    return wrong


def _erasures() -> Mapping[str, tuple[str, Message]]:
    wrong: dict[str, tuple[str, Message]] = {}
    for n, text in enumerate(TEXTS):
        wrong[f"customer {n}"] = ("customer_id", audit.EraseCustomerRequest(customer_id=text, reason="why"))
        wrong[f"reason {n}"] = ("reason", audit.EraseCustomerRequest(customer_id="none such", reason=text))
    return wrong


async def _pack(company: Company) -> Message:
    await _published(company)
    return audit.BuildPackRequest(agent=ref(subject="ivan"))


def _exposures(
    kind: type[audit.ReportExposureRequest | audit.BuildPackRequest],
) -> Mapping[str, tuple[str, Message]]:
    noon = Timestamp(seconds=1_700_000_000)
    wrong: dict[str, tuple[str, Message]] = {
        "nothing": ("agent", kind()),
        "a time alone": ("agent", kind(since=noon)),
        "customer twice": ("customer_id", kind(customer="0" * 32, customer_id="5")),
        "no time between": ("until", kind(tool="x", since=noon, until=noon)),
        "bar in the issuer": ("agent.issuer", kind(agent=common.AgentRef(issuer="a|b", subject="c"))),
    }
    for n, text in enumerate(TEXTS):
        wrong[f"issuer {n}"] = ("agent.issuer", kind(agent=ref(issuer=text)))
        wrong[f"subject {n}"] = ("agent.subject", kind(agent=ref(subject=text)))
        if text:
            wrong[f"tool {n}"] = ("tool", kind(tool=text))
            wrong[f"key {n}"] = ("customer_id", kind(customer_id=text))
    for n, text in enumerate(PSEUDONYMS):
        wrong[f"customer {n}"] = ("customer", kind(customer=text))
    wrong |= {f"grant {name}": ("grant_id", kind(grant_id=text)) for name, text in UUIDS.items() if text}
    for name, stamp in TIMES.items():
        wrong[f"since {name}"] = ("since", kind(tool="x", since=stamp))
        wrong[f"until {name}"] = ("until", kind(tool="x", until=stamp))
    return wrong


def _accesses() -> Mapping[str, tuple[str, Message]]:
    noon = Timestamp(seconds=1_700_000_000)
    kind = audit.ReportAccessRequest
    wrong: dict[str, tuple[str, Message]] = {
        f"key {n}": ("customer_id", kind(customer_id=text, time=noon)) for n, text in enumerate(TEXTS)
    }
    wrong["no time"] = ("time", kind(customer_id="5"))
    for name, stamp in TIMES.items():
        wrong[f"time {name}"] = ("time", kind(customer_id="5", time=stamp))
    return wrong


def _standings() -> Mapping[str, tuple[str, Message]]:
    kind = audit.ListUnexplainedReadsRequest
    days = ("", "2026", "2026-13-01", "2026-02-30", "20260901", "2026-W05-1", "2026-09-01 ", "1999-01-01")
    wrong: dict[str, tuple[str, Message]] = {f"day {text!r}": ("since", kind(since=text)) for text in days}
    for n in (-1, 500_001, 2**31 - 1):
        wrong[f"chance {n}"] = ("alpha_millionths", kind(since="2026-09-01", alpha_millionths=n))
    return wrong


CONTRACT: dict[str, Rpc] = {
    "AuditService/ReportAccess": personal(
        _constant(audit.ReportAccessRequest(customer_id="none such", time=Timestamp(seconds=1_700_000_000))),
        _accesses(),
    ),
    "AuditService/ListUnexplainedReads": personal(
        _constant(audit.ListUnexplainedReadsRequest(since="2026-09-01")), _standings()
    ),
    "AuditService/AttributeLeak": personal(
        _constant(audit.AttributeLeakRequest(complaints=b"identifier,contact_time\n")),
        {
            "nothing": ("complaints", audit.AttributeLeakRequest()),
            "no columns": ("complaints", audit.AttributeLeakRequest(complaints=b"T-1,2026-11-04\n")),
            "no text": ("complaints", audit.AttributeLeakRequest(complaints=b"\xff\xfe\0")),
            "too big": ("complaints", audit.AttributeLeakRequest(complaints=b"x" * 1_048_577)),
        },
    ),
    "AuditService/ReportExposure": personal(
        _constant(audit.ReportExposureRequest(agent=ref(subject="alice"))),
        _exposures(audit.ReportExposureRequest),
    ),
    "AuditService/BuildPack": personal(_pack, _exposures(audit.BuildPackRequest)),
    "AuditService/ResolvePseudonyms": Rpc(
        "admin",
        _constant(audit.ResolvePseudonymsRequest(pseudonyms=["0" * 32], reason="INC-7")),
        _pseudonyms(),
        certificate="console",
        stranger="feed",
        person="rick",
        outsider="audrey",
    ),
    "AuditService/EraseCustomer": Rpc(
        "admin",
        _constant(audit.EraseCustomerRequest(customer_id="none such", reason="asked on paper")),
        _erasures(),
        certificate="console",
        stranger="feed",
        person="petra",
        outsider="rick",
    ),
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
    "AuditService/StreamEvents": personal(
        _constant(audit.StreamEventsRequest()),
        {
            f"index {n}": ("from_index", audit.StreamEventsRequest(from_index=n))
            for n in (-1, 2**40, 2**63 - 1)
        },
    ),
    "AuditService/GetTrace": personal(
        _trace, {f"id {n}": ("id", audit.GetTraceRequest(id=text)) for n, text in HIDDEN.items()}
    ),
    "AuditService/SearchSpans": personal(_spans, _searches()),
    "AuditService/Reconcile": personal(_reconcile, _periods(audit.ReconcileRequest)),
    "AuditService/GetCheckpoint": personal(_checkpoint),
    "AuditService/ProveInclusion": personal(
        _inclusion,
        {f"id {n}": ("event_id", audit.ProveInclusionRequest(event_id=text)) for n, text in UUIDS.items()},
    ),
    "AuditService/ProveConsistency": personal(
        _consistency,
        {
            "no size": ("old_size", audit.ProveConsistencyRequest()),
            "negative": ("old_size", audit.ProveConsistencyRequest(old_size=-1)),
            "shorter": ("new_size", audit.ProveConsistencyRequest(old_size=5, new_size=4)),
            "negative end": ("new_size", audit.ProveConsistencyRequest(old_size=5, new_size=-(2**63))),
        },
    ),
}
