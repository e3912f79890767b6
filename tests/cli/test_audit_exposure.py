"""`broker audit exposure`, `verify-pack` and `access` against a running sample company."""

from __future__ import annotations

import asyncio
import json
import zipfile

import asyncpg
import pytest

from broker.audit.exposed import Totals
from tests.cli.conftest import running_company

ALICE = "|alice"


@pytest.fixture(scope="module")
def company():
    """Starts a company of their own: a customer is erased here for good."""
    with running_company() as world:
        yield world


@pytest.fixture(autouse=True)
def settings(company, monkeypatch) -> None:
    """Points commands at the company, and at nobody's public key."""
    monkeypatch.setenv("BROKER_CONFIG", str(company.layout.settings_file))
    monkeypatch.delenv("BROKER_LOG_KEY", raising=False)


@pytest.fixture
def alice(broker, company):
    """Lets alice read a customer, and waits until that is published; gives her name in the ledger."""
    said = broker(
        "access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", "--json",
        "--dir", company.folder,
    )  # fmt: skip
    for _ in range(100):
        proof = broker("audit", "prove", said.data["decision_id"])
        if proof.code == 0:
            return proof
    pytest.fail("the read was not published")


@pytest.fixture
def name(broker, alice, company):
    """Gives alice's name in the ledger."""
    found = broker("audit", "events", "--kind", "read", "--json", "--as", "audrey", "--dir", company.folder)
    return next(event["agent"] for event in found.data if event["agent"].endswith(ALICE))


@pytest.fixture
def key(broker, tmp_path):
    """Gives a file with the log's public key."""
    path = tmp_path / "log.pub"
    assert broker("audit", "key", "--out", path).code == 0
    return path


def test_tells_whose_data_was_given_out(broker, name):
    """As a table with totals, as JSON, and as lines; all of one truth."""
    table = broker("audit", "exposure", "--agent", name)
    assert table.code == 0, table.err
    assert "customer.name" in table.out
    data = broker("audit", "exposure", "--agent", name, "--json").data
    assert data["totals"]["customers"] == len(data["customers"]) >= 1
    assert "customer.name" in data["customers"][0]["clear"]
    lines = [
        json.loads(line) for line in broker("audit", "exposure", "--agent", name, "--jsonl").out.splitlines()
    ]
    assert [*data["customers"], data["totals"]] == lines
    nothing = broker("audit", "exposure", "--agent", name, "--until", "2026-01-01", "--json").data
    assert nothing["totals"] == Totals().as_mapping({})


def test_a_pack_is_checked_with_the_key_alone(broker, name, key, tmp_path, monkeypatch):
    """Offline, without settings; a changed one is refused with exit code 1."""
    pack = tmp_path / "incident.zip"
    said = broker("audit", "exposure", "--agent", name, "--pack", pack)
    assert said.code == 0, said.err
    assert broker("audit", "exposure", "--agent", name, "--pack", pack).code == 1
    monkeypatch.setenv("BROKER_CONFIG", str(tmp_path / "nothing.toml"))
    checked = broker("audit", "verify-pack", pack, "--key", key)
    assert checked.code == 0, checked.err
    assert "the pack holds" in checked.err
    assert broker("audit", "verify-pack", pack, "--key", key, "--json").data["holds"]

    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(pack) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            new.writestr(member, data[:-2] if member == "customers.jsonl" else data)
    refused = broker("audit", "verify-pack", changed, "--key", key)
    assert refused.code == 1
    assert "customers.jsonl" in refused.err


def test_a_pack_over_the_port(broker, name, key, company, tmp_path, monkeypatch):
    """The broker makes it: no key or folder of the log's is needed here; it lists what the report does."""
    person = ("--as", "audrey", "--dir", company.folder)
    asked = ("audit", "exposure", "--agent", name)
    report = broker(*asked, "--json").data
    monkeypatch.setenv("BROKER_CONFIG", str(tmp_path / "nothing.toml"))
    packs = [tmp_path / f"{n}.zip" for n in range(3)]

    said = broker(*asked, "--pack", packs[0], "--json", *person)
    assert said.code == 0, said.err
    told = said.data.pop("pack")
    lines = [
        json.loads(line) for line in broker(*asked, "--pack", packs[1], "--jsonl", *person).out.splitlines()
    ]
    table = broker(*asked, "--pack", packs[2], *person)

    assert said.data["customers"] == report["customers"] == lines[:-1]
    assert said.data["totals"] == report["totals"] == lines[-1]
    assert said.data["selection"] == {"agent": name}
    assert (told["file"], told["reads"]) == (str(packs[0]), report["totals"]["reads"])
    assert "customer.name" in table.out
    assert str(packs[2]) in table.err
    for pack in packs:
        assert pack.stat().st_mode & 0o777 == 0o600
        assert broker("audit", "verify-pack", pack, "--key", key, "--json").data["selection"] == {
            "agent": name
        }


