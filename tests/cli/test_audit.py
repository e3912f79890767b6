"""`broker audit` against a running sample company."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from urllib.request import urlopen

import asyncpg
import pytest

from tests.cli.conftest import running_company

OTHER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
"""Of another log: the example of C2SP signed-note."""


@pytest.fixture(scope="module")
def company():
    """Starts a company of their own: they change the ledger's rows and the log's key."""
    with running_company() as world:
        yield world


@pytest.fixture
def audrey(company) -> tuple[str, ...]:
    """The auditor of the sample company, at its console."""
    return "--as", "audrey", "--dir", str(company.folder)


@pytest.fixture(autouse=True)
def settings(company, monkeypatch) -> None:
    """Points commands at the company, and at nobody's public key."""
    monkeypatch.setenv("BROKER_CONFIG", str(company.layout.settings_file))
    monkeypatch.delenv("BROKER_LOG_KEY", raising=False)


@pytest.fixture
def read(broker, company, tmp_path):
    """Reads a record; gives the file with what the command printed, once the read is published."""
    said = broker(
        "access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", "--json",
        "--dir", company.folder,
    )  # fmt: skip
    path = tmp_path / "read.json"
    path.write_text(said.out)
    for _ in range(100):
        if broker("audit", "prove", said.data["decision_id"]).code == 0:
            return path
    pytest.fail("the read was not published")


def sql(company, statement: str, *arguments: object) -> None:
    """Does something as the superuser, with the triggers off."""

    async def execute() -> None:
        conn = await asyncpg.connect(company.dsn())
        await conn.execute("SET session_replication_role = replica")
        await conn.execute(statement, *arguments)
        await conn.close()

    asyncio.run(execute())


def test_the_log_of_a_company_holds(broker, read, company):
    """Whatever the broker itself wrote verifies, every kind of event of it."""
    said = broker("audit", "verify")
    assert said.code == 0, said.err + said.out
    assert "the log holds" in said.err

    with urlopen(f"http://127.0.0.1:{company.layout.ports()['http']}/metrics") as answer:
        metrics = answer.read().decode()
    assert re.search(r"^broker_log_size [1-9]", metrics, re.MULTILINE)
    assert "broker_log_stopped 0.0" in metrics

    data = broker("audit", "verify", "--json").data
    assert (data["holds"], data["findings"]) == (True, [])
    assert data["published"] > 0


def test_a_receipt_is_found_in_the_log(broker, read, company, tmp_path):
    """The disclosure of a receipt is in the log; one that is not is told."""
    assert broker("audit", "verify", "--receipt", read).code == 0
    forged = json.loads(read.read_text())
    leaf = json.loads(base64.b64decode(forged["receipt"]["leaf"]))
    leaf["agent"] = "https://idp.broker.dev|mallory"
    forged["receipt"]["leaf"] = base64.b64encode(json.dumps(leaf).encode()).decode()
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    assert broker("audit", "verify", "--receipt", tmp_path / "forged.json").code == 1


def test_a_proof_verifies_with_the_key_alone(broker, read, tmp_path, monkeypatch):
    """Proofs are printed, and verified without settings; under another key they prove nothing."""
    decision = json.loads(read.read_text())["decision_id"]
    key = broker("audit", "key").out.strip()
    proof = tmp_path / "proof.json"
    proof.write_text(broker("audit", "prove", decision).out)
    consistency = tmp_path / "consistency.json"
    consistency.write_text(broker("audit", "prove-consistency", 1).out)
    assert broker("audit", "key", "--out", tmp_path / "log.pub").code == 0
    monkeypatch.delenv("BROKER_CONFIG")

    said = broker("audit", "verify-proof", proof, "--key", tmp_path / "log.pub", "--json")
    assert (said.code, said.data["event"]["id"]) == (0, decision)
    assert broker("audit", "verify-proof", consistency, "--key", key).code == 0
    assert broker("audit", "verify-proof", proof).code == 2
    nowhere = broker("audit", "verify-proof", proof, "--key", tmp_path / "no.pub")
    assert (nowhere.code, "broker audit key --out log.pub" in nowhere.err) == (2, True)
    assert (
        broker(
            "audit",
            "verify-proof",
            proof,
            "--key",
            OTHER_KEY,
        ).code
        == 1
    )


def test_proofs_over_the_port(broker, read, audrey, tmp_path, monkeypatch):
    """A person gets the same proofs from the broker, without settings; with the key verified ones alone."""
    decision = json.loads(read.read_text())["decision_id"]
    monkeypatch.delenv("BROKER_CONFIG")
    key = tmp_path / "log.pub"
    assert broker("audit", "key", "--out", key, *audrey).code == 0
    for number, (verb, of, proves) in enumerate(
        (("prove", (decision,), "inclusion"), ("prove-consistency", (1,), "consistency"),
         ("prove-consistency", (1, 1), "consistency"))
    ):  # fmt: skip
        said = broker("audit", verb, *of, *audrey)
        assert said.code == 0, said.err
        proof = tmp_path / f"{number}.json"
        proof.write_text(broker("audit", verb, *of, "--key", key, *audrey).out)
        checked = broker("audit", "verify-proof", proof, "--key", key, "--json").data
        assert checked["proves"] == proves
        assert broker("audit", verb, *of, "--key", OTHER_KEY, *audrey).out == ""
        assert broker("audit", verb, *of, "--key", OTHER_KEY, *audrey).code == 1


