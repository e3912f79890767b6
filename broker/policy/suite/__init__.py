"""Tests with the policy: who, on which ticket, is expected to see what; in sentences, by security admins.

    cases.py       a test: roles, facts, expected levels          reader.py     policies/tests/*.yaml
    folder.py      the files of a folder, bounded                 incident.py   the tests nobody can take away
    runner.py      a policy against tests, and rule coverage      sentences.py  failures as sentences
    administrators.py   the tests of admin.csv                bounds.py     what tests ask, to compare them

Invariants:
- `every` and `any` mean all there are: the runner folds situations that no rule tells apart and looks at
  each of the others;
- a test that cannot be run as written (an unknown role, too many situations) fails;
- the incident tests are made here from the catalog and run on every version, whatever the folder holds;
  only a broken glass may be published despite them (`publishing/founding.py`).
"""

from broker.policy.suite.administrators import AdminCase
from broker.policy.suite.bounds import Bound, Kept, bounds_of, foreseeing, in_words
from broker.policy.suite.cases import Case, Suites
from broker.policy.suite.folder import read_test_files
from broker.policy.suite.incident import incident_suite
from broker.policy.suite.reader import Unread, read_apart, read_suites
from broker.policy.suite.runner import Failure, SuiteReport, came, run

__all__ = [
    "AdminCase",
    "Bound",
    "Case",
    "Failure",
    "Kept",
    "SuiteReport",
    "Suites",
    "Unread",
    "bounds_of",
    "came",
    "foreseeing",
    "in_words",
    "incident_suite",
    "read_apart",
    "read_suites",
    "read_test_files",
    "run",
]
