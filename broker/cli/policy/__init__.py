"""`broker policy`: check a folder of policy files and make it the policy in force; one file a verb."""

from __future__ import annotations

import typer

from broker.cli.policy import shadow
from broker.cli.policy.check import check
from broker.cli.policy.compare import compare
from broker.cli.policy.explain import explain, who_can
from broker.cli.policy.load import load_directory
from broker.cli.policy.matrix import matrix
from broker.cli.policy.replay import replay
from broker.cli.policy.testing import run_tests
from broker.cli.policy.whoami import who_am_i

app = typer.Typer(help="Check and load policies.", no_args_is_help=True, rich_markup_mode=None)
app.command("check")(check)
app.command("compare")(compare)
app.command("load")(load_directory)
app.command("replay")(replay)
app.command("test")(run_tests)
app.command("whoami")(who_am_i)
app.command("matrix")(matrix)
app.add_typer(shadow.app, name="shadow")
app.command("explain")(explain)
app.command("who-can")(who_can)
