-- The index over released reads: see migrations/120_disclosures.sql.

-- name: walk
-- Walks the ledger some events further.
SELECT scanned, taken, caught_up FROM broker.index_disclosures($1, $2);

-- name: lag
-- Tells how far the walk is behind.
SELECT indexed_to, newest, behind FROM broker.disclosure_lag();
