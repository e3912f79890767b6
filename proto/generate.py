"""Generates `broker/v1` from `proto/broker/v1`; the result is committed and never edited.

    .venv/bin/python proto/generate.py            # writes broker/v1
    .venv/bin/python proto/generate.py --check    # names what is stale, exit 1

The check is also a test, tests/structure/test_generated.py.
"""

from __future__ import annotations

import importlib.resources
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
PACKAGE = Path("broker", "v1")
COMMITTED = PROTO.parent / PACKAGE
INIT = '"""The broker\'s protocol, generated from proto/broker/v1 by proto/generate.py; never edit."""\n'


def generate(target: Path) -> None:
    """Writes messages, stubs and servicers with their type stubs below `target`/broker/v1.

    Raises:
        RuntimeError: protoc refused a file; what it said is on stderr.
    """
    (target / PACKAGE).mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
        *sorted(str(p) for p in (PROTO / PACKAGE).glob("*.proto")),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")
    # A file without services yields service modules with nothing in them.
    for module in (target / PACKAGE).glob("*_pb2_grpc.py"):
        if "class " not in module.read_text("utf-8"):
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)
    (target / PACKAGE / "__init__.py").write_text(INIT, "utf-8")


def read(folder: Path) -> dict[str, str]:
    """Gives the text of each module and stub by file name."""
    return {p.name: p.read_text("utf-8") for p in folder.iterdir() if p.suffix in {".py", ".pyi"}}


def stale() -> list[str]:
    """Names the committed files that are missing, too many or differ from what proto/ says."""
    with tempfile.TemporaryDirectory(prefix="broker-proto-") as folder:
        generate(Path(folder))
        fresh, committed = read(Path(folder) / PACKAGE), read(COMMITTED)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def main() -> int:
    """Generates, or checks when asked to."""
    if "--check" in sys.argv[1:]:
        for name in (found := stale()):
            sys.stderr.write(f"stale: {PACKAGE / name}; run python proto/generate.py\n")
        return 1 if found else 0
    with tempfile.TemporaryDirectory(prefix="broker-proto-") as folder:
        generate(Path(folder))
        COMMITTED.mkdir(parents=True, exist_ok=True)
        for name in read(COMMITTED).keys() - read(Path(folder) / PACKAGE).keys():
            (COMMITTED / name).unlink()
        shutil.copytree(Path(folder) / PACKAGE, COMMITTED, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
