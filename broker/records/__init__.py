"""The second lock: customer records, readable only through a guard in their own database.

Invariants:
- the reader's role sees nothing without a pass, and this process cannot make one;
- a pass opens one customer's mapped columns, checked by a policy on the table and again by the view;
- what the installation did is remembered beside it, so it can be undone to the last right.

`reader` is the hot path; `relations` asks the catalogs, `plan` makes the SQL from that (pure),
`install` runs and undoes it, `checks` says whether it still stands, `shape` whether it is enough for
another catalog, `keys` rotates.
"""

from broker.records.checks import Assertion, check, installed_shape
from broker.records.install import InstallRefusedError, apply, plan_install, plan_uninstall
from broker.records.keys import LONGEST_PASS, GuardKey, list_guard_keys, rotate_guard_key
from broker.records.plan import Plan
from broker.records.reader import READER_SETTINGS, Appending, RecordReader, is_pass_of
from broker.records.shape import INSTALL_COMMAND, guard_shape, shape_digest, uncovered
from broker.records.steps import Step

__all__ = [
    "INSTALL_COMMAND",
    "LONGEST_PASS",
    "READER_SETTINGS",
    "Appending",
    "Assertion",
    "GuardKey",
    "InstallRefusedError",
    "Plan",
    "RecordReader",
    "Step",
    "apply",
    "check",
    "guard_shape",
    "installed_shape",
    "is_pass_of",
    "list_guard_keys",
    "plan_install",
    "plan_uninstall",
    "rotate_guard_key",
    "shape_digest",
    "uncovered",
]
