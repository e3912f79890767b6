"""How a policy comes into force: proposed by one person, approved by another, signed, active at once.

    values.py       proposals, versions, who acts
    gate.py         what a candidate must pass: findings, tests, comparison, and that nobody is locked out
    standing.py     how a candidate stands the tests, its own and those in force
    examining.py    the gate and other questions, asked in child processes
    child.py, tasks.py   both ends of such a process, within bounds of time and memory
    publisher.py    propose, approve, reject, withdraw, roll back: each one transaction with its event
    verdicts.py     what the database says of a proposal, as refusals
    catalogs.py     what catalogs that were in force called data
    guard.py        whether the installed guard covers a catalog
    founding.py     version 1 on a new database, and the broken glass
    reading.py      proposals, versions and workers, for people who look

Invariants:
- a version is in force from the commit of its approval on, together with its ledger event and its
  signature, or nothing happened;
- two persons stand behind every widening, compared as human beings, not as sessions;
- what is published is what was proposed: the approver names its digest, the database stores it once;
- nothing here decides: a version is what `policy` serves, and the append asks for its number.
"""

from broker.publishing.child import MOST_SECONDS, Child
from broker.publishing.examining import ChildExaminer, Questions, in_this_process
from broker.publishing.founding import Founding
from broker.publishing.gate import Examination, examine
from broker.publishing.guard import GuardCheck
from broker.publishing.publisher import Publisher
from broker.publishing.reading import Reading, telling
from broker.publishing.values import Administrator, Draft, Proposal, ProposalState, Version, Worker

__all__ = [
    "MOST_SECONDS",
    "Administrator",
    "Child",
    "ChildExaminer",
    "Draft",
    "Examination",
    "Founding",
    "GuardCheck",
    "Proposal",
    "ProposalState",
    "Publisher",
    "Questions",
    "Reading",
    "Version",
    "Worker",
    "examine",
    "in_this_process",
    "telling",
]
