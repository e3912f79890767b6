"""An auditor's complaint file, full of people: what it holds reaches no store, no log and no answer."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.leaks import marked
from tests.leaks.search import Marker
from tests.leaks.story import Story, command
from tests.promises.company import connected

CLAIMS = {
    "e-mail": "quendolin.fassbinder@nirgendheim.example",
    "telephone": "+1 555 7709 013766",
    "customer": "Kunde-Quarkstrudel-xq",
    "ticket": "ZZ-Beschwerde-Wirrwarr",
    "kind": "Faxapparatur-Xyzzyx",
    "time": "vorgestern-Quibbelabend",
    "field": "geheimfeldling.nestroyplatz",
    "column": "Spaltenname-Hutzelbrumm",
    "cell": "Randnotiz-Kuddelmuddel",
}
"""What nobody but the file's author ever wrote."""

HEADER = "kind,identifier,contact_time,fields"
KNOWN = "customer.name customer.city"


def claims() -> list[Marker]:
    """Gives what is in the file alone."""
    return [Marker(f"{what} of a complaint", text) for what, text in CLAIMS.items()]


def complaint_file(tickets: list[str], now: datetime) -> bytes:
    """Writes complaints of every marked customer, by everything that names them, and of strangers."""
    told = []
    for n, (customer, ticket) in enumerate(zip(marked.customer_ids(), tickets, strict=True), 3):
        email, phone = (marked.COLUMNS[name].format(n=n) for name in ("email", "phone"))
        told += [("email", email), ("phone", phone), ("customer", customer), ("ticket", ticket)]
    lines = [f"{kind},{identifier},{now.isoformat()},{KNOWN}" for kind, identifier in told]
    c = CLAIMS
    lines += [
        f"email,{c['e-mail']},{now.isoformat()},{KNOWN}",
        f"phone,{c['telephone']},{now.isoformat()},",
        f"customer,{c['customer']},{now.isoformat()},{KNOWN} {c['field']}",
        f"ticket,{c['ticket']},{now.isoformat()},{c['field']}",
        f"{c['kind']},{c['customer']}-2,{now.isoformat()},",
        f"customer,{c['customer']}-3,{c['time']},",
        f"customer,{c['customer']}-4,{now.isoformat()},,{c['cell']}",
        f'customer,"{c["cell"]},{now.isoformat()},',
        f"customer,{c['customer']},{now.isoformat()},",
    ]
    return "\n".join([HEADER, *lines, ""]).encode()


async def attribute(story: Story) -> None:
    """Asks who leaked, over the port and over the databases, with files that are good, bad and too many."""
    world = story.world
    data = complaint_file(story.tickets, datetime.now(UTC))
    good, bad = world.layout.folder / "complaints.csv", world.layout.folder / "no-complaints.csv"
    good.write_bytes(data)
    bad.write_bytes(data.replace(b"identifier", CLAIMS["column"].encode(), 1))
    for how in (("--as", "audrey"), ()):
        for file in (good, bad):
            await command(story, "audit", "attribute", str(file), "--json", *how)
            await command(story, "audit", "attribute", str(file), *how)
    async with world.audit() as auditor:
        story.errors.append(repr(await auditor.attribute_leak(data, among_all=True)).encode())
        for spoilt in (bad.read_bytes(), data[len(HEADER) + 1 :]):
            await story.refused(auditor.attribute_leak(spoilt))
        async with connected(world.records_dsn()) as dba:  # the day's identifiers are used up
            await dba.execute(
                "SELECT setval('broker_guard.match_quota',"
                " floor(extract(epoch FROM clock_timestamp()) / 86400)::bigint * 1000000 + 2000)"
            )
        await story.refused(auditor.attribute_leak(data))
    await command(story, "audit", "attribute", str(good), "--among-all")
