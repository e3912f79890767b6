"""The same model and rules decide the same in another Casbin, written by other people in another language.

Runs where npm is present; `casbin` for Node is installed once, by the hashes of `node/package-lock.json`,
into a folder of its own below the disk's temporary directory. Regular expressions, where the two are known
to differ, do not occur in the model.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from itertools import islice, pairwise
from pathlib import Path

import pytest

from broker.policy import PolicyFiles, load
from broker.policy.engine import Engine, subject
from broker.policy.verify import Domain
from tests.policy.random_policies import CATALOG, WORDS, policy_of
from tests.policy.sample import POLICIES, TEXTS
from tests.throwaway import DISK

NODE = Path(__file__).parent / "node"
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")


@pytest.fixture(scope="module")
def node():
    """Installs Casbin for Node, once for each lock file, and gives the folder."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("npm is not on this machine: the policy was NOT compared with Casbin for Node")
    lock = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(DISK) / f"broker-casbin-for-node-{os.getuid()}-{lock}"
    if not folder.exists():
        # Made beside it and renamed when whole: two runs at once, or one that was cut short, do no harm.
        made = Path(tempfile.mkdtemp(prefix="broker-npm-", dir=DISK))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, made)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=made,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and any(word in done.stderr for word in OFFLINE):
            pytest.skip("npm reaches no registry: the policy was NOT compared with Casbin for Node")
        assert done.returncode == 0, done.stderr
        try:
            made.rename(folder)
        except OSError:
            shutil.rmtree(made)  # another run was first
    assert folder.stat().st_uid == os.getuid()
    shutil.copy(NODE / "ask.mjs", folder)
    return folder


def ask(node, cases):
    """Gives Node's answers to cases."""
    done = subprocess.run(
        ["node", "ask.mjs"],
        cwd=node,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def case_of(policy, seed, count):
    """Makes a case: a policy's lines as Casbin gets them, and requests, half of them aimed at rules."""
    domain = Domain(policy.book, policy.catalog, policy.table)
    questions = list(islice(domain.sample(random.Random(seed)), count))
    role_sets = {question.roles for question in questions}
    lines = {
        "p": [list(rule.words) for rule in policy.book.rules],
        "g": [[role, included] for role, to in policy.book.nesting.items() for included in sorted(to)]
        + [[subject(roles), role] for roles in sorted(role_sets, key=sorted) for role in sorted(roles)],
        "g2": [[field.full_name, field.field_class] for field in policy.catalog.fields.values()],
    }
    requests = [
        [subject(question.roles), *question.conditions, question.field, level]
        for question in questions
        for level in ("clear", "masked")
    ]
    engine = Engine(TEXTS["model.conf"], policy.book, policy.catalog, role_sets)
    expected = [engine.enforce(tuple(request)) for request in requests]
    return {"model": TEXTS["model.conf"], "lines": lines, "requests": requests}, expected


def random_policies(rng, count):
    """Gives random small policies, with denials and nested roles, for a seed."""
    nestings = [{}, {"tier2": {"tier1"}}, {"tier2": {"tier1"}, "billing": {"tier2"}}]
    for number in range(count):
        lines = {
            (*words[:-1],): words[-1]
            for words in (tuple(rng.choice(each) for each in WORDS.values()) for _ in range(14))
        }
        yield policy_of([(*question, effect) for question, effect in lines.items()], nestings[number % 3])


def test_starting_policy(node):
    """A thousand requests, seeded, are answered alike under the policy that ships."""
    case, expected = case_of(load(PolicyFiles.from_directory(POLICIES), "1"), 20261125, 500)

    (answers,) = ask(node, [case])

    assert len(answers) == 1000
    assert answers == expected
    assert {True, False} == set(expected)


def test_random_policies_with_denials_and_nested_roles(node):
    """Forty random policies answer alike: denials that win, roles in roles, sets of roles."""
    policies = list(random_policies(random.Random(7), 40))
    cases = [case_of(policy, seed, 25) for seed, policy in enumerate(policies)]

    answers = ask(node, [case for case, _ in cases])

    for (case, expected), answer in zip(cases, answers, strict=True):
        told = zip(case["requests"], expected, answer, strict=True)
        assert [request for request, mine, theirs in told if mine != theirs] == [], case["lines"]
    assert sum(map(len, answers)) == 2000
    effects = {rule.effect for policy in policies for rule in policy.book.rules}
    assert effects == {"allow", "deny"}


def test_deepest_nesting_that_is_accepted(node):
    """A chain of nine roles behind a role set reaches its end in both."""
    chain = [f"role{i}" for i in range(9)]
    nesting = {role: {included} for role, included in pairwise(chain)}
    policy = policy_of([("role8", *["any"] * 6, "profile", "clear", "allow")], nesting)
    request = [subject(["role0"]), "resolve", "assignee", "general", "routed", "customer", "absent"]
    request += ["customer.name", "clear"]
    engine = Engine(TEXTS["model.conf"], policy.book, CATALOG, [frozenset({"role0"})])
    lines = {
        "p": [list(rule.words) for rule in policy.book.rules],
        "g": [[role, included] for role, (included,) in nesting.items()] + [[subject(["role0"]), "role0"]],
        "g2": [[field.full_name, field.field_class] for field in CATALOG.fields.values()],
    }
    case = {"model": TEXTS["model.conf"], "lines": lines, "requests": [request, [*request[:-1], "masked"]]}

    (answers,) = ask(node, [case])

    assert answers == [engine.enforce(tuple(request)), False] == [True, False]


def test_a_denial_that_were_lost_would_show(node):
    """The control arm: without its denials the policy answers otherwise."""
    case, expected = case_of(load(PolicyFiles.from_directory(POLICIES), "1"), 1, 50)
    case["lines"]["p"] = [words for words in case["lines"]["p"] if words[-1] == "allow"]

    (answers,) = ask(node, [case])

    assert answers != expected
