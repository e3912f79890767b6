-- The index over released reads: see migrations/120_disclosures.sql and 181.

-- name: walk
-- Walks the ledger some events further.
SELECT scanned, taken, caught_up FROM broker.index_disclosures($1);

-- name: look_again
-- Looks once more at some events that an open transaction may have brought: the next ones, up to where it began.
SELECT reached, upto FROM broker.look_again($1, $2, $3);

-- name: lag
-- Tells how far the walk is behind.
SELECT indexed_to, newest, behind FROM broker.disclosure_lag();
