"""THE STORY: how a support tool gets one customer's fields, and when it does not.

    CreateGrant                                ReadRecord
    (1) resolve the ticket for this agent      (1) open the grant: pass, pseudonyms, facts
    (2) decide field by field                  (2) decide again, with the policy in force now
    (3) derive the pseudonyms                  (3) append the disclosure to the ledger, and beside it
    (4) append: ground checked once more,          read the record through the guard
        pass minted, event durable             (4) wait for the commit of the append
    (5) sign the grant                         (5) mask what the decision obliges us to mask

Invariants:
- nothing leaves before its event is durable: no log, no look (P3);
- what (1) and (2) saw is compared by the append with the facts and the policy of its own transaction;
  where they differ it stores nothing and we go back to (1), a bounded number of times (P4);
- "not yours", "does not exist" and "somebody else's" take the same statements to the same sentence (P6);
- a refusal is an event too; it is durable before the agent hears of it;
- what a worker remembers ((1) and (3) of the grant before on this ticket, open grants) is never trusted:
  the append compares it, and a denial is never told by it.

Files: `creating.py` and `reading.py` tell the two columns, `ground.py` what they share, `refusals.py`
how a "no" gets on record, `opened.py` what a worker remembers between reads, `prepared.py` decisions
that many grants share.
"""

from broker.access.creating import GrantCreation
from broker.access.disclosing import Disclosure, OneStatement, SideBySide, share_database
from broker.access.opened import OpenGrants
from broker.access.reading import RecordReading
from broker.access.refusals import Refusals
from broker.access.service import Access
from broker.access.values import Explanation, FieldAnswer, GrantAnswer, GrantRequest, RecordAnswer

__all__ = [
    "Access",
    "Disclosure",
    "Explanation",
    "FieldAnswer",
    "GrantAnswer",
    "GrantCreation",
    "GrantRequest",
    "OneStatement",
    "OpenGrants",
    "RecordAnswer",
    "RecordReading",
    "Refusals",
    "SideBySide",
    "share_database",
]
