"""Where `broker dev` keeps what, and the names of the sample company.

Invariants:
- everything lies below one folder of mode 0700; as root the database alone lies elsewhere, and a file
  here says where;
- reading it starts nothing: `broker dev token` and `broker access read` only need the folder.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.dev.ca import DevelopmentAuthority
from broker.dev.oidc import DevelopmentIssuer
from broker.dev.postgres import EmbeddedPostgres
from broker.dev.sample import ADMINISTRATORS, SampleAgent
from broker.errors import StartupError
from broker.keys import LogKeyFolder, write_durably

TRUST_DOMAIN = "broker.dev"
BROKER_ISSUER = "https://broker.broker.dev"
LOG_ORIGIN = f"broker.{TRUST_DOMAIN}/ledger"
AGENT_ISSUER = "https://idp.broker.dev"
AUDIENCE = "https://broker.broker.dev"
ADMIN_ISSUER = "https://admins.broker.dev"
ADMIN_AUDIENCE = "https://broker.broker.dev/admin"
ADMIN_CLIENT = "broker-console"
FEED_ID = "https://helpdesk.broker.dev"
FEED_IDENTITY = f"spiffe://{TRUST_DOMAIN}/feed/helpdesk"
ADMIN_IDENTITY = f"spiffe://{TRUST_DOMAIN}/admin/containment"
CONSOLE_IDENTITY = f"spiffe://{TRUST_DOMAIN}/admin/console"
TOOLS = {"desk": "desk-app", "phone": "phone-app"}
"""Support tools and the OAuth client of each."""

HOST = "127.0.0.1"
USUAL_PORTS = {"access": 7443, "admin": 7444, "http": 9464}

DRAWN_PORTS = range(12_000, 30_000)
"""Ports to draw from: above the well-known, below Linux's and IANA's ephemeral ones."""

LONGEST_SOCKET_FOLDER = 80
"""A UNIX socket's path has 107 bytes at most, its name under this folder needs some of them."""

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def tool_identity(name: str) -> str:
    """Gives a tool's SPIFFE id."""
    return f"spiffe://{TRUST_DOMAIN}/tool/{name}"


