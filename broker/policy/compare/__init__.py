"""What a change of policy changes for people: exhaustive, in few sentences, widening apart from narrowing.

    side.py          a policy and its name            change.py     Change and Comparison, the answer
    domain.py        the facts of both sides as bits      rights.py     rules as sets of combinations
    differences.py   what differs, and for whom           sentences.py  few sentences of it
    groups.py, catalog.py, limits.py, admin.py            the rest

Invariants:
- pure: two policies in, changes out; where they come from is the caller's;
- nothing is missed and nothing invented, for any set of roles: held against stock Casbin by tests;
- what hangs on a fact that one side's model does not know is undecidable, and counts as widening.
"""

from __future__ import annotations

from broker.policy.compare.admin import compare_admins
from broker.policy.compare.catalog import compare_catalogs
from broker.policy.compare.change import Area, Change, Comparison, Direction, told
from broker.policy.compare.differences import Differences, Say
from broker.policy.compare.domain import Domain
from broker.policy.compare.groups import compare_groups
from broker.policy.compare.limits import compare_limits
from broker.policy.compare.sentences import tell
from broker.policy.compare.side import Side
from broker.policy.decision import Policy

__all__ = ["Area", "Change", "Comparison", "Direction", "Side", "compare"]


def compare(old: Policy, new: Policy, say: Say = lambda _text: None) -> Comparison:
    """Compares two policies.

    Args:
        old: what is in force, or was.
        new: what is to come.
        say: is told what is being worked on; for a progress line.
    """
    domain = Domain(old, new)
    differences = Differences(old, new, domain)
    found = list(differences.all(say))
    changes = list(tell(found, differences, domain, new, say))
    touched = {n for d in found if d.area is Area.GROUPS for unit in d.asker for n in unit.names}
    changes += compare_groups(differences.groups, touched)
    changes += compare_catalogs(old, new)
    changes += compare_limits(old, new, differences.roles, differences.groups)
    changes += compare_admins(old.admin, new.admin)
    return told(changes)
