"""What administrators ask over the port is answered in a child, as the commands answer it here."""

import asyncio
import json
from datetime import date

import pytest

from broker.policy import decision
from broker.policy.bundle import Bundle
from broker.policy.compare import compare
from broker.policy.explain import explain_point
from broker.policy.lint import lint
from broker.policy.matrix import as_mapping, matrix
from broker.policy.who_can import who_can
from broker.publishing import Child, Questions, tasks
from broker.publishing.child import ChildBusyError, ChildFailedError
from tests.policy.sample import FACTS, files, small
from tests.policy.test_models import OLDER
from tests.publishing.conftest import OPEN

TODAY = date(2026, 11, 25)
NOON = 1_795_608_000.0  # that day
WORDS = FACTS.as_mapping()


@pytest.fixture(scope="module")
def questions():
    return Questions(
        Child(), dsn="", methods=["/broker.v1.TicketFeedService/PublishEvents"], clock=lambda: NOON
    )


async def test_validate(questions):
    """The lint's report."""
    bundle = Bundle.of(OPEN, {})
    expected = lint(OPEN, today=TODAY, methods=["/broker.v1.TicketFeedService/PublishEvents"])

    assert await questions.validate(bundle) == expected.as_mapping()


async def test_compare(questions):
    """The comparison."""
    new = files(policy_csv=OPEN.texts["policy.csv"])
    found = await questions.compare(Bundle.of(files(), {}), Bundle.of(new, {}))

    assert found == compare(small(), small(policy_csv=OPEN.texts["policy.csv"])).as_mapping()
    assert found["widens"]


async def test_explain_and_who_can(questions):
    """Why a field is as it is, and who sees it."""
    bundle = Bundle.of(files(), {})
    [told] = (await questions.explain(bundle, {"tier1"}, WORDS, ["customer.email"]))["fields"]
    found = await questions.who_can(bundle, "customer.email", "clear", [], {})

    assert told == explain_point(small(), frozenset({"tier1"}), FACTS, "customer.email").as_mapping()
    ways = who_can(small(), "customer.email", level="clear")
    assert [way["sentence"] for way in found["ways"]] == [way.sentence for way in ways]


async def test_matrix(questions, monkeypatch):
    """Who sees what, everywhere or of some sets of roles; one that no answer holds says what to ask for."""
    bundle = Bundle.of(files(), {})

    assert await questions.matrix(bundle, []) == json.loads(json.dumps(as_mapping(matrix(small()))))
    some = matrix(small(), [frozenset({"tier1", "tier2"})])
    assert await questions.matrix(bundle, ["tier1+tier2"]) == json.loads(json.dumps(as_mapping(some)))
    assert (await questions.matrix(bundle, ["nobody"]))["findings"]
    monkeypatch.setattr(tasks, "MOST_MATRIX", 100)
    task = {"bundle": {"files": dict(files().texts), "tests": {}}, "role_sets": [], "today": "2026-11-25"}
    assert "ask for some sets of roles" in tasks.TASKS["matrix"](task)["findings"][0]


def test_an_older_releases_policy_is_looked_at_and_never_run(monkeypatch):
    """Whatever only looks reads the model of an older release; a shadow, which runs, does not."""
    old, known = OLDER
    monkeypatch.setattr(decision, "KNOWN", known)
    bundle = {"files": dict(old.texts), "tests": {}}
    task = {
        "bundle": bundle, "base": bundle, "today": TODAY.isoformat(), "role_sets": [], "level": "",
        "facts": {}, "field": "customer.email",
    }  # fmt: skip
    explained = {**task, "facts": WORDS, "roles": ["tier1"], "fields": ["customer.email"]}

    for name in ("test", "compare", "who_can", "matrix"):
        assert "findings" not in tasks.TASKS[name](task), name
    assert tasks.TASKS["explain"](explained)["fields"][0]["level"] == "masked"
    assert "[model-changed]" in tasks.TASKS["hold"](task)["findings"][0]


async def test_questions_that_cannot_be_answered_say_why(questions):
    """Broken files, unknown roles and fields are findings, not errors."""
    bundle = Bundle.of(files(), {})
    broken = Bundle.of(files(policy_csv="x"), {"tests/a.yaml": "x"})
    for found in (
        await questions.test(broken),
        await questions.compare(bundle, broken),
        await questions.explain(bundle, {"nobody"}, WORDS, ["customer.email"]),
        await questions.who_can(bundle, "customer.shoe_size", "", [], {}),
        await questions.who_can(bundle, "customer.email", "", [], {"purpose": "sell"}),
        await questions.who_can(bundle, "customer.email", "", [], {"ticket_kind": "marketing"}),
    ):
        assert found["findings"]


async def test_more_findings_than_anybody_reads(questions):
    """A test file that is nothing but mistakes is told as such; the child does not die of it."""
    tests = "".join(f"  Test {n}:\n    roles: [tier1]\n    expect: {{clear: nothing}}\n" for n in range(150))
    found = await questions.test(Bundle.of(files(), {"tests/a.yaml": f"version: 1\ntests:\n{tests}...\n"}))

    assert len(found["findings"]) == 101
    assert "too-many" in found["findings"][-1]


async def test_a_kind_that_no_catalog_has(questions):
    """The control arm of the words: tickets of all other kinds are a word as well."""
    found = await questions.who_can(
        Bundle.of(files(), {}), "customer.email", "", [], {"ticket_kind": "other"}
    )

    assert found["ways"]


async def test_a_child_that_dies_says_of_what(caplog):
    """The log has the exception's name, bounded, and nothing of its text."""
    with pytest.raises(ChildFailedError, match="it died"):
        await Child()({"task": "a secret that is no task"})

    assert [record.reason for record in caplog.records] == ["1 KeyError"]


async def test_a_child_knows_no_secrets(monkeypatch):
    """Nothing of this process's environment reaches the child."""
    monkeypatch.setenv("BROKER_ADMIN_DSN", "postgresql://secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    with pytest.raises(ChildFailedError, match="it died"):
        await Child()({"task": "unknown"})


async def test_waiting_has_an_end():
    """Whoever finds the child busy waits for so long, and is told; the wait takes no time from the task."""
    child = Child()
    task = {"task": "validate", "bundle": {"files": dict(files().texts), "tests": {}}, "today": "2026-11-25"}
    busy = asyncio.create_task(child({**task, "methods": []}))
    await asyncio.sleep(0)
    with pytest.raises(ChildBusyError):
        await child(task, wait=0)

    assert not busy.done()
    assert (await busy)["errors"] is not None  # the control arm: it goes on
