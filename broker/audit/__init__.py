"""The auditors' side: questions to the ledger, each of which is an event of the ledger itself.

Invariants:
- what is counted comes from ledger events and names them; tables beside the ledger are indexes over it;
- customers and tickets are pseudonyms here, whoever asks;
- statistics are pure: numbers in, numbers out, no database.
"""
