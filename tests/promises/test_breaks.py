"""A promise's test that cannot fail is worth nothing: each is seen to go red on code that breaks its promise.

The tree is copied, one patch of `breaks/` is applied to the copy, and that promise's test runs there in a
process of its own. The copy as it is, unpatched, is the control: there they are green.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
BREAKS = Path(__file__).parent / "breaks"
PROMISES = [f"P{number}" for number in range(1, 11)]
TEST_FILE = "tests/promises/test_promises.py"
CONTROLS = ["P1", "P7"]
"""What runs in the unbroken copy; in the tree itself all run anyway."""

LONGEST_FIRST = sorted(PROMISES, key=["P9", "P8", "P4", "P3"].__contains__, reverse=True)
SIDE_BY_SIDE = 3
TIMEOUT = 240
"""Seconds for one run; a red one takes some five, most of it the company's start."""

INSIDE = "TESTS_IN_A_COPY"
"""Set where the tests run in a copy, so that they do not copy themselves."""


@dataclass(frozen=True)
class Outcome:
    """How one test of the copy ended."""

    state: str  # passed, failed, error
    message: str


def copy_of_the_tree() -> Path:
    """Copies what git tracks, as it is now; without git (a source archive), everything but caches."""
    copy = Path(tempfile.mkdtemp(prefix="broker-break-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
        for name in names:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    else:
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=ignored)
    return copy


def run(copy: Path, promises: list[str]) -> dict[str, Outcome]:
    """Runs promises' tests in a copy; gives how each ended."""
    report = copy / "report.xml"
    names = " or ".join(f"test_{promise.lower()}_" for promise in promises)
    ours = ("BROKER_", "PYTEST_", "COV_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        # The copy comes before the installed project, in the test and in every process that it starts.
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        INSIDE: "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", TEST_FILE, "-k", names, "-q", "-p", "no:cacheprovider",
         f"--junit-xml={report}"],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert report.exists(), f"no test was run:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        found = [child for child in case if child.tag in {"failure", "error", "skipped"}]
        state = {"failure": "failed"}.get(found[0].tag, found[0].tag) if found else "passed"
        outcomes[case.get("name", "")] = Outcome(state, found[0].get("message", "") if found else "")
    return outcomes


def run_broken(promise: str) -> dict[str, Outcome] | str:
    """Runs a promise's test in a copy with its patch; gives git's words where that does not apply."""
    copy = copy_of_the_tree()
    try:
        applied = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", str(BREAKS / f"{promise}.patch")],
            cwd=copy, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return run(copy, [promise]) if applied.returncode == 0 else applied.stderr
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def run_unbroken() -> dict[str, Outcome] | str:
    """Runs tests in a copy as it is; gives where the copy found the project, were it elsewhere."""
    copy = copy_of_the_tree()
    try:
        found = subprocess.run(
            [sys.executable, "-c", "import broker; print(broker.__file__)"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        return run(copy, CONTROLS) if Path(found).is_relative_to(copy) else found
    finally:
        shutil.rmtree(copy, ignore_errors=True)


Runs = dict[str, "Future[dict[str, Outcome] | str]"]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """Starts all runs, a few side by side: most of each is waiting for processes to come up."""
    with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
        control = pool.submit(run_unbroken)
        started = {promise: pool.submit(run_broken, promise) for promise in LONGEST_FIRST}
        yield {"control": control, **started}
        for each in started.values():
            each.cancel()


pytestmark = pytest.mark.skipif(INSIDE in os.environ, reason="runs in a copy already")


def test_every_promise_has_a_test_and_a_break():
    """Each promise has one patch, and one test by its name and marker; nothing lies about unused."""
    assert sorted(path.stem for path in BREAKS.glob("*.patch")) == sorted(PROMISES)
    source = (ROOT / TEST_FILE).read_text("utf-8")
    for promise in PROMISES:
        assert source.count(f'@pytest.mark.promise("{promise}")') == 1
        assert source.count(f"def test_{promise.lower()}_") == 1


def test_unbroken_copy_is_green(runs):
    """Control: in a copy without a patch tests pass, and it is the copy that they test."""
    outcomes = runs["control"].result()
    assert isinstance(outcomes, dict), f"the copy's project is {outcomes}"
    assert len(outcomes) == len(CONTROLS)
    assert {outcome.state for outcome in outcomes.values()} == {"passed"}, outcomes


@pytest.mark.parametrize("promise", PROMISES)
def test_broken_promise_is_red(runs, promise):
    """With the patch the promise's own test fails by an assertion: not in the set-up, not by an accident."""
    outcomes = runs[promise].result()
    assert isinstance(outcomes, dict), f"breaks/{promise}.patch does not apply any more:\n{outcomes}"
    [(name, outcome)] = outcomes.items()
    assert name.startswith(f"test_{promise.lower()}_")
    assert outcome.state == "failed", f"{promise}: {outcome}"
    first = outcome.message.splitlines()[0] if outcome.message else ""
    assert first.startswith(("AssertionError", "assert ", "Failed: DID NOT RAISE")), f"{promise}: {outcome}"
