"""The columns of an event, made again from its leaf: they are an index over it, never the truth; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

COLUMNS = (
    "id",
    "kind",
    "record_time",
    "agent",
    "tool",
    "grant_id",
    "trace_id",
    "customer_pseudonym",
    "ticket_pseudonym",
    "outcome",
    "reason",
    "policy_version",
)


TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def columns_of(leaf: bytes) -> dict[str, Any]:
    """Gives what each column must hold.

    Raises:
        ValueError: the bytes are no leaf.
    """
    try:
        found = json.loads(leaf)
        return {
            "id": UUID(found["id"]),
            "kind": found["kind"],
            "record_time": datetime.strptime(found["record_time"], TIME).replace(tzinfo=UTC),
            "agent": found["agent"],
            "tool": found["tool"],
            "grant_id": UUID(found["grant"]) if found["grant"] else None,
            "trace_id": found["trace"],
            "customer_pseudonym": found["customer"],
            "ticket_pseudonym": found["ticket"],
            "outcome": found["outcome"],
            "reason": found["reason"],
            "policy_version": int(found["policy_version"]) if found["policy_version"] else None,
        }
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise ValueError("not a leaf") from exc


def differing(leaf: bytes, row: Mapping[str, Any]) -> str:
    """Names the first column that is not what the leaf says; '' where all are, `leaf` where it is none."""
    try:
        expected = columns_of(leaf)
    except ValueError:
        return "leaf"
    return next((name for name in COLUMNS if row[name] != expected[name]), "")