@dataclass(frozen=True, slots=True)
class Tls:
    """One client's certificate, as files."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class Layout:
    """The folder of one sample company."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder; nothing is made yet."""
        self.folder = folder.resolve()
        self.settings_file = self.folder / "broker.toml"
        self.policies = self.folder / "policies"
        self.keys = self.folder / "keys"
        self.log = self.folder / "log"
        self.log_keys = self.folder / "log-keys"
        self.helpdesk = self.folder / "helpdesk"
        self.helpdesk_jwks = self.helpdesk / "jwks.json"
        self.idp = self.folder / "idp"
        self.admin_idp = self.folder / "admin-idp"
        self.tls = self.folder / "tls"
        self.built = self.folder / "built"
        self.serve_log = self.folder / "serve.log"
        self._ports = self.folder / "ports.json"
        self._agents = self.folder / "agents.json"
        self._passwords = self.folder / "passwords.json"
        self._postgres = self.folder / "postgres-folder"

    @classmethod
    def existing(cls, folder: Path) -> Layout:
        """Opens the folder of a sample company that was started before.

        Raises:
            StartupError: there is none.
        """
        found = cls(folder)
        if not found.built.exists():
            raise StartupError(
                f"{str(folder)!r} holds no sample company; start one with: broker dev --dir {folder}"
            )
        return found

    def make(self) -> None:
        """Makes the folder and every certificate and key that is missing."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.helpdesk.mkdir(mode=0o700, exist_ok=True)
        DevelopmentIssuer.open(AGENT_ISSUER, self.idp)
        DevelopmentIssuer.open(ADMIN_ISSUER, self.admin_idp)
        if not self.log_keys.exists():
            LogKeyFolder(self.log_keys, LOG_ORIGIN).create()
        authority = self.authority()
        wanted = {
            **{f"tool-{name}": tool_identity(name) for name in TOOLS},
            "admin": ADMIN_IDENTITY,
            "console": CONSOLE_IDENTITY,
            "feed": FEED_IDENTITY,
        }
        for name, identity in wanted.items():
            if not (self.tls / f"{name}.pem").exists():
                authority.client(identity).write(self.tls, name)
        if not (self.tls / "server.pem").exists():
            authority.server("localhost", HOST).write(self.tls, "server")

    def authority(self) -> DevelopmentAuthority:
        """Opens the development authority."""
        return DevelopmentAuthority.open(self.tls)

    def client_tls(self, name: str) -> Tls:
        """Gives the files of `tool-desk`, `tool-phone`, `admin`, `console` or `feed`.

        Raises:
            StartupError: there is no such tool.
        """
        tool = name.removeprefix("tool-")
        if tool != name and not (self.tls / f"{name}.pem").exists():
            raise StartupError(_no_tool(tool))
        return Tls(self.tls / "ca.pem", self.tls / f"{name}.pem", self.tls / f"{name}-key.pem")

    # --- agents ------------------------------------------------------------------------------------
    def save_agents(self, agents: Mapping[str, SampleAgent]) -> None:
        """Remembers who works here."""
        groups = {subject: agent.groups for subject, agent in agents.items()}
        write_durably(self._agents, json.dumps(groups, indent=2).encode())

    def agents(self) -> dict[str, SampleAgent]:
        """Gives who works here, by subject."""
        groups = json.loads(self._agents.read_text("utf-8"))
        return {subject: SampleAgent(subject, tuple(names)) for subject, names in groups.items()}

    def token(self, subject: str, tool: str = "desk", *, life: float | None = None) -> str:
        """Makes an agent's access token for a tool.

        Raises:
            StartupError: nobody of that name works here, or there is no such tool.
        """
        agent = self.agents().get(subject)
        if agent is None:
            raise StartupError(f"no agent {subject!r} here; there are: {', '.join(sorted(self.agents()))}")
        if tool not in TOOLS:
            raise StartupError(_no_tool(tool))
        options = {} if life is None else {"life": life}
        issuer = DevelopmentIssuer.open(AGENT_ISSUER, self.idp)
        return issuer.mint(subject, audience=AUDIENCE, client_id=TOOLS[tool], groups=agent.groups, **options)

    def admin_token(self, name: str, *, life: float | None = None) -> str:
        """Makes an administrator's access token.

        Raises:
            StartupError: nobody of that name administers here.
        """
        groups = {each.subject: each.groups for each in ADMINISTRATORS}
        if name not in groups:
            raise StartupError(f"no administrator {name!r} here; there are: {', '.join(groups)}")
        options = {} if life is None else {"life": life}
        issuer = DevelopmentIssuer.open(ADMIN_ISSUER, self.admin_idp)
        return issuer.mint(
            name, audience=ADMIN_AUDIENCE, client_id=ADMIN_CLIENT, groups=groups[name], **options
        )

    # --- ports, passwords, settings ----------------------------------------------------------------
    def ports(self) -> dict[str, int]:
        """Gives the ports of the last start."""
        found: dict[str, int] = json.loads(self._ports.read_text("utf-8"))
        return found

    def choose_ports(self, *, usual: bool) -> dict[str, int]:
        """Chooses ports that are free now: the usual ones where wanted and possible."""
        chosen: dict[str, int] = {}
        for name, wanted in USUAL_PORTS.items():
            port = free_port(wanted if usual else 0)
            while port in chosen.values():
                port = free_port()
            chosen[name] = port
        write_durably(self._ports, json.dumps(chosen).encode())
        return chosen

    def passwords(self, roles: tuple[str, ...]) -> dict[str, str]:
        """Gives the database roles' passwords, made on the first call."""
        found: dict[str, str] = json.loads(self._passwords.read_text()) if self._passwords.exists() else {}
        if missing := [role for role in roles if role not in found]:
            found |= {role: secrets.token_urlsafe(24) for role in missing}
            write_durably(self._passwords, json.dumps(found).encode())
        return found

    def postgres_folder(self) -> Path:
        """Gives the folder of the embedded server: here, or where its system user can reach it."""
        if self._postgres.exists():
            remembered = Path(self._postgres.read_text("utf-8"))
            if not (remembered / "data" / "PG_VERSION").exists():
                self.built.unlink(missing_ok=True)  # the temp folder was emptied: begin anew
            if remembered.parent.exists():
                return remembered
        wanted = EmbeddedPostgres.root_folder(self.folder / "postgres")
        if len(str(wanted)) > LONGEST_SOCKET_FOLDER:
            wanted = Path(tempfile.mkdtemp(prefix="broker-postgres-"))
        found = wanted / "server"
        write_durably(self._postgres, str(found).encode())
        return found

    def write_settings(self, dsns: Mapping[str, str], *, workers: int, extra: Mapping[str, object]) -> None:
        """Writes the settings of `broker serve`; they hold passwords, so 0600."""
        ports = self.ports()
        listener = {
            "host": HOST,
            "cert_file": self.tls / "server.pem",
            "key_file": self.tls / "server-key.pem",
            "client_ca_file": self.tls / "ca.pem",
        }
        settings: dict[str, object] = {
            **dsns,
            "http_host": HOST,
            "http_port": ports["http"],
            "workers": workers,
            "reflection": True,
            "lock_dir": self.folder / "locks",
            "issuer": BROKER_ISSUER,
            "trust_domain": TRUST_DOMAIN,
            "keys_dir": self.keys,
            "tlog_dir": self.log,
            "tlog_keys_dir": self.log_keys,
            "tlog_origin": LOG_ORIGIN,
            "policies_dir": self.policies,
            "access": {**listener, "port": ports["access"]},
            "admin": {**listener, "port": ports["admin"]},
            "issuers": [
                {
                    "issuer": AGENT_ISSUER,
                    "audience": AUDIENCE,
                    "algorithms": ["ES256"],
                    "jwks_file": self.idp / "jwks.json",
                }
            ],
            "admin_issuers": [
                {
                    "issuer": ADMIN_ISSUER,
                    "audience": ADMIN_AUDIENCE,
                    "algorithms": ["ES256"],
                    "jwks_file": self.admin_idp / "jwks.json",
                    "only_persons": True,
                }
            ],
            "tools": [
                {"identity": tool_identity(name), "client_ids": [client]} for name, client in TOOLS.items()
            ],
            "feeds": [{"feed_id": FEED_ID, "jwks_file": self.helpdesk_jwks}],
            **extra,
        }
        text = "# Written by `broker dev` at each start; edit a copy.\n" + _toml(settings)
        write_durably(self.settings_file, text.encode())


def _toml(settings: Mapping[str, object]) -> str:
    """Writes settings as TOML: inline tables and JSON's strings, which TOML shares."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in settings.items())


def _value(value: object) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_value(each) for each in value) + "]"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return json.dumps(str(value))


def _no_tool(name: str) -> str:
    return f"no tool {name!r} here; there are: {', '.join(TOOLS)}"


def free_port(wanted: int = 0) -> int:
    """Gives a port that is free now: the wanted one where that is possible, else one drawn.

    Drawn below the ports that the kernel lends to outgoing connections: one of those can be taken by
    anybody's client between this look and the moment that a server binds it.
    """
    drawn: list[int] = [secrets.choice(DRAWN_PORTS) for _ in range(100)]
    for port in [wanted, *drawn] if wanted else drawn:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise StartupError(f"no free port on {HOST}")


def process_environment(settings_file: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Gives the environment of a broker process: ours, without other brokers' settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {**kept, "BROKER_CONFIG": str(settings_file), **(extra or {})}
