"""Classes of fields over all versions of the catalog: read once, beside the loop, newest first."""

from __future__ import annotations

import json
import threading

import pytest

from broker.audit import field_classes as module
from broker.audit.field_classes import chosen, field_classes
from broker.policy import PolicyFiles
from tests.policy.sample import POLICIES

TEXTS = dict(PolicyFiles.from_directory(POLICIES).texts)
CATALOG = TEXTS["catalog.yaml"]


async def publish(audited, catalog):
    """Stores one more version, whose catalog is this text."""
    files = PolicyFiles({**TEXTS, "catalog.yaml": catalog})
    await audited.conn.execute(
        "INSERT INTO broker.policy_version (digest, files, loaded_by, how, tests, tests_digest, signature)"
        " VALUES ($1, $2, 'test', 'first', '{}', $1, 'test')",
        files.digest,
        json.dumps(dict(files.texts)),
    )


@pytest.fixture
def reads(monkeypatch):
    """Notes each catalog that is parsed, and on which thread."""
    seen = []
    real = module.read_catalog

    def read(text, findings):
        seen.append((text, threading.get_ident()))
        return real(text, findings)

    monkeypatch.setattr(module, "read_catalog", read)
    monkeypatch.setattr(module, "_kept", {})
    return seen


async def test_each_version_is_read_once_whatever_is_asked(audited, reads):
    """Whoever asks, however often; a new one costs its own reading alone, and none is read on the loop."""
    for n in range(30):
        await publish(audited, f"# {n}\n{CATALOG}")
    for _ in range(3):
        assert chosen(await field_classes(audited.pool), ["customer.never"]) == {}
    assert len(reads) == 30
    await publish(audited, f"# new\n{CATALOG}")
    assert (await field_classes(audited.pool))["customer.email"] == "contact"
    assert len(reads) == 31
    assert threading.get_ident() not in {thread for _, thread in reads}


async def test_no_transaction_waits_for_it(audited, reads, monkeypatch):
    """While a catalog is read the pool's connections are all free."""
    idle = []
    real = module._parsed

    def parsed(texts):
        idle.append(audited.pool.get_idle_size() == audited.pool.get_size())
        return real(texts)

    monkeypatch.setattr(module, "_parsed", parsed)
    await publish(audited, CATALOG)
    await field_classes(audited.pool)
    assert idle == [True]


async def test_the_newest_version_that_declares_a_field_tells(audited, reads):
    """A field that is gone keeps the class it had last; a catalog that cannot be read declares nothing."""
    assert await field_classes(audited.pool) == {}
    email, phone = (
        f"{name}: {{column: {name}, class: contact, mask: {name}}}" for name in ("email", "phone")
    )
    assert email in CATALOG
    assert phone in CATALOG
    await publish(audited, CATALOG)
    first = dict(await field_classes(audited.pool))
    assert (first["customer.email"], first["customer.phone"]) == ("contact", "contact")
    await publish(audited, CATALOG.replace(email, email.replace("contact", "identity")).replace(phone, ""))
    await publish(audited, "nothing: [of a catalog")
    wanted = {**first, "customer.email": "identity"}
    assert await field_classes(audited.pool) == wanted
    names = ["customer.never", "customer.phone", "customer.email"]
    assert chosen(wanted, names) == {"customer.email": "identity", "customer.phone": "contact"}
