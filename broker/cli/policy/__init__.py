"""`broker policy`: from a folder of files to what every replica decides by; one file a group of verbs."""

from __future__ import annotations

import typer

from broker.cli.groups import VerbGroup
from broker.cli.persons import personal
from broker.cli.policy import shadow
from broker.cli.policy.check import check
from broker.cli.policy.compare import compare
from broker.cli.policy.decide import approve, reject, withdraw
from broker.cli.policy.explain import explain, who_can
from broker.cli.policy.glass import break_glass
from broker.cli.policy.history import list_all, show, status
from broker.cli.policy.matrix import matrix
from broker.cli.policy.propose import propose, roll_back
from broker.cli.policy.replay import replay
from broker.cli.policy.testing import run_tests
from broker.cli.policy.whoami import who_am_i

app = typer.Typer(
    cls=VerbGroup,
    help="Check policies, propose and approve them, see what is in force.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("check")(personal(check, late=True))
app.command("compare")(personal(compare, late=True))
app.command("replay")(personal(replay, optional=True))
app.command("test")(personal(run_tests, late=True))
app.command("matrix")(personal(matrix, late=True))
app.add_typer(shadow.app, name="shadow")
app.command("explain")(personal(explain, late=True))
app.command("who-can")(personal(who_can, late=True))
app.command("propose")(personal(propose))
app.command("approve")(personal(approve))
app.command("reject")(personal(reject))
app.command("withdraw")(personal(withdraw))
app.command("rollback")(personal(roll_back))
app.command("list")(personal(list_all))
app.command("show")(personal(show))
app.command("status")(personal(status))
app.command("whoami")(personal(who_am_i))
app.command("break-glass")(break_glass)
