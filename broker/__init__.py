"""A least-privilege access broker between support tools and customer records.

One request, and where each step is:

    (1) rpc/chain.py        a call arrives: deadline, metadata, limits, and who calls (authn/)
    (2) access/creating.py  CreateGrant: resolve the ticket (tickets/), decide per field (policy/),
                            pseudonyms (records/), append with the ground checked (ledger/), sign (grants.py)
    (3) access/reading.py   ReadRecord: verify the grant, decide again, append and read through the
                            guard (ledger/, records/), mask (masking.py), answer after the commit
    (4) traces/             what happened, as spans; the ledger is the record, the span the copy

Layers, top first; a room imports only from below, siblings (|) never each other; checked:

    __main__ > cli > dev > server > rpc > publishing
      > access | audit | containment | replaying | shadowing
      > authn | tickets | policy | grants | records | masking | ledger | tlog | traces
      > database | keys > jose > telemetry | settings | catalog | merkle | note | waiting > errors > model
    client stands apart (imports v1 alone); v1 and sql are leaves
"""
