"""Events as a SIEM takes them: OCSF 1.3.0 (class API Activity, 6003) and CEF (version 0).

Customers and tickets are pseudonyms here as everywhere. The leaf's index is the sequence number of both.

Invariants:
- pure: an event's columns and its leaf's detail in, one line out;
- what an agent, a tool or a reason is called cannot break out of its value or line (A11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from broker.audit.export import json_line

OCSF_VERSION = "1.3.0"
VENDOR, PRODUCT = "broker", "Support access broker"
CATEGORY, CLASS = 6, 6003  # Application Activity, API Activity

CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99
ACTIVITIES = {
    "grant": CREATE, "read": READ, "auditor_query": READ, "policy": UPDATE, "revoke": DELETE,
    "suspension": UPDATE,
}  # fmt: skip
"""What an event's kind is in OCSF's words; another one is Other."""

SUCCESS, FAILURE = 1, 2
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3

ALARMING = frozenset({"login_failure", "denials", "suspension"})
"""Kinds that somebody should look at."""


def ocsf_line(event: Mapping[str, Any]) -> str:
    """Gives one event as an OCSF event, a line of JSON."""
    activity = ACTIVITIES.get(event["kind"], OTHER)
    refused = event["outcome"] == "refused"
    told: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": CATEGORY,
        "class_uid": CLASS,
        "type_uid": CLASS * 100 + activity,
        "time": int(datetime.fromisoformat(event["record_time"]).timestamp() * 1000),
        "severity_id": _severity(event),
        "status_id": FAILURE if refused else SUCCESS,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": PRODUCT, "vendor_name": VENDOR},
            "uid": event["event_id"],
            "sequence": event["leaf_index"],
            "correlation_uid": event["trace_id"],
        },
        "api": {"operation": event["kind"], "response": {"error": event["reason"]}},
        "actor": {
            "user": {"uid": event["agent"], "name": event["agent"].partition("|")[2] or event["agent"]}
        },
        "src_endpoint": {"name": event["tool"]},
        "resources": [{"type": kind, "uid": event[kind]} for kind in ("customer", "ticket") if event[kind]],
        "unmapped": {
            "outcome": event["outcome"],
            "grant_id": event["grant_id"],
            "policy_version": event["policy_version"],
            "detail": event["detail"],
        },
    }
    if activity == OTHER:
        told["activity_name"] = event["kind"]
    if event["reason"]:
        told["status_detail"] = event["reason"]
    else:
        del told["api"]["response"]
    return json_line(told)


def cef_line(event: Mapping[str, Any]) -> str:
    """Gives one event as a line of CEF."""
    head = [VENDOR, PRODUCT, "1", event["kind"], f"{event['kind']} {event['outcome']}"]
    severity = {INFORMATIONAL: 1, LOW: 4, MEDIUM: 6}[_severity(event)]
    told = {
        "rt": int(datetime.fromisoformat(event["record_time"]).timestamp() * 1000),
        "externalId": event["event_id"],
        "cn1Label": "leafIndex",
        "cn1": event["leaf_index"],
        "suser": event["agent"],
        "shost": event["tool"],
        "act": event["kind"],
        "outcome": event["outcome"],
        "reason": event["reason"],
        "cs1Label": "customer",
        "cs1": event["customer"],
        "cs2Label": "ticket",
        "cs2": event["ticket"],
        "cs3Label": "grant",
        "cs3": event["grant_id"],
        "cs4Label": "policyVersion",
        "cs4": event["policy_version"],
        "cs5Label": "trace",
        "cs5": event["trace_id"],
    }
    shown = {name: value for name, value in told.items() if value not in {"", None} and _labelled(told, name)}
    extension = " ".join(f"{name}={_value(value)}" for name, value in shown.items())
    return "|".join(["CEF:0", *(_header(word) for word in head), str(severity), extension])


def _labelled(told: Mapping[str, Any], name: str) -> bool:
    """Leaves a label out whose value is empty."""
    return not name.endswith("Label") or told[name.removesuffix("Label")] not in {"", None}


def _severity(event: Mapping[str, Any]) -> int:
    if event["kind"] in ALARMING:
        return MEDIUM
    return LOW if event["outcome"] == "refused" else INFORMATIONAL


_UNSAFE = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _header(text: str) -> str:
    """Writes a word of the header: a bar and a backslash are escaped; no line ends in there."""
    plain = _UNSAFE.sub(" ", text)
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def _value(value: object) -> str:
    """Writes a value of the extension: '=' and backslash are escaped, a line's end is written out."""
    text = str(value).replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")
    return _UNSAFE.sub(" ", text)
