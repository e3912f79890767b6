"""Every setting, read once: `BROKER_*` variables over the TOML file named by `BROKER_CONFIG`.

Invariants:
- frozen after reading; units are in the names or in the description;
- a missing security setting refuses to start; an unset optional one is the safe choice;
- DSNs and file names only: no secret but a DSN's password passes through here, and none is printed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from broker.errors import StartupError

Seconds = Annotated[float, Field(gt=0)]
Word = Annotated[str, Field(min_length=1, max_length=256)]
Algorithm = Literal["ES256", "ES384", "RS256", "RS384", "PS256", "EdDSA"]
FROZEN = ConfigDict(frozen=True, extra="forbid")


class IssuerSettings(BaseModel):
    """One OIDC issuer of agents' access tokens; what it sends is stated here and strictly checked."""

    model_config = FROZEN

    issuer: Word = Field(pattern=r"^[^|]+$", description="the exact `iss`; it cannot hold a bar")
    audience: Word = Field(description="the one `aud` entry that means this broker; more entries are refused "
                           "unless `audience_list` is true")  # fmt: skip
    audience_list: bool = Field(False, description="accept a list of audiences that holds ours")
    algorithms: tuple[Algorithm, ...] = Field(min_length=1, description="accepted `alg`, asymmetric only")
    token_types: tuple[Word, ...] = Field(("at+jwt",), min_length=1, description="accepted `typ` (RFC 9068)")
    extra_headers: tuple[Word, ...] = Field((), description="JOSE headers accepted and ignored, as `x5t`")
    groups_claim: Word = Field("groups", description="claim with the agent's groups, a list of strings")
    client_id_claim: Word = Field(
        "client_id", description="claim with the OAuth client, `azp` at some issuers"
    )
    max_age: Seconds = Field(3600, description="longest accepted lifetime `exp - iat` in seconds")
    jwks_url: str = Field("", description="https URL of the JWK Set")
    jwks_file: Path | None = Field(None, description="file with the JWK Set, instead of the URL")
    jwks_ca_file: Path | None = Field(None, description="authority of the JWKS server; default: the system's")

    @model_validator(mode="after")
    def _one_key_source(self) -> IssuerSettings:
        if bool(self.jwks_url) == bool(self.jwks_file):
            raise ValueError("give exactly one of jwks_url and jwks_file")
        if self.jwks_url and not self.jwks_url.startswith("https://"):
            raise ValueError("jwks_url must start with https://")
        return self


class AdminIssuerSettings(IssuerSettings):
    """One OIDC issuer of administrators' tokens: as `issuers`, and what tells persons from machines.

    There is no default for that. Where a client logs in as itself, many issuers (Keycloak, Auth0, Entra) send
    another `sub` than the client's id, so the token of a service account would be the second person.
    """

    person_claim: Word | None = Field(
        None,
        description="claim that says whether a token is a person's, as `idtyp`; with `person_values`, or "
        "`only_persons` in their place",
    )
    person_values: tuple[Word, ...] = Field(
        (), description="values of `person_claim` that mean a person, as `user`"
    )
    only_persons: bool = Field(
        False, description="this issuer gives no machine a token for this audience: no claim is needed"
    )

    @model_validator(mode="after")
    def _persons_are_told(self) -> AdminIssuerSettings:
        claim = bool(self.person_claim), bool(self.person_values)
        if claim != ((False, False) if self.only_persons else (True, True)):
            raise ValueError(
                "say what tells a person's token from a machine's: give person_claim and person_values, a "
                "claim and its values that persons' tokens alone have (as idtyp and user), or only_persons = "
                "true where this issuer gives no machine (client credentials, service account) a token for "
                "this audience"
            )
        return self


class ToolSettings(BaseModel):
    """One support tool, by the identity in its certificate."""

    model_config = FROZEN

    identity: Word = Field(description="SPIFFE id, or DNS name where `dns_identities` is true")
    client_ids: tuple[Word, ...] = Field(min_length=1, description="OAuth clients whose tokens it may carry")
    audiences: tuple[Word, ...] = Field((), description="audiences it may ask grants for, beside the broker")


class FeedSettings(BaseModel):
    """One helpdesk that sends signed ticket events."""

    model_config = FROZEN

    feed_id: Word = Field(description="the exact `iss` of its events")
    jwks_file: Path = Field(description="file with its public keys (JWK Set)")
    algorithms: tuple[Algorithm, ...] = Field(("ES256", "EdDSA"), min_length=1)
    max_silence: Seconds = Field(60, description="seconds without a heartbeat until grants and reads stop")
    call_presence: Seconds = Field(1800, description="longest presence that one call gives, seconds")
    reply_presence: Seconds = Field(900, description="presence that a customer's reply gives, seconds")


class ListenerSettings(BaseModel):
    """One gRPC port; TLS with client certificates, always."""

    model_config = FROZEN

    host: Word = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    cert_file: Path | None = Field(None, description="server certificate chain, PEM")
    key_file: Path | None = Field(None, description="its private key, PEM; swapped while running is fine")
    client_ca_file: Path | None = Field(None, description="authority of the client certificates, PEM")

    @model_validator(mode="after")
    def _tls_complete(self) -> ListenerSettings:
        if not (self.cert_file and self.key_file and self.client_ca_file):
            raise ValueError("cert_file, key_file and client_ca_file are required")
        return self


