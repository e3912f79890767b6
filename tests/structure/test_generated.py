"""The generated code in broker/v1 is what proto/ says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_not_stale():
    """Generating anew gives the committed files, to the byte."""
    done = subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_a_stale_file_is_named(generator, tmp_path, monkeypatch):
    """A committed file that was edited, or has no .proto any more, is named."""
    for name, text in generator.read(generator.COMMITTED).items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "common_pb2.pyi").write_text("# edited\n", "utf-8")
    (tmp_path / "gone_pb2.py").write_text("", "utf-8")
    monkeypatch.setattr(generator, "COMMITTED", tmp_path)

    assert generator.stale() == ["common_pb2.pyi", "gone_pb2.py"]


def test_lints():
    """The contract passes buf's STANDARD and COMMENTS rules."""
    done = subprocess.run(
        [Path(sys.executable).with_name("buf"), "lint", "proto"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
