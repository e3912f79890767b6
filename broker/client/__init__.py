"""The client library for builders of support tools.

    from broker.client import BrokerClient, token_file

    async with BrokerClient("broker:8443", ca_file="ca.pem", cert_file="tool.pem", key_file="tool.key",
                            token_source=token_file("agent.jwt")) as client:
        record = await client.read("T-1", ["customer.name", "customer.email"], purpose="resolve-ticket")
        for field in record:
            print(field.name, field.state, field.value)

Grants are created on the way, kept, and renewed when they run out. Stands apart from the broker:
imports its protocol (`broker.v1`) and nothing else of it.
"""

from broker.client.access import BrokerClient
from broker.client.administration import AdminClient, FeedClient
from broker.client.audit import AuditClient
from broker.client.audit_values import (
    ErasedCustomer,
    EventBatch,
    EventPage,
    EventQuery,
    ExposedCustomer,
    ExposureQuery,
    ExposureTotals,
    LeakRanking,
    LedgerEvent,
    MeasuredSpan,
    Reconciled,
    TracedThing,
)
from broker.client.errors import (
    AgentSuspendedError,
    BrokenBrokerError,
    BrokerCallError,
    BudgetExceededError,
    ClientError,
    DeniedError,
    ExhaustedError,
    FeedStaleError,
    FieldNotGrantedError,
    InvalidRequestError,
    NotFoundError,
    PolicyDeniedError,
    ReceiptInvalidError,
    TicketClosedError,
    TicketDeniedError,
    TimedOutError,
    TokenInvalidError,
    TokenSourceError,
    UnauthenticatedError,
    UnavailableError,
)
from broker.client.policy import PolicyClient
from broker.client.policy_values import (
    Examination,
    PolicyStatus,
    PolicyText,
    PolicyVersion,
    PolicyWorker,
    Proposal,
    Proposed,
    WhoIAm,
)
from broker.client.receipts import VerifiedReceipt, verify_receipt
from broker.client.tokens import TokenSource, token_command, token_file
from broker.client.values import (
    AgentName,
    AssignedTicket,
    Explanation,
    FieldState,
    FieldValue,
    Grant,
    GrantedField,
    GrantStatus,
    Heartbeat,
    Receipt,
    Record,
    Reinstatement,
    Resync,
    Revocation,
    Suspension,
)

__all__ = [
    "AdminClient",
    "AgentName",
    "AgentSuspendedError",
    "AssignedTicket",
    "AuditClient",
    "BrokenBrokerError",
    "BrokerCallError",
    "BrokerClient",
    "BudgetExceededError",
    "ClientError",
    "DeniedError",
    "ErasedCustomer",
    "EventBatch",
    "EventPage",
    "EventQuery",
    "Examination",
    "ExhaustedError",
    "Explanation",
    "ExposedCustomer",
    "ExposureQuery",
    "ExposureTotals",
    "FeedClient",
    "FeedStaleError",
    "FieldNotGrantedError",
    "FieldState",
    "FieldValue",
    "Grant",
    "GrantStatus",
    "GrantedField",
    "Heartbeat",
    "InvalidRequestError",
    "LeakRanking",
    "LedgerEvent",
    "MeasuredSpan",
    "NotFoundError",
    "PolicyClient",
    "PolicyDeniedError",
    "PolicyStatus",
    "PolicyText",
    "PolicyVersion",
    "PolicyWorker",
    "Proposal",
    "Proposed",
    "Receipt",
    "ReceiptInvalidError",
    "Reconciled",
    "Record",
    "Reinstatement",
    "Resync",
    "Revocation",
    "Suspension",
    "TicketClosedError",
    "TicketDeniedError",
    "TimedOutError",
    "TokenInvalidError",
    "TokenSource",
    "TokenSourceError",
    "TracedThing",
    "UnauthenticatedError",
    "UnavailableError",
    "VerifiedReceipt",
    "WhoIAm",
    "token_command",
    "token_file",
    "verify_receipt",
]
