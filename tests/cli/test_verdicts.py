"""Exit codes of the verbs that verify: 1 is a verdict, 2 says that there was none."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from broker.cli.audit.inputs import judging
from broker.cli.output import CommandFailedError
from broker.errors import StartupError
from broker.tlog import LogInvalidError, NotPublishedError
from tests.cli.test_audit import OTHER_KEY
from tests.tlog.witness import Witness

VERBS = {
    "pack": ("verify-pack", "{file}"),
    "proof": ("verify-proof", "{file}"),
    "consistency": ("verify-proof", "{file}"),
    "kept, of a proof": ("verify-proof", "{folder}/consistency", "--checkpoint", "{file}"),
    "receipt": ("verify", "--receipt", "{file}"),
    "kept": ("verify", "--checkpoint", "{file}"),
    "jwks": ("verify", "--receipt", "{folder}/receipt", "--jwks", "{file}"),
}
"""What each file is given to."""

BROKEN = {
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\x00" * 99),
    "another kind of file": lambda path: path.write_text('{"version": 1, "leaf": [], "keys": 7}'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 3]),
    "endless": lambda path: path.write_bytes(b" " * 5_000_000),
}
"""Files that are nothing of their kind."""


@dataclass(frozen=True)
class Made:
    """A folder with one of each, and the key that verifies them."""

    folder: Path
    key: Path

    def arguments(self, name: str) -> list[str]:
        """Gives the command line that verifies a file."""
        words = {"file": str(self.folder / name), "folder": str(self.folder)}
        return ["audit", *(word.format(**words) for word in VERBS[name]), "--key", str(self.key)]


@pytest.fixture(scope="module")
def originals(company, tmp_path_factory):
    """Makes one of each in a running company."""
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture
def made(broker, company, originals, tmp_path, monkeypatch):
    """Gives copies of them."""
    monkeypatch.setenv("BROKER_CONFIG", str(company.layout.settings_file))
    monkeypatch.delenv("BROKER_LOG_KEY", raising=False)
    if not list(originals.iterdir()):
        _make(broker, company, originals)
    folder = tmp_path / "made"
    shutil.copytree(originals, folder)
    return Made(folder, folder / "log.pub")


def _make(broker, company, folder):
    person = ("--as", "audrey", "--dir", company.folder)
    assert broker("audit", "key", "--out", folder / "log.pub").code == 0
    read = broker(
        "access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", "--json",
        "--dir", company.folder,
    )  # fmt: skip
    (folder / "receipt").write_text(read.out)
    for _ in range(100):
        proof = broker("audit", "prove", read.data["decision_id"], *person)
        if proof.code == 0:
            break
    (folder / "proof").write_text(proof.out)
    for name in ("kept", "kept, of a proof"):
        (folder / name).write_bytes((company.layout.log / "checkpoint").read_bytes())
    size = int((folder / "kept").read_text().split("\n")[1])
    (folder / "consistency").write_text(broker("audit", "prove-consistency", size, *person).out)
    assert broker("audit", "exposure", "--agent", "alice", "--pack", folder / "pack", *person).code == 0
    with urlopen(f"http://127.0.0.1:{company.layout.ports()['http']}/jwks.json") as answer:
        (folder / "jwks").write_bytes(answer.read())


@pytest.mark.parametrize("name", VERBS)
def test_what_holds(broker, made, name):
    """The control arm of all that follows."""
    said = broker(*made.arguments(name))
    assert said.code == 0, said.err


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", VERBS)
def test_broken_input(broker, made, name, how):
    """Is 2, with the file's name, whatever verb it is given to."""
    BROKEN[how](made.folder / name)
    said = broker(*made.arguments(name))
    assert said.code == 2, said.err
    assert str(made.folder / name) in said.err
    assert said.out == ""


def _changed_pack(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"customer.name", b"customer.iban"))


