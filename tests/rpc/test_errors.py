"""One catalogue of errors: the contract's enum, the classes, the proto's comments and the README agree."""

import re
from uuid import UUID

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from broker.errors import CATALOGUE, BrokerError
from broker.rpc import status
from tests.rpc.error_table import PREFIX, README, ROOT, filled, reasons

PROTO = ROOT / "proto" / "broker" / "v1" / "error_reason.proto"
COMMENT = re.compile(rf"  // ([A-Z_]+): (.+)\n(?:  //.*\n)*  {PREFIX}([A-Z_]+) = \d+;")
EXAMPLE = re.compile(rf'"reason": "([A-Z_]+)", "domain": "broker.v1"(?:.*\n)*?  {PREFIX}([A-Z_]+) = ')
DECISION = UUID("019ab2f0-7c1e-7000-8000-3f2a9c5d1e77")


def test_enum_and_classes():
    """Each value of the enum has one class and each class a value; names are those of AIP-193."""
    assert sorted(reasons()) == sorted(CATALOGUE)

    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", name) and len(name) <= 63 for name in CATALOGUE)
    assert len(BrokerError.__subclasses__()) == len(CATALOGUE)  # no reason has two classes


def test_contract_says_what_the_classes_say():
    """The comment of each enum value holds the code and sentence of its class, and an example."""
    text = PROTO.read_text("utf-8")
    said = {reason: (code, sentence) for code, sentence, reason in COMMENT.findall(text)}
    assert said == {name: (each.code, each().sentence) for name, each in CATALOGUE.items()}

    assert [one for one, other in EXAMPLE.findall(text) if one == other] == reasons()


def test_readme():
    """The README's table is the one that the classes make."""
    text = README.read_text("utf-8")
    assert filled(text) == text

    assert filled(text.replace("Invalid token", "Valid token")) == text


@pytest.mark.parametrize("reason", sorted(CATALOGUE))
def test_on_the_wire(reason):
    """Every class becomes a Status that says reason, domain, decision id and field, and nothing else."""
    error = CATALOGUE[reason](cause="secret cause", field="fields[3]", metadata={"free_time": "never"})
    error.decision_id = DECISION
    assert error.sentence.endswith(".")
    assert len(error.sentence) < 120

    [(key, packed)] = status.trailers(error)
    assert key == "grpc-status-details-bin"
    found = status_pb2.Status.FromString(packed)
    assert (status.code_of(error).value[0], error.sentence) == (found.code, found.message)
    assert isinstance(status.code_of(error), grpc.StatusCode)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert [found.details[0].Unpack(info), found.details[1].Unpack(bad)] == [True, True]
    assert (info.reason, info.domain) == (reason, "broker.v1")
    assert dict(info.metadata) == {"decision_id": str(DECISION), "free_time": "never"}
    assert [violation.field for violation in bad.field_violations] == ["fields[3]"]
    assert b"secret" not in packed
