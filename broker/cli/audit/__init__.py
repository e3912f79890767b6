"""`broker audit`: who saw what, and whether the record of it was changed; one file a verb."""

from __future__ import annotations

import typer

from broker.cli.audit.accept_loss import accept_loss
from broker.cli.audit.access import access
from broker.cli.audit.attribute import attribute
from broker.cli.audit.cosign import cosign
from broker.cli.audit.customers import erase, resolve
from broker.cli.audit.events import event, events
from broker.cli.audit.exposure import exposure
from broker.cli.audit.key import key
from broker.cli.audit.packs import verify_pack
from broker.cli.audit.proofs import prove, prove_consistency, verify_proof
from broker.cli.audit.prune import prune
from broker.cli.audit.reconcile import reconcile
from broker.cli.audit.spans import spans
from broker.cli.audit.stream import stream
from broker.cli.audit.trace import trace
from broker.cli.audit.unexplained import unexplained
from broker.cli.audit.verify import verify
from broker.cli.groups import VerbGroup
from broker.cli.persons import personal

app = typer.Typer(
    cls=VerbGroup,
    help="Ask the record who saw whose data, prove that nobody changed it, find who leaked.\n\n"
    "The ledger holds every grant, read and refusal. Agents are named in it, customers and tickets are\n"
    "pseudonyms. Most verbs ask the broker as a person: --token-file or --token-command, or --as audrey\n"
    "in the sample company. Every question is on the ledger itself.\n\n"
    "\b\n"
    "Whose data did this agent read?      broker audit events --agent AGENT --kind read --since 30d\n"
    "What happened on this ticket?        broker audit trace TICKET\n"
    "Is the record what it was?           broker audit verify\n"
    "Customers complain: who leaked?      broker audit attribute complaints.csv\n"
    "Whom must we notify, of what?        broker audit exposure --agent AGENT --since 30d\n"
    "Everything into our SIEM             broker audit stream --format ocsf --append FILE --follow",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("events")(personal(events))
app.command("event")(personal(event))
app.command("stream")(personal(stream))
app.command("trace")(personal(trace))
app.command("spans")(personal(spans))
app.command("reconcile")(personal(reconcile))
app.command("verify")(verify)
app.command("key")(personal(key, optional=True))
app.command("prove")(personal(prove, optional=True))
app.command("prove-consistency")(personal(prove_consistency, optional=True))
app.command("verify-proof")(verify_proof)
app.command("cosign")(cosign)
app.command("accept-loss")(accept_loss)
app.command("prune")(prune)
app.command("attribute")(personal(attribute, optional=True))
app.command("unexplained")(personal(unexplained, optional=True))
app.command("exposure")(personal(exposure, optional=True))
app.command("verify-pack")(verify_pack)
app.command("access")(personal(access, optional=True))
app.command("resolve")(personal(resolve))
app.command("erase")(personal(erase))
