"""The command line: one file per group of verbs.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage or settings; 130 stopped by Ctrl-C.

Invariants:
- data goes to standard output, everything else to standard error;
- an error is one sentence and what to do next, never a traceback (BROKER_DEBUG=1 shows it);
- no token, key or password is an argument: `ps` and shell histories show those to everybody;
- a file here imports what its verbs need when they run, so that `broker --help` is quick and the
  parent of `serve` never has grpc in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from broker.cli import access, audit, contain, dev, feed, keys, policy, records, server, trace
from broker.cli.connections import USUAL_FOLDER
from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, say_error
from broker.errors import BrokerError, DatabaseUnavailableError, PolicyInvalidError, StartupError
from broker.settings import SettingsMissingError

app = typer.Typer(
    cls=VerbGroup,
    name="broker",
    help="Support access broker: support tools read one customer, for one ticket, on the record.\n\n"
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
server.add_to(app)
app.add_typer(records.app, name="records")
app.add_typer(keys.app, name="keys")
app.add_typer(feed.app, name="feed")
app.add_typer(policy.app, name="policy")
app.add_typer(trace.app, name="trace")
app.add_typer(audit.app, name="audit")
app.add_typer(contain.app, name="contain")
app.add_typer(dev.app, name="dev")
app.add_typer(access.app, name="access")

FAILED, WRONG_SETTINGS, INTERRUPTED = 1, 2, 130


def run(arguments: Sequence[str]) -> int:
    """Runs one command; gives the exit code."""
    try:
        app(args=list(arguments), prog_name="broker")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as exc:
        if os.environ.get("BROKER_DEBUG"):
            raise
        return _explain(exc)
    return 0


def _explain(exc: Exception) -> int:
    """Says what went wrong and gives the exit code for it."""
    # Their errors can only come where they were imported.
    client, driver = sys.modules.get("broker.client"), sys.modules.get("asyncpg")
    match exc:
        case SettingsMissingError():
            say_error(str(exc), _sample_settings())
            return WRONG_SETTINGS
        case StartupError():
            say_error(str(exc))
            return WRONG_SETTINGS
        case CommandFailedError():
            say_error(str(exc), exc.next_step)
        case PolicyInvalidError():
            say_error(
                "the policy is wrong:\n  " + "\n  ".join(exc.findings), "mend these lines and run it again"
            )
        case DatabaseUnavailableError():
            say_error(exc.sentence, f"check host and port in the DSN, and that it runs ({exc.cause})")
        case BrokerError():
            say_error(exc.sentence)
        case _ if driver is not None and isinstance(exc, driver.PostgresError):
            # It does answer. The name of the refusal quotes nobody's row; its text might.
            say_error(
                f"the database refuses: {type(exc).__name__}",
                "check role, password and database in the DSN, and that deploy/roles.sql and "
                "`broker migrate` were run",
            )
        case _ if client is not None and isinstance(exc, client.BrokerCallError):
            told = exc.metadata.get("finding", "")
            say_error(str(exc), *getattr(exc, "__notes__", ()), told, _next_step(exc), _identified(exc))
        case _ if _is(exc, "broker.client", "ClientError") or _is(exc, "broker.tlog", "LogInvalidError"):
            say_error(str(exc))
        case _:
            # Its text may quote a customer's data: a driver's error does.
            say_error(
                f"unexpected {type(exc).__name__}", "run it again with BROKER_DEBUG=1 and tell the developers"
            )
    return FAILED


def _is(exc: Exception, module: str, name: str) -> bool:
    """Tells whether it is an error of a module's, without importing that."""
    found = sys.modules.get(module)
    return found is not None and isinstance(exc, getattr(found, name))


def _identified(exc: Exception) -> str:
    words = [
        f"{name} {value}"
        for name, value in (
            ("code", getattr(exc, "code", "")),
            ("reason", getattr(exc, "reason", "")),
            ("field", getattr(exc, "field", "")),
            ("decision id", getattr(exc, "decision_id", "")),
        )
        if value
    ]
    return ", ".join(words)


def _sample_settings() -> str:
    """Points at the sample company's settings where one was made here and none are named."""
    file = Path(os.environ.get("BROKER_DEV_DIR") or USUAL_FOLDER) / "broker.toml"
    if os.environ.get("BROKER_CONFIG") or not file.is_file():
        return ""
    return f"for the sample company: export BROKER_CONFIG={file}"


_NEXT_STEPS = {
    "ADMIN_DENIED": "admin.csv says who may call what; `broker policy whoami` shows what you may",
    "EVENT_NOT_FOUND": "`broker audit events` lists the ids that there are",
    "PROOF_UNAVAILABLE": "an event is published within a second; where reads never stop, ask --until 1m",
    "PROPOSAL_DIGEST": "look at it, with its digest: broker policy show PROPOSAL",
    "PROPOSAL_NOT_FOUND": "`broker policy list` names the proposals that there are",
    "VERSION_INVALID": "two persons bring a good version into force over it: broker policy propose, approve",
    "VERSION_NOT_FOUND": "`broker policy list` names the versions that there are",
}
"""What to do after a refusal, by its reason."""


def _next_step(exc: Exception) -> str:
    reason, code = getattr(exc, "reason", ""), getattr(exc, "code", "")
    if reason == "BUDGET_EXCEEDED":
        free = getattr(exc, "free_time", None)
        return f"it frees up at {free:%H:%M:%S} UTC" if free else ""
    if code == "UNAVAILABLE" and not reason:
        return "check host, port and certificates, and that the broker runs"
    return _NEXT_STEPS.get(reason, "")
