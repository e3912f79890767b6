"""What a call can end with, as exceptions that a tool can tell apart.

Invariants:
- a refusal is found by its reason, then by its gRPC code; an unknown one is still a `BrokerCallError`;
- the message is the broker's public sentence; it holds no personal data and may be shown and logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "broker.v1"
DETAILS_KEY = "grpc-status-details-bin"


class ClientError(Exception):
    """The client cannot do what was asked; the message says what to mend."""


class TokenSourceError(ClientError):
    """The agent's token could not be got from its file or command."""


class ReceiptInvalidError(ClientError):
    """The receipt does not prove that the disclosure is on record."""


class BrokerCallError(ClientError):
    """The broker refused the call or could not be reached."""

    codes: ClassVar[tuple[str, ...]] = ()
    reasons: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field: str = "",
    ) -> None:
        """Holds what the status said.

        Args:
            message: the broker's public sentence.
            code: name of the gRPC code, as `PERMISSION_DENIED`.
            reason: the ErrorReason without its prefix; empty where no broker answered.
            metadata: ErrorInfo metadata.
            field: the request field that is wrong; empty where none was named.
        """
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.field = field

    @property
    def decision_id(self) -> str:
        """Gives the id to quote to the operator and to `explain`; empty where no broker answered."""
        return self.metadata.get("decision_id", "")


# --- by code -----------------------------------------------------------------------------------
class UnauthenticatedError(BrokerCallError):
    """A token or the client certificate was not accepted."""

    codes = ("UNAUTHENTICATED",)


class DeniedError(BrokerCallError):
    """The caller is known and may not."""

    codes = ("PERMISSION_DENIED",)


class InvalidRequestError(BrokerCallError):
    """The request is wrong; `field` names where, if the broker said so."""

    codes = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")


class NotFoundError(BrokerCallError):
    """Nothing of the caller's has that id."""

    codes = ("NOT_FOUND",)


class ExhaustedError(BrokerCallError):
    """A budget or a rate is used up."""

    codes = ("RESOURCE_EXHAUSTED",)


class UnavailableError(BrokerCallError):
    """The broker cannot answer now; nothing was disclosed."""

    codes = ("UNAVAILABLE",)


class TimedOutError(BrokerCallError):
    """No answer came within the deadline."""

    codes = ("DEADLINE_EXCEEDED",)


class BrokenBrokerError(BrokerCallError):
    """The broker failed in a way that it does not explain; quote the decision id."""

    codes = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED")


# --- by reason ---------------------------------------------------------------------------------
class TokenInvalidError(UnauthenticatedError):
    """The agent's token or the grant is not accepted (any more)."""

    reasons = ("TOKEN_INVALID",)


class TicketDeniedError(DeniedError):
    """The ticket is not the agent's, or it does not exist; the broker does not say which."""

    reasons = ("TICKET_DENIED",)


class TicketClosedError(DeniedError):
    """The ticket is closed, access ended with it."""

    reasons = ("TICKET_CLOSED",)


class PolicyDeniedError(DeniedError):
    """The policy grants none of the fields; `explain(error.decision_id)` says what was missing."""

    reasons = ("POLICY_DENIED",)


class FieldNotGrantedError(DeniedError):
    """A field lies outside the grant."""

    reasons = ("FIELD_NOT_GRANTED",)


class AgentSuspendedError(DeniedError):
    """The agent is suspended."""

    reasons = ("AGENT_SUSPENDED",)


class BudgetExceededError(ExhaustedError):
    """The agent's budget of distinct customers is used up."""

    reasons = ("BUDGET_EXCEEDED",)

    @property
    def free_time(self) -> datetime | None:
        """Gives when the budget frees up; None where the broker did not say."""
        text = self.metadata.get("free_time", "")
        try:
            return datetime.fromisoformat(text) if text else None
        except ValueError:
            return None


class FeedStaleError(UnavailableError):
    """The ticket feed has gone silent, so nobody gets access until it speaks again."""

    reasons = ("FEED_STALE",)


def _family(cls: type[BrokerCallError]) -> list[type[BrokerCallError]]:
    return [cls, *(member for child in cls.__subclasses__() for member in _family(child))]


BY_REASON = {reason: cls for cls in _family(BrokerCallError) for reason in cls.reasons}
BY_CODE = {code: cls for cls in _family(BrokerCallError) if not cls.reasons for code in cls.codes}


def from_rpc(exc: grpc.aio.AioRpcError) -> BrokerCallError:
    """Makes the typed error of a failed call, from the google.rpc.Status in its trailers."""
    code = exc.code().name
    status = _status(exc)
    reason, metadata, field = "", {}, ""
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        # Of another domain it is a proxy's word, not the broker's.
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    cls = BY_REASON.get(reason) or BY_CODE.get(code) or BrokerCallError
    message = status.message or exc.details() or code
    return cls(message, code=code, reason=reason, metadata=metadata, field=field)


def _status(exc: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailers = exc.trailing_metadata()
    for key, value in trailers or ():
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(cast("bytes", value))
            except Exception:  # noqa: BLE001 - protobuf's parse errors have no common public class
                break
    return status_pb2.Status()
