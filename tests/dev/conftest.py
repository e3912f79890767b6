"""What the tests of the sample company share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.dev.layout import Layout

POLICIES = Path(__file__).resolve().parent.parent.parent / "policies"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Gives a company's folder; its database, which may lie elsewhere, goes with it."""
    wanted = tmp_path / "company"
    yield wanted
    if wanted.exists():
        shutil.rmtree(Layout(wanted).postgres_folder().parent, ignore_errors=True)
