"""The one catalogue of refusals: reason, gRPC code and public sentence.

Invariants:
- an expected "no" is a `Refusal` value or raised as `BrokerError`; both name a `Reason`;
- the class docstring is the public sentence; the cause is a second field and stays in the log;
- this module imports nothing of grpc: the table names codes, `rpc/` turns them into grpc's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID


class BrokerError(Exception):
    """The broker cannot answer."""

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        *,
        cause: str = "",
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        detail: str = "",
    ) -> None:
        """Holds what the log may know (`cause`, never personal data) apart from what the caller may.

        Args:
            cause: for log and ledger, a short fixed phrase; never sent to the caller.
            field: the request field that is wrong (BadRequest).
            metadata: extra ErrorInfo metadata, public.
            detail: a public sentence that replaces the class's where one class has several.
        """
        super().__init__(cause or self.reason)
        self.cause = cause
        self.field = field
        self.metadata = dict(metadata or {})
        self.detail = detail
        self.decision_id: UUID | None = None  # set once the refusal is on record

    def again(self) -> BrokerError:
        """Makes the same refusal for another caller: one that is shared would share its decision id."""
        other = type(self)(cause=self.cause, field=self.field, metadata=self.metadata, detail=self.detail)
        other.__cause__ = self.__cause__
        return other

    @property
    def sentence(self) -> str:
        """Gives the public text."""
        return self.detail or " ".join((type(self).__doc__ or "").split())


# --- UNAUTHENTICATED ---------------------------------------------------------------------------
class TokenInvalidError(BrokerError):
    """Invalid token; get a new one from your identity provider, or a new grant from the broker."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class ToolIdentityError(BrokerError):
    """The client certificate does not name exactly one accepted identity; ask the operator for one."""

    code = "UNAUTHENTICATED"
    reason = "TOOL_IDENTITY_INVALID"


# --- PERMISSION_DENIED -------------------------------------------------------------------------
class TicketDeniedError(BrokerError):
    """Permission 'record:read' denied on this ticket (or it might not exist)."""

    code = "PERMISSION_DENIED"
    reason = "TICKET_DENIED"


class TicketClosedError(BrokerError):
    """The ticket is closed; access ended with it. Reopen it in the helpdesk if work remains."""

    code = "PERMISSION_DENIED"
    reason = "TICKET_CLOSED"


class PolicyDeniedError(BrokerError):
    """The policy grants none of these fields for this purpose; call ExplainDenial with the decision id."""

    code = "PERMISSION_DENIED"
    reason = "POLICY_DENIED"


class FieldNotGrantedError(BrokerError):
    """A field lies outside the grant; create a grant that names it."""

    code = "PERMISSION_DENIED"
    reason = "FIELD_NOT_GRANTED"


class AgentSuspendedError(BrokerError):
    """Access is suspended; talk to your security team."""

    code = "PERMISSION_DENIED"
    reason = "AGENT_SUSPENDED"


class AdminDeniedError(BrokerError):
    """Permission denied for this identity (or the method might not exist)."""

    code = "PERMISSION_DENIED"
    reason = "ADMIN_DENIED"


class AudienceDeniedError(BrokerError):
    """This tool may not ask for grants for that audience; ask the operator to add it to the tool."""

    code = "PERMISSION_DENIED"
    reason = "AUDIENCE_DENIED"


# --- INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION ------------------------------------------
class RequestMalformedError(BrokerError):
    """The request cannot be parsed or a field is out of its bounds; see BadRequest for the field."""

    code = "INVALID_ARGUMENT"
    reason = "REQUEST_MALFORMED"


class FieldUnknownError(BrokerError):
    """The catalog knows no field of that name; see BadRequest for which."""

    code = "INVALID_ARGUMENT"
    reason = "FIELD_UNKNOWN"


class PurposeUnknownError(BrokerError):
    """The catalog knows no purpose of that name."""

    code = "INVALID_ARGUMENT"
    reason = "PURPOSE_UNKNOWN"


class DecisionNotFoundError(BrokerError):
    """No decision of yours has that id."""

    code = "NOT_FOUND"
    reason = "DECISION_NOT_FOUND"


class GrantNotFoundError(BrokerError):
    """No grant of yours has that id."""

    code = "NOT_FOUND"
    reason = "GRANT_NOT_FOUND"


class EventNotFoundError(BrokerError):
    """The ledger holds no event of that id."""

    code = "NOT_FOUND"
    reason = "EVENT_NOT_FOUND"


class ProofUnavailableError(BrokerError):
    """The published log cannot prove that now; try again in a second, then run `broker audit verify`."""

    code = "FAILED_PRECONDITION"
    reason = "PROOF_UNAVAILABLE"


class EventConflictError(BrokerError):
    """A ticket event repeats a stored version with other content; nothing of the batch was applied."""

    code = "FAILED_PRECONDITION"
    reason = "EVENT_CONFLICT"


class RequestIdReusedError(BrokerError):
    """The request id was used before with other content; choose a new one."""

    code = "FAILED_PRECONDITION"
    reason = "REQUEST_ID_REUSED"


