"""The deployment files say what they must, checked without a Docker engine or a running systemd."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker.traces import exporter_from

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
OUR_SERVICES = ("migrate", "guard", "broker-1", "broker-2")

HARDENING = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectHome": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "User": "broker",
}
MOST_EXPOSED = 1.5
"""The worst `systemd-analyze security` score accepted; 1.2 when this was written, 10 is the worst."""


def run(*command, cwd=ROOT):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def unit():
    """The unit as systemd reads it, keys of a section that stand once."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "broker.service").read_text("utf-8"))
    return parser


class TestDockerfile:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")

    def test_lints(self):
        """hadolint finds nothing."""
        done = run(BIN / "hadolint", "deploy/Dockerfile")

        assert done.returncode == 0, done.stdout

    def test_runs_as_nobody_in_particular(self):
        """The last stage ends with a numeric user that is not root."""
        last = self.text.rsplit("\nFROM ", 1)[1]

        assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["10001:10001"]

    def test_installs_by_hash_alone(self):
        """Every installation from an index asks for hashes; the only other one is our own wheel."""
        commands = self.text.replace("\\\n", " ")
        installs = re.findall(r"pip (?:--python \S+ )?install[^&\n]*", commands)

        assert len(installs) == 3
        assert [i for i in installs if "--require-hashes" not in i and "/wheel/" not in i] == []

    def test_copies_exist(self):
        """What the Dockerfile copies is in the project and is let through to the builder."""
        copied = [
            w
            for line in re.findall(r"^COPY (?!--from)(.+)$", self.text, re.MULTILINE)
            for w in line.split()[:-1]
        ]
        let_through = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()

        assert copied
        assert [name for name in copied if f"!{name}" not in let_through] == []
        assert [name for name in copied if not (ROOT / name).exists()] == []

    def test_the_wheel_is_complete(self, tmp_path):
        """The wheel that the image installs holds queries, migrations and the protocol's stubs."""
        source = tmp_path / "source"
        source.mkdir()
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / "broker", source / "broker", ignore=shutil.ignore_patterns("__pycache__"))
        script = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
        done = run(sys.executable, "-W", "ignore", "-c", script, tmp_path, cwd=source)
        assert done.returncode == 0, done.stderr
        (wheel,) = tmp_path.glob("*.whl")
        packed = set(run(sys.executable, "-m", "zipfile", "-l", wheel).stdout.split())

        package = (p for p in (source / "broker").rglob("*") if p.suffix in {".py", ".pyi", ".sql"})
        assert {str(p.relative_to(source)) for p in package} - packed == set()


class TestCompose:
    def test_yaml_lints(self):
        """yamllint finds nothing in the YAML files."""
        done = run(BIN / "yamllint", "--strict", "-c", "deploy/yamllint.yaml", "deploy", "policies")

        assert done.returncode == 0, done.stdout

    def test_what_it_runs(self):
        """PostgreSQL, two brokers, a collector and Jaeger; roles, migrations and guard before the brokers."""
        assert {"postgres", "broker-1", "broker-2", "collector", "jaeger"} <= SERVICES.keys()
        for broker in ("broker-1", "broker-2"):
            assert SERVICES[broker]["depends_on"]["guard"]["condition"] == "service_completed_successfully"
        assert SERVICES["guard"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert any(v.startswith("./roles.sql:") for v in SERVICES["postgres"]["volumes"])

    def test_references_resolve(self):
        """Every dependency, named volume and mounted file exists."""
        for name, service in SERVICES.items():
            assert service.get("depends_on", {}).keys() <= SERVICES.keys(), name
            for source in (v.split(":")[0] for v in service.get("volumes", ())):
                assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]

    def test_nothing_is_privileged(self):
        """No service is privileged, shares a namespace or the engine's socket, or gains privileges."""
        for name, service in SERVICES.items():
            assert not service.get("privileged"), name
            assert {"pid", "ipc", "devices", "userns_mode"}.isdisjoint(service), name
            assert service.get("network_mode", "none") == "none", name
            assert "no-new-privileges:true" in service["security_opt"], name
            assert not [v for v in service.get("volumes", ()) if "docker.sock" in v], name

    @pytest.mark.parametrize("name", OUR_SERVICES)
    def test_our_services_are_confined(self, name):
        """The broker's containers run read-only, without capabilities, as the image's user."""
        service = SERVICES[name]

        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert "user" not in service

    def test_holds_no_secrets(self):
        """No value looks like a password, and what is called one names a file."""
        for service in SERVICES.values():
            for key, value in service.get("environment", {}).items():
                assert not re.search("PASSWORD|SECRET|TOKEN|KEY|DSN", key) or (
                    key.endswith("_FILE") and value.startswith("/run/")
                )
        assert not re.search(r"://[^/\s]+:[^/\s]+@", (DEPLOY / "compose.yaml").read_text("utf-8"))

    def test_publishes_on_loopback(self):
        """Nothing is reachable from another machine."""
        ports = [p for s in SERVICES.values() for p in s.get("ports", ())]

        assert ports
        assert [p for p in ports if not p.startswith("127.0.0.1:")] == []

    def test_the_drain_fits_into_the_grace(self):
        """The container is given longer than the drain takes."""
        from broker.settings import Settings  # noqa: PLC0415 - one test reads a setting's default

        drain = Settings.model_fields["drain_seconds"].default

        assert int(SERVICES["broker-1"]["stop_grace_period"].removesuffix("s")) > drain

    def test_collector_pipelines_resolve(self):
        """Each pipeline names parts that are declared; the brokers' spans arrive at one, in its protocol."""
        collector = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text("utf-8"))
        for pipeline in collector["service"]["pipelines"].values():
            for part, names in pipeline.items():
                assert set(names) <= collector[part].keys()
        environment = SERVICES["broker-1"]["environment"]
        exporter = exporter_from(environment)
        assert exporter is not None
        exporter.shutdown()
        protocol = "grpc" if ".grpc." in type(exporter).__module__ else "http"
        port = collector["receivers"]["otlp"]["protocols"][protocol]["endpoint"].rsplit(":", 1)[1]

        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"


