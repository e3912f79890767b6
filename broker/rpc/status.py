"""The one table from our errors to google.rpc.Status; nothing else of an exception reaches a caller."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from broker.errors import BrokerError

DOMAIN = "broker.v1"
DETAILS_KEY = "grpc-status-details-bin"


def code_of(error: BrokerError) -> grpc.StatusCode:
    """Gives grpc's code for an error of ours."""
    return grpc.StatusCode[error.code]


def trailers(error: BrokerError) -> tuple[tuple[str, bytes], ...]:
    """Packs ErrorInfo (reason, domain, decision id) and, where a field is wrong, BadRequest."""
    metadata = {"decision_id": str(error.decision_id), **error.metadata}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    details = [_packed(info)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.sentence)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.sentence, details=details)
    return ((DETAILS_KEY, status.SerializeToString()),)


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