def _damaged_pack(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def _changed_leaf(path):
    document = json.loads(path.read_text())
    holder = document.get("receipt", document)
    leaf = base64.b64decode(holder["leaf"]).replace(b"|alice", b"|bella")
    holder["leaf"] = base64.b64encode(leaf).decode()
    path.write_text(json.dumps(document))


def _another_root(path):
    document = json.loads(path.read_text())
    document["old_root"] = base64.b64encode(bytes(32)).decode()
    path.write_text(json.dumps(document))


def _another_size(path):
    first, size, rest = path.read_text().split("\n", 2)
    path.write_text("\n".join((first, str(int(size) - 1), rest)))


def _no_keys(path):
    path.write_text('{"keys": []}')


WRONG = {
    "a changed pack": ("pack", _changed_pack),
    "a damaged pack": ("pack", _damaged_pack),
    "a changed event in a proof": ("proof", _changed_leaf),
    "another beginning": ("consistency", _another_root),
    "a changed event in a receipt": ("receipt", _changed_leaf),
    "a changed checkpoint": ("kept", _another_size),
    "a changed checkpoint beside a proof": ("kept, of a proof", _another_size),
    "keys of another broker": ("jwks", _no_keys),
}
"""Files of their kind that do not hold."""


@pytest.mark.parametrize("what", WRONG)
def test_found_wrong(broker, made, what):
    """Is 1."""
    name, change = WRONG[what]
    change(made.folder / name)
    said = broker(*made.arguments(name))
    assert said.code == 1, said.err
    assert said.out == ""


@pytest.mark.parametrize("name", ["pack", "proof", "consistency", "kept"])
def test_the_key(broker, made, name):
    """Another log's key is a verdict; one that is none, or none at all, is not."""
    made.key.write_text(OTHER_KEY)
    assert broker(*made.arguments(name)).code == 1
    made.key.write_text("no key")
    assert broker(*made.arguments(name)).code == 2
    made.key.unlink()
    assert broker(*made.arguments(name)).code == 2


def test_a_witness(broker, made):
    """Who did not cosign is a verdict; a key that is none, or not a witness's, is not."""
    witness = made.folder / "witness.pub"
    arguments = (*made.arguments("proof"), "--witness", witness)
    assert broker(*arguments).code == 2
    for text in ("no key", OTHER_KEY):
        witness.write_text(text)
        assert broker(*arguments).code == 2
    witness.write_text(str(Witness("witness.test", b"3" * 32).key))
    said = broker(*arguments)
    assert (said.code, "not cosigned by witness.test" in said.err) == (1, True)


@pytest.mark.parametrize(
    "why", [NotPublishedError("Not yet."), ValueError("a customer's name"), OSError(28, "full")], ids=repr
)
def test_what_keeps_from_a_verdict(why):
    """Is never one, and what it quotes is told only where it is ours."""
    with pytest.raises(StartupError) as told, judging():
        raise why
    assert "customer" not in str(told.value)
    for verdict in (CommandFailedError("no"), LogInvalidError("No.")):
        with pytest.raises(type(verdict)), judging():
            raise verdict


@pytest.mark.parametrize("name", ["kept", "receipt"])
def test_a_database_that_does_not_answer(broker, made, monkeypatch, name):
    """Says nothing of the log; neither does one that refuses."""
    monkeypatch.setenv("BROKER_AUDITOR_DSN", "postgresql://broker_auditor:x@127.0.0.1:1/postgres")
    said = broker(*made.arguments(name))
    assert (said.code, "nothing was judged" in said.err) == (2, True)


@pytest.mark.parametrize("name", ["kept", "receipt"])
def test_a_folder_that_is_none(broker, made, monkeypatch, name):
    """Is a setting to be mended, and not a log that lacks what was published."""
    monkeypatch.setenv("BROKER_TLOG_DIR", str(made.folder / "proof"))
    said = broker(*made.arguments(name))
    assert (said.code, "BROKER_TLOG_DIR" in said.err) == (2, True)