class TestUnit:
    def test_is_hardened(self, unit):
        """What confines the process is there, word for word."""
        service = dict(unit["Service"])

        assert {k: service.get(k) for k in HARDENING} == HARDENING

    def test_starts_after_what_it_needs(self, unit):
        """Network, database and the machine's clock come first."""
        after = unit["Unit"]["After"].split()

        assert after == ["network-online.target", "postgresql.service", "time-sync.target"]
        assert unit["Unit"]["Wants"].split() == ["network-online.target", "time-sync.target"]

    def test_stops_by_draining(self, unit):
        """systemd waits longer than the drain takes, and tells only the parent."""
        from broker.settings import Settings  # noqa: PLC0415

        assert unit["Service"]["KillMode"] == "mixed"
        assert int(unit["Service"]["TimeoutStopSec"]) > Settings.model_fields["drain_seconds"].default

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
    def test_systemd_accepts_it(self, tmp_path):
        """systemd knows every key, and scores the exposure low."""
        text = (DEPLOY / "broker.service").read_text("utf-8")
        copy = tmp_path / "broker.service"
        copy.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", text, flags=re.MULTILINE), "utf-8")

        verified = run("systemd-analyze", "verify", copy)
        assert (verified.returncode, verified.stderr) == (0, "")
        security = run("systemd-analyze", "security", "--offline=true", copy)
        score = re.search(r"exposure level for \S+: ([\d.]+)", security.stdout)
        assert score, security.stdout + security.stderr
        assert float(score.group(1)) <= MOST_EXPOSED


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda p: p.name)
def test_scripts_parse(script):
    """Each script is plain sh, stops at the first error and says what it is for."""
    text = script.read_text("utf-8")

    assert run("sh", "-n", script).returncode == 0
    assert text.startswith("#!/bin/sh\n# ")
    assert "\nset -eu\n" in text


def test_ci_script_parses():
    """.ci/run is well-formed and may be run."""
    path = ROOT / ".ci" / "run"

    assert run("bash", "-n", path).returncode == 0
    assert path.stat().st_mode & 0o111


def test_ci_ends_with_the_tests():
    """The last thing that .ci/run starts is deploy/test.sh."""
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
        if re.match(r"(step|sh) ", line)
    ]

    assert commands[-1].startswith("sh deploy/test.sh")


def test_set_up_is_quick_when_done():
    """A second set-up does nothing: it prints nothing and is through at once."""
    if not (ROOT / ".venv" / ".made-from").exists():
        pytest.skip("this environment was not made by deploy/setup.sh")
    first = run("sh", "deploy/setup.sh")
    second = run("sh", "deploy/setup.sh")

    assert first.returncode == 0, first.stderr
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
