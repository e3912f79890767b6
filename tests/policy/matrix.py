"""Who sees what under the starting policy, as a table that is reviewed as a diff.

python -m tests.policy.matrix    # writes tests/policy/matrix.txt anew
"""

from pathlib import Path

from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles, load
from tests.policy.sample import POLICIES

TABLE = Path(__file__).parent / "matrix.txt"

ROLES = (
    ("tier1",),
    ("tier2",),
    ("billing",),
    ("supervisor",),
    ("billing", "tier1"),
)

# purpose, relation, ticket kind, provenance, opened by, presence
SITUATIONS = {
    "resolve, routed, away": ("resolve-ticket", "assignee", "general", "routed", "customer", "absent"),
    "resolve, routed, there": ("resolve-ticket", "assignee", "general", "routed", "customer", "present"),
    "resolve, device, away": ("resolve-ticket", "assignee", "device", "routed", "customer", "absent"),
    "resolve, billing, away": ("resolve-ticket", "assignee", "billing", "routed", "customer", "absent"),
    "resolve, handed over, there": ("resolve-ticket", "assignee", "general", "peer", "customer", "present"),
    "resolve, took it, there": ("resolve-ticket", "assignee", "general", "self", "customer", "present"),
    "resolve, opened it, there": ("resolve-ticket", "assignee", "general", "routed", "self", "present"),
    "resolve, colleague's, there": ("resolve-ticket", "assignee", "general", "routed", "peer", "present"),
    "resolve, imported, there": ("resolve-ticket", "assignee", "general", "imported", "customer", "present"),
    "resolve, unknown, there": ("resolve-ticket", "assignee", "general", "unknown", "customer", "present"),
    "resolve, helps, there": ("resolve-ticket", "collaborator", "general", "peer", "customer", "present"),
    "resolve, no relation": ("resolve-ticket", "none", "general", "unknown", "customer", "present"),
    "call back, away": ("call-back", "assignee", "general", "routed", "customer", "absent"),
    "call back, there": ("call-back", "assignee", "general", "routed", "customer", "present"),
    "call back, opened it, there": ("call-back", "assignee", "general", "routed", "self", "present"),
    "verify, away": ("verify-identity", "assignee", "general", "routed", "customer", "absent"),
    "verify, there": ("verify-identity", "assignee", "general", "routed", "customer", "present"),
    "dispute, refund, away": ("billing-dispute", "assignee", "refund", "routed", "customer", "absent"),
    "dispute, refund, there": ("billing-dispute", "assignee", "refund", "routed", "customer", "present"),
    "dispute, general, there": ("billing-dispute", "assignee", "general", "routed", "customer", "present"),
    "review, supervises": ("quality-review", "supervisor", "general", "routed", "customer", "absent"),
    "review, own ticket": ("quality-review", "assignee", "general", "routed", "customer", "present"),
}

# one field per class, and those that rules name
FIELDS = (
    "customer.name",
    "customer.email",
    "customer.iban",
    "customer.card_number",
    "customer.device_model",
    "customer.device_serial",
    "customer.birth_date",
)


def facts(words: tuple[str, ...]) -> Facts:
    """Gives facts from words."""
    purpose, relation, kind, provenance, opened_by, presence = words
    return Facts(
        purpose,
        Relation(relation),
        kind,
        Provenance(provenance),
        OpenedBy(opened_by),
        Presence(presence),
    )


def matrix(policy: Policy) -> str:
    """Gives the table: a line per roles and situation, a column per field; `.` is withheld."""
    head = f"{'roles':14} {'situation':30} " + " ".join(f"{f.split('.')[1]:13}" for f in FIELDS)
    lines = [head.rstrip()]
    for roles in ROLES:
        for name, words in SITUATIONS.items():
            allowed = policy.decide(frozenset(roles), facts(words), FIELDS).allowed
            cells = " ".join(f"{allowed.get(field, '.'):13}" for field in FIELDS)
            lines.append(f"{'+'.join(roles):14} {name:30} {cells}".rstrip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(matrix(load(PolicyFiles.from_directory(POLICIES), "1")), "utf-8")
