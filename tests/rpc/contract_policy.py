"""PolicyService's part of the contract: how each RPC is called rightly, and how wrongly.

What is examined here is broken on purpose, so that the answer comes at once; what an examination says is
tested in tests/publishing.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.database import open_pool
from broker.keys import SigningKeys
from broker.policy.bundle import Bundle
from broker.publishing import Draft
from broker.v1 import policy_service_pb2 as pb
from tests.published import ANNA, BORIS, administrator, publisher
from tests.rpc.company import Company
from tests.rpc.contract import TEXTS, TIMES, UUIDS, WHY, Rpc, _constant, _sizes

Wrong = dict[str, tuple[str, Message]]

NAMES = ("model.conf", "policy.csv", "catalog.yaml", "limits.yaml", "admin.csv")
BROKEN = pb.PolicyBundle(files=dict.fromkeys(NAMES, "x"))
BUNDLES = {
    "none": pb.PolicyBundle(),
    "four files": pb.PolicyBundle(files=dict.fromkeys(NAMES[:4], "x")),
    "six files": pb.PolicyBundle(files=dict.fromkeys((*NAMES, "more.csv"), "x")),
    "a path": pb.PolicyBundle(files=dict.fromkeys(NAMES, "x"), tests={"tests/../x.yaml": "x"}),
    "a test of no name": pb.PolicyBundle(files=dict.fromkeys(NAMES, "x"), tests={"": "x"}),
    "51 tests": pb.PolicyBundle(
        files=dict.fromkeys(NAMES, "x"), tests={f"tests/a{n}.yaml": "x" for n in range(51)}
    ),
    "a large file": pb.PolicyBundle(files={**dict.fromkeys(NAMES, "x"), "model.conf": "x" * 20_000}),
}
VERSIONS = ("x", "0", "-1", "01", "1.0", " 1", "\u0661", "9" * 16)
DIGEST = "0" * 64
FACTS = {
    "purpose": "resolve-ticket",
    "relation": "assignee",
    "ticket_kind": "general",
    "provenance": "routed",
    "opened_by": "customer",
    "presence": "absent",
}


def _bundles(kind: type[Message], **more: object) -> Wrong:
    return {f"bundle: {name}": ("bundle", kind(bundle=bundle, **more)) for name, bundle in BUNDLES.items()}


def _ids(kind: type[Message], **more: object) -> Wrong:
    return {f"id {n}": ("proposal_id", kind(proposal_id=text, **more)) for n, text in UUIDS.items()}


def _reasons(kind: type[Message], **more: object) -> Wrong:
    return {f"reason {n}": ("reason", kind(reason=text, **more)) for n, text in enumerate(TEXTS)}


def _versions(kind: type[Message], **more: object) -> Wrong:
    return {f"version {text!r}": ("version", kind(version=text, **more)) for text in VERSIONS}


def _facts(kind: type[Message], *, missing: bool, **more: object) -> Wrong:
    wrong: Wrong = {}
    for name in FACTS:
        for text in ("X", "a b", "x" * 65, "a\u0301", *([""] if missing else [])):
            wrong[f"{name} {text[:9]!r}"] = (name, kind(**{**FACTS, **more, name: text}))
    for name in ("relation", "provenance", "opened_by", "presence"):
        wrong[f"{name} unknown"] = (name, kind(**{**FACTS, **more, name: "whatever"}))
    return wrong


async def _proposed(company: Company, *, author=ANNA, approved: bool = False):
    """Makes a proposal of the company's own policy, on paper."""
    world = company.world
    pool = await open_pool(world.dsn("broker_admin"), name="tests: contract", max_size=2)
    try:
        acts = publisher(pool, SigningKeys(world.layout.keys, time.time))
        bundle = Bundle.from_directory(company.settings()["policies_dir"])
        _, proposal, _ = await acts.propose(author, Draft(bundle, WHY, base=0))
        if approved:
            _, proposal = await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    finally:
        await pool.close()
    return proposal


async def _approve(company: Company) -> Message:
    """An approval that is said again: the first one was boris's, too."""
    done = await _proposed(company, approved=True)
    return pb.ApproveRequest(proposal_id=str(done.proposal_id), digest=done.digest)