# --- Publishing a policy -----------------------------------------------------------------------
class PolicyRefusedError(BrokerError):
    """The policy fails its examination and cannot come into force; see the report."""

    code = "FAILED_PRECONDITION"
    reason = "POLICY_REFUSED"


class ProposalNotFoundError(BrokerError):
    """No proposal has that id."""

    code = "NOT_FOUND"
    reason = "PROPOSAL_NOT_FOUND"


class ProposalEndedError(BrokerError):
    """The proposal does not wait any more; metadata `state` says what became of it."""

    code = "FAILED_PRECONDITION"
    reason = "PROPOSAL_ENDED"


class ProposalOvertakenError(BrokerError):
    """Another version came into force since; look at it, then propose again."""

    code = "FAILED_PRECONDITION"
    reason = "PROPOSAL_OVERTAKEN"


class ProposalDigestError(BrokerError):
    """The digest is not the proposal's; approve what you have looked at."""

    code = "FAILED_PRECONDITION"
    reason = "PROPOSAL_DIGEST"


class ProposalsFullError(BrokerError):
    """Too many proposals wait; approve, reject or withdraw some."""

    code = "RESOURCE_EXHAUSTED"
    reason = "PROPOSALS_FULL"


class SecondPersonError(BrokerError):
    """Another person must approve this; its author cannot."""

    code = "PERMISSION_DENIED"
    reason = "SECOND_PERSON_NEEDED"


class NotAuthorError(BrokerError):
    """Only its author may do that with a proposal; you may reject it."""

    code = "PERMISSION_DENIED"
    reason = "NOT_AUTHOR"


class VersionNotFoundError(BrokerError):
    """No version of the policy has that number."""

    code = "NOT_FOUND"
    reason = "VERSION_NOT_FOUND"


class VersionInvalidError(BrokerError):
    """That version is not what was published under its number; metadata `finding` says what is wrong."""

    code = "FAILED_PRECONDITION"
    reason = "VERSION_INVALID"


class GuardBehindError(BrokerError):
    """The installed guard does not cover this catalog; run `broker records install` with it first."""

    code = "FAILED_PRECONDITION"
    reason = "GUARD_BEHIND"


# --- RESOURCE_EXHAUSTED ------------------------------------------------------------------------
class BudgetExceededError(BrokerError):
    """The agent's budget of distinct customers is used up; metadata `free_time` says when it frees up."""

    code = "RESOURCE_EXHAUSTED"
    reason = "BUDGET_EXCEEDED"


class RateLimitedError(BrokerError):
    """Too many calls from this peer; slow down and try again."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"


class MetadataTooLargeError(BrokerError):
    """The call carries too much metadata; send the two tokens and a traceparent, nothing else."""

    code = "RESOURCE_EXHAUSTED"
    reason = "METADATA_TOO_LARGE"


# --- DEADLINE_EXCEEDED, UNAVAILABLE ------------------------------------------------------------
class DeadlineTooShortError(BrokerError):
    """Too little time is left to answer; call with a longer deadline."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_TOO_SHORT"


class LedgerUnavailableError(BrokerError):
    """The disclosure could not be put on record, so nothing was disclosed; try again later."""

    code = "UNAVAILABLE"
    reason = "LEDGER_UNAVAILABLE"


class DatabaseUnavailableError(BrokerError):
    """A database does not answer; try again later."""

    code = "UNAVAILABLE"
    reason = "DATABASE_UNAVAILABLE"


class RecordsUnavailableError(BrokerError):
    """The records could not be read through the guard; try again later."""

    code = "UNAVAILABLE"
    reason = "RECORDS_UNAVAILABLE"


class FeedStaleError(BrokerError):
    """The ticket feed has gone silent, so no assignment can be trusted; try again later."""

    code = "UNAVAILABLE"
    reason = "FEED_STALE"


class PolicyUnavailableError(BrokerError):
    """No policy is in force here, or it is just changing; try again."""

    code = "UNAVAILABLE"
    reason = "POLICY_UNAVAILABLE"


class KeysUnavailableError(BrokerError):
    """The identity provider's keys could not be fetched; try again later."""

    code = "UNAVAILABLE"
    reason = "KEYS_UNAVAILABLE"


class ShuttingDownError(BrokerError):
    """This broker is shutting down; call again, another one answers."""

    code = "UNAVAILABLE"
    reason = "SHUTTING_DOWN"


# --- INTERNAL ----------------------------------------------------------------------------------
class InternalError(BrokerError):
    """Internal error; quote the decision id to the operator."""

    code = "INTERNAL"
    reason = "INTERNAL"


# --- Not for callers: the operator's own ---------------------------------------------------------
class StartupError(Exception):
    """The broker refuses to start; the message says what to mend."""


class PolicyInvalidError(Exception):
    """A policy file is wrong; carries every finding with file and line."""

    def __init__(self, findings: list[str]) -> None:
        """Holds findings as `policy.csv:12: sentence`."""
        super().__init__("\n".join(findings))
        self.findings = findings


CATALOGUE: dict[str, type[BrokerError]] = {cls.reason: cls for cls in BrokerError.__subclasses__()}
"""Every reason that may reach a caller, made from the classes."""