class Settings(BaseSettings):
    """The settings of `broker serve` and of the commands that talk to a database."""

    model_config = SettingsConfigDict(
        env_prefix="BROKER_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    # Databases. Each process gets only the DSNs that it needs (deploy/README.md).
    dsn: str = Field("", description="broker database as broker_access")
    reader_dsn: str = Field("", description="records database as broker_reader")
    admin_dsn: str = Field("", description="broker database as broker_admin (admin process, `policy replay`)")
    feed_dsn: str = Field("", description="broker database as broker_feed (admin process, `feed import`)")
    auditor_dsn: str = Field(
        "", description="broker database as broker_auditor (admin process, `trace show`, `audit …`)"
    )
    auditor_records_dsn: str = Field(
        "", description="records database as broker_auditor (admin process, `audit …`); unset: the broker's"
    )
    owner_dsn: str = Field(
        "", description="broker database as broker_owner (`migrate`, `keys rotate --guard`)"
    )
    records_owner_dsn: str = Field("", description="records database as its administrator (`records …`)")

    # Listeners.
    access: ListenerSettings | None = Field(None, description="the tools' port")
    admin: ListenerSettings | None = Field(None, description="the administrators' and the feed's port")
    http_host: str = Field("127.0.0.1", description="JWKS, metrics and readiness over HTTP")
    http_port: int = Field(9464, ge=1, le=65535)
    workers: int = Field(1, ge=1, le=64, description="access processes on the one port")
    reflection: bool = Field(False, description="gRPC reflection on the access port; off in production")
    lock_dir: Path = Field(Path("/run/broker"), description="folder of the lock files, one per port")

    # Identity.
    issuer: str = Field("", description="`iss` of the grants, a URL of this broker")
    trust_domain: str = Field("", description="SPIFFE trust domain of tools and administrators")
    dns_identities: bool = Field(False, description="accept exactly one DNS SAN where there is no SPIFFE id")
    issuers: tuple[IssuerSettings, ...] = ()
    admin_issuers: tuple[AdminIssuerSettings, ...] = ()
    tools: tuple[ToolSettings, ...] = ()
    feeds: tuple[FeedSettings, ...] = ()
    revoked_serials_file: Path | None = Field(
        None, description="refused client certificates: hex serials, one a line, also as openssl prints them"
    )
    keys_dir: Path | None = Field(None, description="folder of the signing keys (PEM files, 0600)")

    # The transparency log, written by the admin process.
    tlog_dir: Path | None = Field(None, description="folder where checkpoints and tiles are published; "
                                  "shared by all brokers of one ledger")  # fmt: skip
    tlog_keys_dir: Path | None = Field(None, description="folder of the log's keys (PEM files, 0600)")
    tlog_origin: str = Field(
        "", pattern=r"^[^\s+]*$", description="name of the log for ever; default: the issuer's, and `/ledger`"
    )
    tlog_interval: Seconds = Field(0.25, le=60, description="time between looks for events to publish")

    # Limits.
    grant_seconds: Seconds = Field(600, le=3600, description="longest life of a grant, over limits.yaml")
    call_timeout: Seconds = Field(5, description="longest time one call may take, whatever its deadline says")
    peer_concurrency: int = Field(256, ge=1, description="calls under way per certificate and worker")
    peer_rate: int = Field(5000, ge=1, description="calls a second per certificate and worker")
    denial_events_per_minute: int = Field(
        60, ge=1, description="denials per peer and reason recorded one by one"
    )
    drain_seconds: Seconds = Field(10, description="time for calls under way after SIGTERM")

    # Policy.
    policy_confirm_seconds: Seconds = Field(
        10, description="longest time a worker decides without hearing that its policy is the one in force"
    )
    policies_dir: Path = Field(Path("policies"), description="activated on an empty database only")

    @property
    def log_origin(self) -> str:
        """Names the transparency log."""
        return self.tlog_origin or self.issuer.partition("://")[2].rstrip("/") + "/ledger"

    @field_validator("issuer")
    @classmethod
    def _no_bar(cls, value: str) -> str:
        if "|" in value:
            raise ValueError("'|' separates issuer and subject; an issuer cannot hold it")
        return value

    @model_validator(mode="after")
    def _audiences_apart(self) -> Settings:
        """An agent's token, which every support tool sees, must never be an administrator's."""
        agents = {(block.issuer, block.audience) for block in self.issuers}
        if any((block.issuer, block.audience) in agents for block in self.admin_issuers):
            raise ValueError("admin_issuers: an issuer of agents needs another audience for administrators")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env files: settings have one place
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: arguments, then variables, then the file."""
        config = os.environ.get("BROKER_CONFIG", "")
        if not config:
            return init_settings, env_settings
        if not Path(config).is_file():
            raise StartupError(f"BROKER_CONFIG names {config!r}, which is not a file")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(config))


SERVE_NEEDS = ("dsn", "reader_dsn", "admin_dsn", "feed_dsn", "auditor_dsn", "access", "admin", "issuer",
               "trust_domain", "issuers", "admin_issuers", "tools", "feeds", "keys_dir", "tlog_dir",
               "tlog_keys_dir")  # fmt: skip
"""What `broker serve` refuses to start without."""


class SettingsMissingError(StartupError):
    """Settings that a command needs are not there; the message names them."""


def read_settings(*needs: str) -> Settings:
    """Reads the settings and refuses to go on without those that are needed.

    Raises:
        StartupError: a setting is wrong or missing; names the variable, never its value.
    """
    try:
        settings = Settings()
    except ValidationError as exc:
        lines = [
            f"BROKER_{'__'.join(str(part) for part in error['loc']).upper()}: {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)
        ]
        raise StartupError("settings are wrong:\n  " + "\n  ".join(lines)) from None
    missing = [name for name in needs if not getattr(settings, name)]
    if missing:
        names = ", ".join(f"BROKER_{name.upper()}" for name in missing)
        raise SettingsMissingError(
            f"settings are missing: {names} (variables, or keys of the BROKER_CONFIG file)"
        )
    return settings