async def _reject(company: Company) -> Message:
    made = await _proposed(company, author=administrator("carol"))
    return pb.RejectRequest(proposal_id=str(made.proposal_id), reason=WHY)


async def _withdraw(company: Company) -> Message:
    made = await _proposed(company)
    return pb.WithdrawRequest(proposal_id=str(made.proposal_id), reason=WHY)


async def _get(company: Company) -> Message:
    made = await _proposed(company)
    return pb.GetProposalRequest(proposal_id=str(made.proposal_id))


def _stamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text).replace(tzinfo=UTC))
    return stamp


ID = str(uuid.uuid4())


def _rpc(right, wrong: Wrong | None = None, person: str = "anna", outsider: str = "") -> Rpc:
    return Rpc(
        "admin", right, wrong or {}, certificate="console", stranger="feed", person=person,
        outsider=outsider, seconds=90.0,
    )  # fmt: skip


CONTRACT: dict[str, Rpc] = {
    "PolicyService/WhoAmI": _rpc(_constant(pb.WhoAmIRequest())),
    "PolicyService/Propose": _rpc(
        _constant(pb.ProposeRequest(bundle=BROKEN, reason=WHY)),
        {
            **_bundles(pb.ProposeRequest, reason=WHY),
            **_reasons(pb.ProposeRequest, bundle=BROKEN),
            **{
                f"base {text!r}": (
                    "base_version", pb.ProposeRequest(bundle=BROKEN, reason=WHY, base_version=text)
                )
                for text in VERSIONS
            },
        },
    ),
    "PolicyService/Approve": _rpc(
        _approve,
        {
            **_ids(pb.ApproveRequest, digest=DIGEST),
            **{
                f"digest {n}": ("digest", pb.ApproveRequest(proposal_id=ID, digest=text))
                for n, text in enumerate(("", " x", "x" * 65, "x\0"))
            },
            **{
                f"reason {n}": ("reason", pb.ApproveRequest(proposal_id=ID, digest=DIGEST, reason=text))
                for n, text in enumerate(TEXTS[1:])
            },
        },
        person="boris",
    ),
    "PolicyService/Reject": _rpc(
        _reject,
        {**_ids(pb.RejectRequest, reason=WHY), **_reasons(pb.RejectRequest, proposal_id=ID)},
        person="boris",
    ),
    "PolicyService/Withdraw": _rpc(
        _withdraw, {**_ids(pb.WithdrawRequest, reason=WHY), **_reasons(pb.WithdrawRequest, proposal_id=ID)}
    ),
    "PolicyService/Rollback": _rpc(
        _constant(pb.RollbackRequest(version="1", reason=WHY)),
        {
            **{f"version {v!r}": ("version", pb.RollbackRequest(version=v, reason=WHY)) for v in VERSIONS},
            **_reasons(pb.RollbackRequest, version="1"),
        },
    ),
    "PolicyService/ListProposals": _rpc(
        _constant(pb.ListProposalsRequest(include_ended=True)),
        {
            **_sizes(pb.ListProposalsRequest),
            **{
                f"token {n}": ("page_token", pb.ListProposalsRequest(page_token=text))
                for n, text in UUIDS.items()
                if text
            },
        },
    ),
    "PolicyService/GetProposal": _rpc(_get, _ids(pb.GetProposalRequest)),
    "PolicyService/ListVersions": _rpc(
        _constant(pb.ListVersionsRequest()),
        {
            **_sizes(pb.ListVersionsRequest),
            **{f"token {v!r}": ("page_token", pb.ListVersionsRequest(page_token=v)) for v in VERSIONS},
        },
        person="audrey",
    ),
    "PolicyService/GetVersion": _rpc(
        _constant(pb.GetVersionRequest()),
        {f"version {v!r}": ("version", pb.GetVersionRequest(version=v)) for v in VERSIONS},
        person="audrey",
    ),
    "PolicyService/GetStatus": _rpc(_constant(pb.GetStatusRequest()), person="olga"),
    "PolicyService/Validate": _rpc(
        _constant(pb.ValidateRequest(bundle=BROKEN)), _bundles(pb.ValidateRequest)
    ),
    "PolicyService/Test": _rpc(_constant(pb.TestRequest(bundle=BROKEN)), _bundles(pb.TestRequest)),
    "PolicyService/Compare": _rpc(
        _constant(pb.CompareRequest(bundle=BROKEN)),
        {
            **_bundles(pb.CompareRequest),
            **{
                f"base {v!r}": ("base_version", pb.CompareRequest(bundle=BROKEN, base_version=v))
                for v in VERSIONS
            },
        },
    ),
    "PolicyService/Replay": _rpc(
        _constant(pb.ReplayRequest(bundle=BROKEN, since=_stamp("2026-11-01"), until=_stamp("2026-11-02"))),
        {
            **_bundles(pb.ReplayRequest, since=_stamp("2026-11-01")),
            "no time": ("since", pb.ReplayRequest(bundle=BROKEN)),
            "backwards": (
                "since",
                pb.ReplayRequest(bundle=BROKEN, since=_stamp("2026-11-02"), until=_stamp("2026-11-01")),
            ),
            "two years": (
                "since",
                pb.ReplayRequest(bundle=BROKEN, since=_stamp("2024-11-02"), until=_stamp("2026-11-01")),
            ),
            **{
                f"{name} {sentence}": (
                    name, pb.ReplayRequest(bundle=BROKEN, **{"since": _stamp("2026-11-01"), name: stamp})
                )
                for name in ("since", "until")
                for sentence, stamp in TIMES.items()
            },
        },
    ),
    "PolicyService/Explain": _rpc(
        _constant(pb.ExplainRequest(roles=["tier1"], fields=["customer.name"], **FACTS)),
        {
            **_facts(pb.ExplainRequest, missing=True, roles=["tier1"], fields=["customer.name"]),
            "no roles": ("roles", pb.ExplainRequest(fields=["customer.name"], **FACTS)),
            "33 roles": ("roles", pb.ExplainRequest(roles=["a"] * 33, fields=["customer.name"], **FACTS)),
            "no fields": ("fields", pb.ExplainRequest(roles=["tier1"], **FACTS)),
            **_versions(pb.ExplainRequest, roles=["tier1"], fields=["customer.name"], **FACTS),
        },
    ),
    "PolicyService/WhoCan": _rpc(
        _constant(pb.WhoCanRequest(field="customer.shoe_size")),
        {
            **_facts(pb.WhoCanRequest, missing=False, field="customer.name"),
            "no field": ("field[0]", pb.WhoCanRequest()),
            "a level that is none": ("level", pb.WhoCanRequest(field="customer.name", level="all")),
            "33 sets": ("role_sets", pb.WhoCanRequest(field="customer.name", role_sets=["a"] * 33)),
            "a role that is none": (
                "role_sets[0]", pb.WhoCanRequest(field="customer.name", role_sets=["tier1+"])
            ),
            **_versions(pb.WhoCanRequest, field="customer.name"),
        },
    ),
    "PolicyService/GetMatrix": _rpc(
        _constant(pb.GetMatrixRequest(role_sets=["nobody"])),
        {
            "33 sets": ("role_sets", pb.GetMatrixRequest(role_sets=["a"] * 33)),
            "a role that is none": ("role_sets[0]", pb.GetMatrixRequest(role_sets=["tier1+"])),
            **_versions(pb.GetMatrixRequest),
        },
        person="audrey",
        outsider="olga",
    ),
    "PolicyService/StartShadow": _rpc(
        _constant(pb.StartShadowRequest(bundle=BROKEN)), _bundles(pb.StartShadowRequest), outsider="audrey"
    ),
    "PolicyService/StopShadow": _rpc(_constant(pb.StopShadowRequest()), outsider="audrey"),
    "PolicyService/GetShadow": _rpc(
        _constant(pb.GetShadowRequest()),
        {
            f"differences {number}": ("max_differences", pb.GetShadowRequest(max_differences=number))
            for number in (-1, 2001, -(2**31), 2**31 - 1)
        },
        person="audrey",
        outsider="olga",
    ),
}  # fmt: skip