def test_proofs_over_the_port_are_for_auditors(broker, read, company):
    """Nobody else gets one; what the log does not have cannot be proved."""
    decision = json.loads(read.read_text())["decision_id"]
    for name, reason in (("anna", "ADMIN_DENIED"), ("petra", "ADMIN_DENIED")):
        said = broker("audit", "prove", decision, "--as", name, "--dir", company.folder)
        assert (said.code, said.out, reason in said.err) == (1, "", True)
        said = broker("audit", "prove-consistency", 1, "--as", name, "--dir", company.folder)
        assert (said.code, said.out, reason in said.err) == (1, "", True)
    person = ("--as", "audrey", "--dir", company.folder)
    for verb in (("prove", uuid.uuid4()), ("prove-consistency", 10**6)):
        said = broker("audit", *verb, *person)
        assert (said.code, said.out, "PROOF_UNAVAILABLE" in said.err) == (1, "", True)
    assert broker("audit", "prove-consistency", 0, *person).code == 2


def test_the_logs_key(broker, company, audrey, tmp_path):
    """One line that everybody may read, the same from the folder and over the port; it replaces nothing."""
    listed = broker("keys", "list", "--log", "--json").data[0]["key"]
    path = tmp_path / "log.pub"

    assert broker("audit", "key").out == broker("audit", "key", *audrey).out == f"{listed}\n"
    said = broker("audit", "key", "--out", path, *audrey)
    assert (said.code, "compare that id" in said.err) == (0, True)
    assert path.read_text() == f"{listed}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert broker("audit", "key", "--out", path, "--json").data == {
        "log": listed.partition("+")[0], "key_id": listed.split("+")[1], "key": listed, "file": str(path),
    }  # fmt: skip
    path.write_text("another\n")
    taken = broker("audit", "key", "--out", path)
    assert (taken.code, path.read_text()) == (1, "another\n")
    assert broker("audit", "key", "--out", tmp_path / "no" / "log.pub").code == 2
    refused = broker("audit", "key", "--out", tmp_path / "b.pub", "--as", "anna", "--dir", company.folder)
    assert (refused.code, (tmp_path / "b.pub").exists()) == (1, False)


def test_nothing_to_accept_and_nothing_to_prune(broker, read):
    """Neither changes anything where there is nothing to do."""
    assert broker("audit", "accept-loss", "--reason", "none").code == 1
    assert broker("audit", "prune", "--before", "2020-01-01", "--json").data == {
        "partitions": [],
        "dropped": False,
    }


def test_a_kept_checkpoint(broker, read, company, tmp_path):
    """The log continues a checkpoint that was copied from what is published."""
    kept = tmp_path / "kept"
    kept.write_bytes((company.layout.log / "checkpoint").read_bytes())
    assert broker("audit", "verify", "--checkpoint", kept).code == 0


@pytest.mark.attack("A1")
def test_a1_verify_names_the_event_and_fails(broker, read, company):
    """A changed event is named, with exit code 1; put back, the log holds again."""
    decision = json.loads(read.read_text())["decision_id"]
    sql(company, "UPDATE broker.ledger_event SET agent = 'x' || agent WHERE id = $1", decision)
    said = broker("audit", "verify")
    sql(company, "UPDATE broker.ledger_event SET agent = substr(agent, 2) WHERE id = $1", decision)

    assert said.code == 1
    assert decision in said.err
    assert broker("audit", "verify").code == 0


@pytest.mark.attack("A13")
def test_a13_a_rotated_key(broker, read, company, audrey):
    """A new key takes over while the broker runs; the key that auditors hold goes on to verify everything."""
    old = broker("keys", "list", "--log", "--json").data[0]["key"]
    said = broker("keys", "rotate", "--log")
    assert said.code == 0, said.err
    for _ in range(100):
        broker("audit", "verify", "--key", old)  # is an event itself, so a checkpoint follows
        states = [key["state"] for key in broker("keys", "list", "--log", "--json").data]
        if states == ["gone", "signing"]:
            break
    else:
        pytest.fail(f"the key was not handed over: {states}")
    new = broker("keys", "list", "--log", "--json").data[1]["key"]

    assert [broker("audit", "verify", "--key", key).code for key in (old, new)] == [0, 0]
    assert broker("audit", "key").out == broker("audit", "key", *audrey).out == f"{old}\n"
    newest = ("audit", "key", "--newest")
    assert broker(*newest).out == broker(*newest, *audrey).out == f"{new}\n"
    assert broker("keys", "rotate", "--log", "--now").code == 2
