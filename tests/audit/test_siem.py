"""Lines for a SIEM: OCSF's required attributes, CEF's escaping, and names that break out of nothing."""

import json
import re

import pytest

from broker.audit.export import COLUMNS
from broker.audit.siem import cef_line, ocsf_line
from tests.audit.test_export import NASTY

REQUIRED = {
    "activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint",
    "time", "type_uid",
}  # fmt: skip
"""Of OCSF 1.3.0's API Activity."""


def event(**change: object) -> dict:
    plain = {
        **dict.fromkeys(COLUMNS, ""), "record_time": "2026-11-25T12:00:00.250000+00:00", "leaf_index": 7,
        "kind": "read", "outcome": "released", "agent": "https://idp.test|anna", "tool": "spiffe://t/desk",
        "event_id": "019ab2f0-7c1e-7000-8000-3f2a9c5d1e77", "detail": {},
    }  # fmt: skip
    return plain | change


@pytest.mark.parametrize("kind", ["read", "grant", "denial", "login_failure", "auditor_query", "outcome"])
def test_ocsf_has_what_the_class_requires(kind):
    """Class and type agree, times are milliseconds, a refusal is a failure."""
    told = json.loads(ocsf_line(event(kind=kind)))
    refused = json.loads(ocsf_line(event(kind=kind, outcome="refused", reason="TICKET_DENIED")))

    assert set(told) >= REQUIRED
    assert told["type_uid"] == told["class_uid"] * 100 + told["activity_id"]
    assert told["time"] == 1795608000250
    assert told["metadata"]["sequence"] == 7
    assert (told["status_id"], refused["status_id"], refused["status_detail"]) == (1, 2, "TICKET_DENIED")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("https://idp.test|anna", "anna"),
        ("https://idp.test|auth0|17", "auth0|17"),
        ("spiffe://t/a",) * 2,
        ("", ""),
    ],
)
def test_ocsf_names_the_subject(agent, name):
    """Whole, also where it holds a bar; the identity itself where it is no person's."""
    assert json.loads(ocsf_line(event(agent=agent)))["actor"]["user"] == {"uid": agent, "name": name}


def cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Reads a line as its specification says: seven bars, then keys up to the next key."""
    *head, extension = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", extension))
    ends = [match.start() for match in keys[1:]] + [len(extension)]
    pairs = {m[1]: extension[m.end() : end] for m, end in zip(keys, ends, strict=True)}
    unescape = {"\\\\": "\\", "\\=": "=", "\\n": "\n", "\\r": "\r"}
    return head, {k: re.sub(r"\\[\\=nr]", lambda m: unescape[m[0]], v) for k, v in pairs.items()}


def test_cef_says_the_same():
    """Seven header fields and the columns by CEF's own keys; what is empty is left out with its label."""
    head, pairs = cef(cef_line(event(customer="c" * 32)))

    assert head == ["CEF:0", "broker", "Support access broker", "1", "read", "read released", "1"]
    assert pairs["suser"] == "https://idp.test|anna"
    assert (pairs["cn1"], pairs["cs1Label"], pairs["cs1"]) == ("7", "customer", "c" * 32)
    assert "cs2" not in pairs
    assert "cs2Label" not in pairs


@pytest.mark.attack("A11")
@pytest.mark.parametrize("name", [*NASTY, "x cn1=9 act=done", "x\ncn1=9", "\\", "a\\=b", 'x","sequence":9'])
def test_names_break_out_of_nothing(name):
    """One line each, and the forged key is no key."""
    for line in (ocsf_line(event(agent=name)), cef_line(event(agent=name))):
        assert len(line.splitlines()) == 1
    _, pairs = cef(cef_line(event(agent=name)))
    told = json.loads(ocsf_line(event(agent=name)))

    assert pairs["cn1"] == "7"
    assert set(pairs) == set(cef(cef_line(event()))[1])
    assert told["actor"]["user"]["uid"] == name
    assert told["metadata"]["sequence"] == 7
