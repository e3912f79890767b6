"""The durable record: events, group commit, receipts."""

from broker.ledger.denials import DenialRate
from broker.ledger.events import (
    NO_TRACE,
    Event,
    EventIds,
    EventKind,
    GrantAppend,
    ReadAppend,
    encode,
    head,
    rest_of,
)
from broker.ledger.receipt import Receipt, receipts
from broker.ledger.skew import clock_agrees
from broker.ledger.store import GrantStore, StoredGrant
from broker.ledger.writer import (
    ACCESS_DOOR,
    ADMIN_DOOR,
    AUDITOR_DOOR,
    Ledger,
    Verdict,
    append_events,
    read_arguments,
    read_values,
)

__all__ = [
    "ACCESS_DOOR",
    "ADMIN_DOOR",
    "AUDITOR_DOOR",
    "NO_TRACE",
    "DenialRate",
    "Event",
    "EventIds",
    "EventKind",
    "GrantAppend",
    "GrantStore",
    "Ledger",
    "ReadAppend",
    "Receipt",
    "StoredGrant",
    "Verdict",
    "append_events",
    "clock_agrees",
    "encode",
    "head",
    "read_arguments",
    "read_values",
    "receipts",
    "rest_of",
]
