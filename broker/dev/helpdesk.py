"""A helpdesk for development: keeps tickets in memory and signs what happens to them.

It keeps the promises that a real helpdesk must keep (broker/tickets/events.py): one number per
event, one version per ticket and event, who assigned, who opened. For `broker dev`, the demo and
the tests; never for production.

    helpdesk = Helpdesk("helpdesk", time.time)
    await feed.publish({"helpdesk"}, [helpdesk.open("T-1", customers=["7"], assignee=alice)])
    await feed.heartbeat({"helpdesk"}, helpdesk.heartbeat())
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.jose import keyset
from broker.model import Agent, Relation
from broker.tickets.events import EVENT_TYPE

JsonObject = dict[str, object]

LIVE = ("open", "pending")

KEY_NAME = "helpdesk-key.pem"
STATE_NAME = "helpdesk-state.json"


def by(who: Agent | str) -> JsonObject:
    """Writes who did something: an agent, or one of the words `customer`, `system`, `queue`, `import`."""
    if isinstance(who, Agent):
        return {"by": "agent", "issuer": who.issuer, "subject": who.subject}
    return {"by": who}


def assignment(agent: Agent, assigned_by: Agent | str = "queue", relation: str = "assignee") -> JsonObject:
    """Writes an assignment."""
    return {
        "agent": {"issuer": agent.issuer, "subject": agent.subject},
        "relation": relation,
        "assigned_by": by(assigned_by),
    }


@dataclass
class _Ticket:
    """A ticket as the helpdesk has it."""

    version: int
    kind: str
    status: str
    opened_by: JsonObject
    customers: list[str]
    assignments: list[JsonObject] = field(default_factory=list)


class Helpdesk:
    """One helpdesk with its key; each method that changes a ticket gives the signed event."""

    def __init__(
        self, feed_id: str, clock: Callable[[], float], *, key: Ed25519PrivateKey | None = None
    ) -> None:
        """Takes the feed's id, POSIX time, and a key (else makes one)."""
        self.feed_id = feed_id
        self.seq = 0
        self._clock = clock
        self._key = key or Ed25519PrivateKey.generate()
        self._tickets: dict[str, _Ticket] = {}

    # --- What happens to tickets ------------------------------------------------------------------

    def open(
        self,
        ticket_id: str,
        *,
        customers: Iterable[str],
        kind: str = "general",
        opened_by: Agent | str = "customer",
        assignee: Agent | None = None,
        assigned_by: Agent | str = "queue",
    ) -> str:
        """Opens a ticket, assigned or not."""
        assignments = [assignment(assignee, assigned_by)] if assignee else []
        self._tickets[ticket_id] = _Ticket(0, kind, "open", by(opened_by), list(customers), assignments)
        return self._ticket_event(ticket_id)

    def change(
        self,
        ticket_id: str,
        *,
        customers: Iterable[str] | None = None,
        kind: str | None = None,
        status: str | None = None,
    ) -> str:
        """Changes what a ticket is: other customers (merged, split), kind or status."""
        ticket = self._tickets[ticket_id]
        ticket.customers = ticket.customers if customers is None else list(customers)
        ticket.kind = kind or ticket.kind
        ticket.status = status or ticket.status
        return self._ticket_event(ticket_id)

    def assign(self, ticket_id: str, *assignments: JsonObject) -> str:
        """Replaces who is related to a ticket; see `assignment`. None given: nobody is."""
        self._tickets[ticket_id].assignments = list(assignments)
        return self._sign_next(ticket_id, {"type": "assignment", "assignments": list(assignments)})

    def reassign(self, ticket_id: str, agent: Agent, assigned_by: Agent | str = "queue") -> str:
        """Makes one agent the assignee and ends all other relations."""
        return self.assign(ticket_id, assignment(agent, assigned_by, Relation.ASSIGNEE.value))

    def close(self, ticket_id: str, actor: Agent | str = "system") -> str:
        """Closes a ticket."""
        return self.set_status(ticket_id, "closed", actor)

    def set_status(self, ticket_id: str, status: str, actor: Agent | str = "system") -> str:
        """Changes the status of a ticket: open, pending, closed, deleted."""
        self._tickets[ticket_id].status = status
        return self._work(ticket_id, "status", actor, status=status)

    def reply(self, ticket_id: str, actor: Agent | str = "customer") -> str:
        """Notes word from the customer, or to them."""
        return self._work(ticket_id, "reply", actor)

    def note(self, ticket_id: str, actor: Agent | str = "system") -> str:
        """Notes an internal remark."""
        return self._work(ticket_id, "note", actor)

    def call_started(self, ticket_id: str, actor: Agent | str = "customer") -> str:
        """Notes that a call has begun; only the customer and telephony (system) vouch for presence."""
        return self._work(ticket_id, "call", actor, call="started")

    def call_ended(self, ticket_id: str, actor: Agent | str = "customer") -> str:
        """Notes that a call has ended."""
        return self._work(ticket_id, "call", actor, call="ended")

    # --- What the feed says of itself -------------------------------------------------------------

    def heartbeat(self) -> str:
        """Says that the feed is alive; counts where its second is later than that of the one before."""
        return self.sign({"seq": self.seq, "type": "heartbeat"})

    def snapshot(self) -> list[str]:
        """Describes all open tickets, and ends."""
        named = [ticket_id for ticket_id, ticket in self._tickets.items() if ticket.status in LIVE]
        tickets = [self.sign({"seq": self.seq, **self._described(ticket_id)}) for ticket_id in named]
        return [*tickets, self.sign({"seq": self.seq, "type": "snapshot-end", "tickets": len(named)})]

    # --- The key ----------------------------------------------------------------------------------

    @property
    def kid(self) -> str:
        """Gives the key's id, its thumbprint."""
        return keyset.thumbprint(keyset.public_jwk(self._key.public_key()))

    def jwks(self) -> str:
        """Writes the public key as a JWK Set, for the feed's `jwks_file`."""
        jwk = keyset.public_jwk(self._key.public_key())
        return json.dumps({"keys": [{**jwk, "kid": self.kid, "use": "sig", "alg": "EdDSA"}]})

    def sign(self, claims: Mapping[str, object], headers: Mapping[str, object] | None = None) -> str:
        """Signs any claims as this feed, `iss` and `iat` added; also what a real helpdesk would not say."""
        return jwt.encode(
            {"iss": self.feed_id, "iat": int(self._clock()), **claims},
            self._key,
            algorithm="EdDSA",
            headers={"typ": EVENT_TYPE, "kid": self.kid, **(headers or {})},
        )

    # --- Keeping it between two starts of `broker dev` ----------------------------------------------

    def save(self, folder: Path) -> None:
        """Writes key and tickets to a folder; a later number or version is never given twice."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = folder / KEY_NAME
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(pem)
        tickets = {ticket_id: asdict(ticket) for ticket_id, ticket in self._tickets.items()}
        state = folder / f"{STATE_NAME}.new"
        state.write_text(json.dumps({"feed_id": self.feed_id, "seq": self.seq, "tickets": tickets}))
        state.replace(folder / STATE_NAME)

    @classmethod
    def restore(cls, folder: Path, clock: Callable[[], float]) -> Helpdesk:
        """Goes on with what `save` wrote."""
        key = load_pem_private_key((folder / KEY_NAME).read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{folder / KEY_NAME}: not an Ed25519 key")
        state = json.loads((folder / STATE_NAME).read_text())
        helpdesk = cls(state["feed_id"], clock, key=key)
        helpdesk.seq = state["seq"]
        helpdesk._tickets = {ticket_id: _Ticket(**ticket) for ticket_id, ticket in state["tickets"].items()}
        return helpdesk

    def ticket_ids(self) -> Sequence[str]:
        """Lists all tickets, oldest first."""
        return list(self._tickets)

    def _work(self, ticket_id: str, kind: str, actor: Agent | str, **extra: str) -> str:
        claims = {"type": "work", "kind": kind, "actor": by(actor), "time": int(self._clock()), **extra}
        return self._sign_next(ticket_id, claims)

    def _ticket_event(self, ticket_id: str) -> str:
        self._tickets[ticket_id].version += 1
        self.seq += 1
        return self.sign({"seq": self.seq, **self._described(ticket_id)})

    def _described(self, ticket_id: str) -> JsonObject:
        return {"type": "ticket", "ticket_id": ticket_id, **asdict(self._tickets[ticket_id])}

    def _sign_next(self, ticket_id: str, claims: Mapping[str, object]) -> str:
        self._tickets[ticket_id].version += 1
        self.seq += 1
        version = self._tickets[ticket_id].version
        return self.sign({"seq": self.seq, "ticket_id": ticket_id, "version": version, **claims})