def test_a_pack_that_is_refused_leaves_no_file(broker, name, company, tmp_path):
    """Nor one for whom there is nothing to pack; what is there is not touched."""
    asked = ("audit", "exposure", "--agent", name, "--dir", company.folder, "--pack")
    refused = broker(*asked, tmp_path / "a.zip", "--as", "anna")
    assert (refused.code, "ADMIN_DENIED" in refused.err) == (1, True)
    nobody = broker(
        "audit", "exposure", "--customer-id", "no such person", "--pack", tmp_path / "b.zip",
        "--as", "audrey", "--dir", company.folder,
    )  # fmt: skip
    assert (nobody.code, "ever granted" in nobody.err) == (1, True)
    away = broker(*asked, tmp_path / "nowhere" / "c.zip", "--as", "audrey")
    assert (away.code, "no folder" in away.err) == (2, True)
    unknown = broker(
        "audit", "exposure", "--agent", f"{name}x", "--pack", tmp_path / "c.zip", "--as", "audrey",
        "--dir", company.folder,
    )  # fmt: skip
    assert (unknown.code, "no event names the agent" in unknown.err) == (1, True)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "d.zip").write_text("mine")
    taken = broker(*asked, tmp_path / "d.zip", "--as", "audrey")
    assert (taken.code, "never replaces" in taken.err) == (1, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("d.zip", "mine")]


async def key_of(company, pseudonym: str) -> str:
    """Gives the customer's key, as a grant that still lives tells it to a superuser."""
    conn = await asyncpg.connect(company.dsn())
    try:
        return await conn.fetchval(
            "SELECT customer_id FROM broker.access_grant WHERE customer_pseudonym = $1 LIMIT 1", pseudonym
        )
    finally:
        await conn.close()


def test_a_customer_asks_who_saw_them(broker, name, company):
    """By the customer's key, which the ledger never sees; an unknown one is told apart from nothing found."""
    customer = broker("audit", "exposure", "--agent", name, "--json").data["customers"][0]["customer"]
    mine = asyncio.run(key_of(company, customer))
    found = broker("audit", "exposure", "--customer-id", mine, "--json").data
    assert name in found["customers"][0]["agents"]
    access = broker("audit", "access", "--customer-id", mine, "--at", "0m", "--json").data
    assert name in [one["agent"] for one in access["did"]]
    assert name in [one["agent"] for one in access["could"] if one["could"]]
    table = broker("audit", "access", "--customer-id", mine, "--at", "0m")
    assert "Who could" in table.out
    assert broker("audit", "exposure", "--customer-id", "no such person").code == 1


def test_what_is_asked_wrongly_is_said(broker, name):
    """Each with what to do."""
    for arguments, sentence in (
        ((), "say whose"),
        (("--agent", "|alice"), "issuer|subject"),
        (("--agent", name, "--since", "1d", "--until", "2d"), "before"),
        (("--grant", "x"), "not an id"),
    ):
        said = broker("audit", "exposure", *arguments)
        assert said.code == 2
        assert sentence in said.err


def test_over_the_port_it_says_the_same(broker, name, company, tmp_path):
    """With a person, the broker is asked, and tells what the database tells."""
    person = ("--as", "audrey", "--dir", company.folder)
    asked = ("audit", "exposure", "--agent", name)

    assert broker(*asked, "--json", *person).data == broker(*asked, "--json").data
    assert broker(*asked, "--jsonl", *person).out == broker(*asked, "--jsonl").out

    file = tmp_path / "complaints.csv"
    file.write_text(
        "kind,identifier,contact_time,fields\nticket,T-1001,2030-01-01,\ncustomer,5,2026-01-02,\n"
    )
    for answer in (here := broker("audit", "attribute", file, "--json").data,
                   there := broker("audit", "attribute", file, "--json", *person).data):  # fmt: skip
        del answer["event_id"]
    assert here == there
    assert len(here["not_used"]) == 2

    asked = ("audit", "access", "--customer-id", "5", "--at", "2026-11-01T08:00", "--json")
    for answer in (here := broker(*asked).data, there := broker(*asked, *person).data):
        assert answer.pop("event_id")
    assert here == there
    for answer in (here := broker("audit", "unexplained", "--json").data,
                   there := broker("audit", "unexplained", "--json", *person).data):  # fmt: skip
        del answer["event_id"]
    assert here == there


def test_people_are_resolved_and_erased_by_who_may(broker, name, company, tmp_path):
    """A responder resolves, a privacy officer erases, nobody else; afterwards the pseudonym is nobody's."""
    here = ("--dir", company.folder)
    listed = tmp_path / "customers.jsonl"
    listed.write_text(broker("audit", "exposure", "--agent", name, "--jsonl").out)
    why = ("--reason", "INC-7")
    refused = broker("audit", "resolve", "--file", listed, *why, "--as", "audrey", *here)
    assert refused.code == 1
    found = broker("audit", "resolve", "--file", listed, *why, "--as", "rick", "--json", *here).data
    [one, *_] = found
    erase = ("audit", "erase", one["customer_id"], *why)

    assert "nothing was erased" in broker(*erase, "--as", "petra", *here).err
    assert broker(*erase, "--as", "rick", "--yes", *here).code == 1
    erased = broker(*erase, "--as", "petra", "--yes", "--json", *here).data
    assert (erased["pseudonym"], erased["salt_destroyed"]) == (one["pseudonym"], True)
    again = broker("audit", "resolve", one["pseudonym"], *why, "--as", "rick", "--json", *here).data
    assert again == [{"pseudonym": one["pseudonym"], "customer_id": None}]
    assert broker("audit", "verify").code == 0
