"""What a child process does with policies: `python -m broker.publishing.tasks`, a task on stdin.

Invariants:
- address space and core files are bounded before anything is read;
- a task is a JSON object with texts in it; its answer is one, too;
- a task that fails says the name of the exception and nothing else: its text may quote a file.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from typing import Any

from broker.errors import PolicyInvalidError
from broker.model import Facts, Level
from broker.policy import Policy, PolicyFiles, load
from broker.policy.bundle import Bundle
from broker.policy.compare import compare
from broker.policy.decision import load_known
from broker.policy.everywhere import OTHER_KIND, default_role_sets, note_on
from broker.policy.explain import explain_point
from broker.policy.lint import lint
from broker.policy.matrix import as_mapping, matrix
from broker.policy.rules import CONDITIONS
from broker.policy.suite import incident_suite, read_suites, run
from broker.policy.who_can import who_can
from broker.publishing.gate import Question, Seat, examine

MOST_MEMORY = 2 << 30
"""Bytes of address space."""

MOST_MATRIX = 3 << 20
"""Bytes of a matrix as JSON: an answer of the admin port is 4 MiB at most."""

Task = Mapping[str, Any]


def main() -> int:
    """Does the task."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task = json.load(sys.stdin)
    try:
        answer, code = TASKS[task["task"]](task), 0
    except Exception as exc:  # noqa: BLE001 - the parent logs which
        answer, code = {"died": type(exc).__name__}, 1
    json.dump(answer, sys.stdout, default=str)
    return code


def _examine(task: Task) -> dict[str, Any]:
    question = Question(
        candidate=bundle_of(task["candidate"]),
        active=bundle_of(task["active"]) if task["active"] else None,
        before=tuple(task["before"]),
        today=_today(task),
        methods=task["methods"],
        replaces_tests=task["replaces_tests"],
        restores=task["restores"],
        author=Seat(**task["author"]) if task["author"] else None,
        approver=Seat(**task["approver"]) if task["approver"] else None,
        thorough=task["thorough"],
    )
    return examine(question).as_mapping()


def _validate(task: Task) -> dict[str, Any]:
    return lint(bundle_of(task["bundle"]).files, today=_today(task), methods=task["methods"]).as_mapping()


def _test(task: Task) -> dict[str, Any]:
    bundle = bundle_of(task["bundle"])
    policy = _load(bundle, task)
    suites = incident_suite(policy.catalog) + read_suites(bundle.tests, policy.catalog)
    return run(policy, suites).as_mapping()


def _hold(task: Task) -> dict[str, Any]:
    policy = load(bundle_of(task["bundle"]).files, "asked", today=_today(task))  # it is to run
    return {
        "rules": len(policy.book.rules),
        "roles": sorted(policy.roles),
        "fields": len(policy.catalog.fields),
        "verification": policy.verification,
    }


def _compare(task: Task) -> dict[str, Any]:
    return compare(_load(bundle_of(task["base"]), task), _load(bundle_of(task["bundle"]), task)).as_mapping()


def _explain(task: Task) -> dict[str, Any]:
    policy = _load(bundle_of(task["bundle"]), task)
    facts = Facts.of(*(task["facts"][name] for name in CONDITIONS))
    roles = _roles(policy, task["roles"])
    told = [explain_point(policy, roles, facts, _field(policy, field)) for field in task["fields"]]
    return {"facts": facts.as_mapping(), "fields": [each.as_mapping() for each in told]}


def _who_can(task: Task) -> dict[str, Any]:
    policy = _load(bundle_of(task["bundle"]), task)
    sets = _role_sets(policy, task)
    fixed = {name: word for name, word in task["facts"].items() if word}
    catalog = policy.catalog
    _word(fixed.get("purpose"), catalog.purposes, "purpose")
    _word(fixed.get("ticket_kind"), (*catalog.ticket_kinds, OTHER_KIND), "ticket kind")
    level = Level(task["level"]) if task["level"] else None
    ways = who_can(policy, _field(policy, task["field"]), level=level, role_sets=sets, **fixed)
    note = "" if sets else note_on(default_role_sets(policy))
    return {"field": task["field"], "ways": [way.as_mapping() for way in ways], "note": note}


def _matrix(task: Task) -> dict[str, Any]:
    policy = _load(bundle_of(task["bundle"]), task)
    found = as_mapping(matrix(policy, _role_sets(policy, task)))
    if len(json.dumps(found, ensure_ascii=False).encode()) > MOST_MATRIX:
        raise PolicyInvalidError(["the matrix is larger than an answer may be; ask for some sets of roles"])
    return found


def _replay(task: Task) -> dict[str, Any]:
    # Imported here: nothing else of these tasks knows a database.
    from broker.ledger import EventIds  # noqa: PLC0415
    from broker.replaying import open_replay_pool, replay_ledger  # noqa: PLC0415

    policy = _load(bundle_of(task["bundle"]), task)

    async def work() -> dict[str, Any]:
        pool = await open_replay_pool(task["dsn"])
        try:
            report = await replay_ledger(
                pool, EventIds(), policy,
                asked_by=task["asked_by"], person=task["person"], trace_id=task["trace_id"],
                since=datetime.fromisoformat(task["since"]), until=datetime.fromisoformat(task["until"]),
            )  # fmt: skip
        finally:
            await pool.close()
        return dict(report.as_mapping())

    return asyncio.run(work())


TASKS: Mapping[str, Callable[[Task], dict[str, Any]]] = {
    "examine": _examine,
    "validate": lambda task: _findings(_validate, task),
    "test": lambda task: _findings(_test, task),
    "hold": lambda task: _findings(_hold, task),
    "compare": lambda task: _findings(_compare, task),
    "explain": lambda task: _findings(_explain, task),
    "matrix": lambda task: _findings(_matrix, task),
    "who_can": lambda task: _findings(_who_can, task),
    "replay": lambda task: _findings(_replay, task),
}


def bundle_of(texts: Mapping[str, Mapping[str, str]]) -> Bundle:
    """Reads a bundle of a task."""
    return Bundle.of(PolicyFiles.from_mapping(texts["files"]), texts["tests"])


def _findings(work: Callable[[Task], dict[str, Any]], task: Task) -> dict[str, Any]:
    """Gives what is wrong with the files, or with the question, where there is no other answer."""
    try:
        return work(task)
    except PolicyInvalidError as exc:
        return {"findings": exc.findings}


def _load(bundle: Bundle, task: Task) -> Policy:
    """Loads a policy to look at it: also one of an older release."""
    return load_known(bundle.files, "asked", today=_today(task))


def _today(task: Task) -> date:
    return date.fromisoformat(task["today"])


def _field(policy: Policy, name: str) -> str:
    if name not in policy.catalog.fields:
        raise PolicyInvalidError(["the policy has no field of that name"])
    return name


def _word(word: str | None, known: Collection[str], what: str) -> None:
    if word is not None and word not in known:
        raise PolicyInvalidError([f"the policy has no {what} of that name"])


def _role_sets(policy: Policy, task: Task) -> list[frozenset[str]] | None:
    return [_roles(policy, names.split("+")) for names in task["role_sets"]] or None


def _roles(policy: Policy, names: list[str]) -> frozenset[str]:
    if not set(names) <= policy.roles:
        raise PolicyInvalidError(["the policy has no role of that name"])
    return frozenset(names)


if __name__ == "__main__":
    sys.exit(main())
