"""The decision: five files become one checked, compiled policy; facts go in, levels and reasons come out.

    files.py            the five files as text, bounded, with one digest
    lines.py            strict lines and words          strict_yaml.py   strict YAML
    rules.py            policy.csv                      catalog_reader.py, limits.py, admin.py
    engine.py           Casbin, built from checked rules and the pinned model
    table.py            the same rules as bitsets       verify.py        the table held against Casbin
    table_digest.py     which table that was            seal.py          what is signed about a version
    explain.py          what was missing                decision.py      Policy and load()
    boxes.py            products of sets, exactly       models.py        which model.conf can be read
    everywhere.py       what a policy decides, as boxes     aloud.py     rules and boxes as sentences
    matrix/             the access matrix               who_can.py       who sees a field, and when
    compare/            what a change changes for people
    store.py            versions in the database, and the policy in force
    replay.py           recorded decisions again        tally.py         what a shadow is shown
    lint/               what a careful colleague would say
    suite/              tests with the policy, and those that nobody can take away

Invariants:
- Casbin is the only semantics; the table must agree with it or the policy is not served;
- no file reaches Casbin that a reader here has not understood to the last character;
- a policy in force is never changed in place.
"""

from broker.policy.admin import AdminTable
from broker.policy.decision import Policy, load
from broker.policy.files import PolicyFiles
from broker.policy.limits import Limits
from broker.policy.store import PolicyHolder, PolicyStore
from broker.policy.tally import Tally

__all__ = ["AdminTable", "Limits", "Policy", "PolicyFiles", "PolicyHolder", "PolicyStore", "Tally", "load"]
