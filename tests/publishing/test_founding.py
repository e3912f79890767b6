"""Version 1 and the broken glass are examined like every version; the second may be published despite it."""

import pytest

from broker.database import open_pool
from broker.errors import PolicyInvalidError
from broker.policy.bundle import Bundle
from broker.publishing import in_this_process
from broker.records.shape import guard_shape, shape_text
from tests.policy.sample import CATALOG, files, small
from tests.published import founding, store
from tests.publishing.conftest import GOVERNED, leaves
from tests.publishing.test_gate import BASE, RULES

DENIED = "p, any, any, any, any, any, self, any, contact, any, deny\n"
CAME = "any, routed, customer, present, contact"
OPEN = files(
    admin_csv=GOVERNED,
    policy_csv=RULES.replace(DENIED, "").replace(CAME, CAME.replace("routed", "self")),
)
"""Contact data in clear for whoever takes a ticket for themselves."""

SCHEME = "Whoever takes a ticket for themselves sees nothing sensitive in clear"


@pytest.fixture
async def admin(database):
    """Gives a pool of the role that founds."""
    pool = await open_pool(database.dsn("broker_admin"), name="test", max_size=2)
    yield pool
    await pool.close()


@pytest.mark.parametrize(
    ("policy", "tests", "why"),
    [
        (OPEN, {}, SCHEME),
        (files(policy_csv=RULES), {}, "nobody could change the policy again"),
        (BASE, {"tests/a.yaml": "x"}, "tests/a.yaml:1:"),
    ],
    ids=["the incident", "nobody could change it", "its own tests"],
)
async def test_the_first_version_is_examined(admin, policy, tests, why):
    """What the gate would refuse does not become version 1 either; a good one does."""
    founds = founding(admin, examine=in_this_process)
    with pytest.raises(PolicyInvalidError, match=why):
        await founds.found(Bundle.of(policy, tests), by="serve")
    assert await store(admin).active_version() == ""

    assert await founds.found(Bundle.of(BASE, {}), by="serve")  # the control arm


async def test_a_broken_glass_is_examined(database, admin, owner):
    """Refused like a proposal; published all the same only where that was said, and the ledger says so."""
    await founding(admin).found(Bundle.of(BASE, {}), by="serve")
    breaks = founding(owner, examine=in_this_process)
    with pytest.raises(PolicyInvalidError, match=SCHEME):
        await breaks.break_glass(Bundle.of(OPEN, {}), by="root", reason="a drill")
    assert await store(admin).active_version() == "1"

    version, refusals = await breaks.break_glass(
        Bundle.of(OPEN, {}), by="root", reason="a drill", despite_refusals=True
    )
    *_, leaf = await leaves(database)
    assert (version, leaf["detail"]["despite_refusals"]) == (2, len(refusals))
    assert any(SCHEME in refusal for refusal in refusals)

    version, refusals = await breaks.break_glass(Bundle.of(BASE, {}), by="root", reason="a drill")
    *_, leaf = await leaves(database)
    assert (version, refusals, "despite_refusals" in leaf["detail"]) == (3, [], False)  # the control arm


async def test_what_brokers_cannot_load_is_never_published(admin, owner):
    """Whatever was said: it would end all service."""
    await founding(admin).found(Bundle.of(BASE, {}), by="serve")
    with pytest.raises(PolicyInvalidError, match=r"policy\.csv:"):
        await founding(owner, examine=in_this_process).break_glass(
            Bundle.of(files(policy_csv="x"), {}), by="root", reason="a drill", despite_refusals=True
        )

    assert await store(admin).active_version() == "1"


async def test_a_broken_glass_asks_for_the_guard(database, admin, owner):
    """Where a worker has said that the guard lacks something; where none has, nobody can know."""
    await founding(admin).found(Bundle.of(BASE, {}), by="serve")
    more = files(admin_csv=GOVERNED, policy_csv=RULES, catalog_yaml=CATALOG.replace("rows: 50", "rows: 60"))
    breaks = founding(owner)
    await breaks.break_glass(Bundle.of(more, {}), by="root", reason="nobody has looked")
    access = await open_pool(database.dsn("broker_access"), name="test", max_size=1)
    await store(access).report("a worker", 2, shape_text(guard_shape(small().catalog)))
    await access.close()

    with pytest.raises(PolicyInvalidError, match="50 rows at most, not 60"):
        await breaks.break_glass(Bundle.of(more, {}), by="root", reason="a drill")
    await breaks.break_glass(Bundle.of(BASE, {}), by="root", reason="the control arm")
