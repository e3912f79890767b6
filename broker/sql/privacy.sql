-- From a customer to the pseudonym and back, and erasing one: broker/audit/naming.py and erasing.py.

-- name: match_pass
-- Asks leave to match one customer's key, for a question on record.
SELECT pass FROM broker.match_pass($1, '{}');

-- name: match_customer
-- Gives a customer's pseudonym, NULL where no agent was ever granted anything of them; in the records database.
SELECT pseudonym FROM broker_guard.match_customers($1, ARRAY['customer'], ARRAY[$2::text]);

-- name: admin_pass
-- Asks leave for a call that is on record.
SELECT broker.admin_pass($1, $2);

-- name: resolve
-- Gives the customers behind pseudonyms; in the records database.
SELECT pseudonym, customer FROM broker_guard.resolve_pseudonyms($1, $2::text[]);

-- name: erase_links
-- Unlinks a customer in the broker's database.
SELECT live_grants, grants, tickets FROM broker.erase_customer($1);

-- name: erase_salt
-- Destroys a customer's salt; in the records database.
SELECT broker_guard.erase_salt($1, $2);
