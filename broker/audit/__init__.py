"""The auditors' side: questions to the ledger, each of which is an event of the ledger itself.

Invariants:
- what is counted comes from ledger events and names them; tables beside the ledger are indexes over it;
- customers and tickets are pseudonyms here, but for who asks with a customer's key: ReportAccess then names
  their tickets, EraseCustomer unlinks them. ResolvePseudonyms alone answers with keys; no event, log or error
  does;
- statistics are pure: numbers in, numbers out, no database.
"""
