-- The guard in the records database, as templates: `install.py` fills every @{…} with identifiers
-- that PostgreSQL has quoted, or with words that match [a-z][a-z0-9_]*.
--
-- What holds here, whoever calls:
-- - a pass that does not verify opens nothing; a setting that is empty or unset is no pass;
-- - no row leaves a mapped table for broker_guard unless a verified pass names its customer (the
--   policy), and no column leaves a view unless the same pass names its field (the view);
-- - keys and salts are read by functions of broker_guard_keeper only, each with a pinned search_path.

-- name: store_schema#
-- Makes the room for everything below.
CREATE SCHEMA broker_guard AUTHORIZATION broker_guard_keeper;

-- name: store_schema_undo#
-- Undoes store_schema.
DROP SCHEMA broker_guard;

-- name: store_usage#
-- Lets the two roles name what lies in it.
GRANT USAGE ON SCHEMA broker_guard TO broker_reader, broker_guard;

-- name: store_usage_undo#
-- Undoes store_usage.
REVOKE USAGE ON SCHEMA broker_guard FROM broker_reader, broker_guard;

-- name: store_guard_key#
-- Makes the table of keys that verify; whoever reads it can open every customer.
CREATE TABLE broker_guard.guard_key (
    key_id text PRIMARY KEY,
    -- the two blocks of HMAC (RFC 2104) made ahead: key XOR 0x36…, key XOR 0x5c…
    inner_pad bytea NOT NULL CHECK (octet_length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (octet_length(outer_pad) = 64),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    verify_until timestamptz -- null: in use; else: a newer key signs, passes of this one run out
);

-- name: store_guard_key_undo#
-- Undoes store_guard_key.
DROP TABLE broker_guard.guard_key;

-- name: store_salt#
-- Makes the table of salts; deleting a customer's row makes their pseudonyms nobody's for good.
CREATE TABLE broker_guard.salt (
    customer text PRIMARY KEY,
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: store_salt_undo#
-- Undoes store_salt; every pseudonym in the ledger becomes nobody's.
DROP TABLE broker_guard.salt;

-- name: store_match_quota#
-- Makes the count of identifiers that auditors had matched: day * 1,000,000 + how many on it. A sequence, because
-- a transaction that is rolled back gives nothing of it back.
CREATE SEQUENCE broker_guard.match_quota;

-- name: store_match_quota_undo#
-- Undoes store_match_quota.
DROP SEQUENCE broker_guard.match_quota;

-- name: store_install_step#
-- Makes the record of what was done, so that the undo needs no catalog.
CREATE TABLE broker_guard.install_step (
    step integer PRIMARY KEY,
    part text NOT NULL CHECK (part IN ('store', 'mapping')),
    relation text NOT NULL, -- the table of another owner that the step changes, '' if none
    sql text NOT NULL,
    undo text NOT NULL
);

-- name: store_install_step_undo#
-- Undoes store_install_step.
DROP TABLE broker_guard.install_step;

-- name: store_installation#
-- Makes the row that says which mapping is installed, and how the guard looked right afterwards.
CREATE TABLE broker_guard.installation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    mapping jsonb NOT NULL,
    fingerprint text NOT NULL,
    install_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: store_installation_undo#
-- Undoes store_installation.
DROP TABLE broker_guard.installation;

-- name: store_owner#
-- Hands a table to the keeper.
ALTER TABLE broker_guard.@{table} OWNER TO broker_guard_keeper;

-- name: customer_key#
-- Reads a customer as the key's type; what is no such key is nobody, never an error.
CREATE FUNCTION broker_guard.customer_key(customer text) RETURNS @{key_type}
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = broker_guard, pg_temp
AS $$
BEGIN
    RETURN customer::@{key_type};
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    RETURN NULL;
END
$$;

-- name: customer_key_undo#
-- Undoes customer_key.
DROP FUNCTION IF EXISTS broker_guard.customer_key(text);

-- name: open_passes#
-- Verifies all passes of the setting at once; clocks of the two databases may differ by 5 s.
-- A loop over simple expressions: setting up one statement over all of them costs more than verifying one.
CREATE FUNCTION broker_guard.open_passes()
RETURNS TABLE (grant_id uuid, customer text, fields text[], customer_key @{key_type})
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker_guard, pg_temp ROWS 4
AS $$
#variable_conflict use_variable
DECLARE
    told text := current_setting('broker.pass', true);
    line text;
    part text[];
    key broker_guard.guard_key;
BEGIN
    IF told IS NULL OR told = '' OR length(told) > 262144 THEN
        RETURN;
    END IF;
    FOREACH line IN ARRAY string_to_array(told, ' ') LOOP
        part := string_to_array(line, '|');
        CONTINUE WHEN cardinality(part) <> 6;
        IF key.key_id IS DISTINCT FROM part[1] THEN
            SELECT k.* INTO key FROM broker_guard.guard_key AS k WHERE k.key_id = part[1];
        END IF;
        CONTINUE WHEN key.key_id IS NULL OR key.verify_until <= clock_timestamp();
        -- digests of both are compared, so that the time of comparing says nothing of the MAC
        CONTINUE WHEN sha256(convert_to(part[6], 'UTF8')) <> sha256(convert_to(encode(sha256(
            key.outer_pad || sha256(key.inner_pad || convert_to(left(line, -65), 'UTF8'))
        ), 'hex'), 'UTF8'));
        -- what has been verified is well-formed: no cast below can fail
        CONTINUE WHEN clock_timestamp() >= to_timestamp(part[5]::bigint) + interval '5 seconds';
        grant_id := part[2]::uuid;
        customer := convert_from(decode(part[3], 'hex'), 'UTF8');
        fields := string_to_array(part[4], ',');
        customer_key := broker_guard.customer_key(customer);
        RETURN NEXT;
    END LOOP;
END
$$;

-- name: open_passes_undo#
-- Undoes open_passes.
DROP FUNCTION IF EXISTS broker_guard.open_passes();

-- name: pseudonyms#
-- Gives the pseudonyms of each pair of customer and ticket; a salt is made on first use. NULL: destroyed meanwhile.
CREATE FUNCTION broker_guard.pseudonyms(customers text[], tickets text[])
RETURNS TABLE (customer_pseudonym text, ticket_pseudonym text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = broker_guard, pg_temp ROWS 64
AS $$
BEGIN
    IF cardinality(customers) > 64 OR cardinality(customers) IS DISTINCT FROM cardinality(tickets) THEN
        RAISE EXCEPTION 'at most 64 pairs' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- In order of the key, so that two calls that meet wait for each other and never dead-lock;
    -- two random UUIDs hold 244 bits from the system's generator.
    INSERT INTO broker_guard.salt (customer, salt)
    SELECT missing.customer, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
    FROM (SELECT DISTINCT c.customer FROM unnest(customers) AS c (customer)) AS missing
    WHERE NOT EXISTS (SELECT FROM broker_guard.salt AS known WHERE known.customer = missing.customer)
    ORDER BY missing.customer
    ON CONFLICT DO NOTHING;
    -- One row for each pair, whatever became of its salt since: a missing row would make its neighbours' theirs.
    RETURN QUERY
    SELECT
        left(encode(sha256(s.salt || convert_to('customer|' || pair.customer, 'UTF8')), 'hex'), 32),
        left(encode(sha256(s.salt || convert_to('ticket|' || pair.ticket, 'UTF8')), 'hex'), 32)
    FROM unnest(customers, tickets) WITH ORDINALITY AS pair (customer, ticket, number)
    LEFT JOIN broker_guard.salt AS s ON s.customer = pair.customer
    ORDER BY pair.number;
END
$$;

-- name: pseudonyms_undo#
-- Undoes pseudonyms.
DROP FUNCTION IF EXISTS broker_guard.pseudonyms(text[], text[]);

-- name: match_usage#
-- Lets auditors name the one function that is theirs.
GRANT USAGE ON SCHEMA broker_guard TO broker_auditor;

-- name: match_usage_undo#
-- Undoes match_usage.
REVOKE USAGE ON SCHEMA broker_guard FROM broker_auditor;

-- name: match_view#
-- Makes every customer's e-mail address and telephone number comparable; for the keeper's function alone.
CREATE VIEW broker_guard.match_contact AS
SELECT t.@{key}::text AS customer, v.kind, v.plain
FROM @{table} AS t
CROSS JOIN LATERAL (VALUES @{values}) AS v (kind, plain)
WHERE v.plain <> '';

-- name: match_view_undo#
-- Undoes match_view.
DROP VIEW IF EXISTS broker_guard.match_contact;

-- name: match_view_owner#
-- Hands the view to the keeper.
ALTER VIEW broker_guard.match_contact OWNER TO broker_guard_keeper;

-- name: match_create#
-- Lets the keeper take over the view, which needs CREATE for the moment of the hand-over.
GRANT CREATE ON SCHEMA broker_guard TO broker_guard_keeper;

-- name: match_create_end#
-- Ends match_create.
REVOKE CREATE ON SCHEMA broker_guard FROM broker_guard_keeper;

-- name: plain_email#
-- An e-mail address as it is compared: no blanks around it, letters small.
lower(btrim(@{text}, E' \\t\\r\\n'));

-- name: plain_phone#
-- A telephone number as it is compared: its digits; no extension, no "(0)", and 00 for + gone. Fewer than seven
-- digits are none.
(
    SELECT CASE WHEN length(n.digits) >= 7 THEN n.digits END
    FROM (
        SELECT regexp_replace(
            regexp_replace(replace(regexp_replace(lower(@{text}), '(x|ext|;|#).*$', ''), '(0)', ''), '[^0-9+]', '', 'g'),
            '^(00|[+])|[+]', '', 'g'
        ) AS digits
    ) AS n
);

-- name: match_contacts#
-- Finds customers by contact, in one scan for all that is asked.
UNION
        SELECT w.line, m.customer FROM broker_guard.match_contact AS m
        INNER JOIN wanted AS w ON w.kind = m.kind AND w.plain = m.plain
        WHERE EXISTS (SELECT FROM wanted AS any_contact WHERE any_contact.kind IN ('email', 'phone'));

-- name: match_customers#
-- Turns identifiers (email, phone, customer, ticket: sealed) into pseudonyms for an auditor, whose pass says that
-- the query is on record. A person for whom no agent was ever granted anything, who has no salt, looks like a
-- stranger; so what it tells is that somebody is in the ledger, not who is a customer.
CREATE FUNCTION broker_guard.match_customers(pass text, kinds text[], told text[])
RETURNS TABLE (line integer, found text, pseudonym text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = broker_guard, pg_temp ROWS 100
AS $$
#variable_conflict use_column
DECLARE
    part text[]; -- nonce, lines, digest of what is sealed
    verifying broker_guard.guard_key;
    today bigint := floor(extract(epoch FROM clock_timestamp()) / 86400)::bigint * 1000000;
    used bigint;
    sealed text;
BEGIN
    IF cardinality(kinds) > @{call} OR cardinality(kinds) IS DISTINCT FROM cardinality(told) THEN
        RAISE EXCEPTION 'at most @{call} identifiers' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    part := string_to_array(broker_guard.check_admin_pass(pass, 'match'), '|');
    sealed := array_to_string(ARRAY(
        SELECT u.told FROM unnest(kinds, told) WITH ORDINALITY AS u (kind, told, n) WHERE u.kind = 'ticket' ORDER BY u.n
    ), ',');
    IF part[2]::bigint IS DISTINCT FROM cardinality(kinds)
        OR part[3] IS DISTINCT FROM encode(sha256(convert_to(sealed, 'UTF8')), 'hex')
    THEN
        RAISE EXCEPTION 'the pass is for others' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT k.* INTO STRICT verifying FROM broker_guard.guard_key AS k WHERE k.key_id = split_part(pass, '|', 2);
    -- One after the other: two who looked at once would both see room.
    PERFORM pg_advisory_xact_lock(1651663207, 1);
    SELECT greatest(q.last_value, today) INTO used FROM broker_guard.match_quota AS q;
    IF used - today + cardinality(kinds) > @{day} THEN
        RAISE EXCEPTION 'the identifiers of today are used up' USING ERRCODE = 'BK020';
    END IF;
    PERFORM setval('broker_guard.match_quota', used + cardinality(kinds));
    RETURN QUERY
    WITH asked AS (
        SELECT u.n::integer AS line, u.kind, u.told, count(*) FILTER (WHERE u.kind = 'ticket') OVER (ORDER BY u.n) AS ticket
        FROM unnest(kinds, told) WITH ORDINALITY AS u (kind, told, n)
    ),
    wanted AS MATERIALIZED (
        SELECT a.line, a.kind, CASE a.kind
            WHEN 'email' THEN @{email}
            WHEN 'phone' THEN @{phone}
            WHEN 'customer' THEN btrim(a.told)
            WHEN 'ticket' THEN broker_guard.unseal(verifying, part[1] || '|' || a.ticket, a.told)
        END AS plain
        FROM asked AS a
    ),
    met AS (
        SELECT w.line, w.plain AS customer FROM wanted AS w WHERE w.kind IN ('customer', 'ticket')
        @{contacts}
    ),
    counted AS (
        SELECT
            met.line, count(*) AS people, count(s.customer) AS salted,
            min(encode(sha256(s.salt || convert_to('customer|' || s.customer, 'UTF8')), 'hex')) AS pseudonym
        FROM met LEFT JOIN broker_guard.salt AS s ON s.customer = met.customer
        GROUP BY met.line
    )
    SELECT
        w.line,
        CASE WHEN c.people = 1 AND c.salted = 1 THEN 'one' WHEN c.salted > 1 THEN 'several' ELSE 'none' END,
        CASE WHEN c.people = 1 AND c.salted = 1 THEN left(c.pseudonym, 32) END
    FROM wanted AS w LEFT JOIN counted AS c ON c.line = w.line
    ORDER BY w.line;
END
$$;

-- name: match_customers_undo#
-- Undoes match_customers.
DROP FUNCTION IF EXISTS broker_guard.match_customers(text, text[], text[]);

-- name: unseal#
-- Opens what broker.seal sealed; what is no such thing is nobody.
CREATE FUNCTION broker_guard.unseal(key broker_guard.guard_key, nonce text, sealed text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = broker_guard, pg_temp
AS $$
DECLARE
    bytes bytea;
    stream bytea := '';
BEGIN
    IF length(sealed) <> 576 OR sealed !~ '^[0-9a-f]*$' THEN
        RETURN NULL;
    END IF;
    bytes := decode(sealed, 'hex');
    FOR i IN 0..8 LOOP
        stream := stream || sha256(key.outer_pad || sha256(key.inner_pad || convert_to(concat_ws('|', 'seal', nonce, i), 'UTF8')));
    END LOOP;
    FOR i IN 0..287 LOOP
        bytes := set_byte(bytes, i, get_byte(bytes, i) # get_byte(stream, i));
    END LOOP;
    RETURN nullif(convert_from(rtrim(bytes, '\x00'::bytea), 'UTF8'), '');
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

-- name: unseal_undo#
-- Undoes unseal.
DROP FUNCTION IF EXISTS broker_guard.unseal(broker_guard.guard_key, text, text);

-- name: check_admin_pass#
-- Verifies what broker.match_pass or broker.admin_pass gave for a call that is on record; gives what it is for.
-- Brokers of the releases before and after look for this name.
CREATE FUNCTION broker_guard.check_admin_pass(pass text, call text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker_guard, pg_temp
AS $$
DECLARE
    part text[] := string_to_array(pass, '|'); -- call, key, event, what it is for, end, MAC
    last integer := cardinality(part);
    verifying broker_guard.guard_key;
BEGIN
    SELECT k.* INTO verifying FROM broker_guard.guard_key AS k
    WHERE k.key_id = part[2] AND (k.verify_until IS NULL OR k.verify_until > clock_timestamp());
    -- digests of both are compared, so that the time of comparing says nothing of the MAC
    IF last IS NULL OR last < 6 OR part[1] IS DISTINCT FROM call OR verifying.key_id IS NULL
        OR sha256(convert_to(part[last], 'UTF8')) IS DISTINCT FROM sha256(convert_to(encode(sha256(verifying.outer_pad
            || sha256(verifying.inner_pad || convert_to(left(pass, -65), 'UTF8'))), 'hex'), 'UTF8'))
    THEN
        RAISE EXCEPTION 'not a pass' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- what has been verified is well-formed: the cast cannot fail
    IF part[last - 1]::bigint < extract(epoch FROM clock_timestamp()) - 5 THEN
        RAISE EXCEPTION 'the pass is over' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN array_to_string(part[4 : last - 2], '|');
END
$$;

-- name: check_admin_pass_undo#
-- Undoes check_admin_pass.
DROP FUNCTION IF EXISTS broker_guard.check_admin_pass(text, text);

-- name: resolve_pseudonyms#
-- Gives the customers behind the pseudonyms that the call on record digests; one scan over the salts, whatever
-- their number. No index leads from a pseudonym to its customer, so there is none to forget.
CREATE FUNCTION broker_guard.resolve_pseudonyms(pass text, pseudonyms text[])
RETURNS TABLE (pseudonym text, customer text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker_guard, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    named text := broker_guard.check_admin_pass(pass, 'ResolvePseudonyms'); -- how many, and their digest
BEGIN
    IF cardinality(pseudonyms) > 100000 OR named IS DISTINCT FROM cardinality(pseudonyms) || '|' || encode(
        sha256(convert_to(array_to_string(pseudonyms, ','), 'UTF8')), 'hex'
    ) THEN
        RAISE EXCEPTION 'the pass is for others' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
    SELECT k.pseudonym, k.customer
    FROM (
        SELECT s.customer, left(encode(sha256(s.salt || convert_to('customer|' || s.customer, 'UTF8')), 'hex'), 32) AS pseudonym
        FROM broker_guard.salt AS s
    ) AS k
    WHERE k.pseudonym = ANY (pseudonyms);
END
$$;

-- name: resolve_pseudonyms_undo#
-- Undoes resolve_pseudonyms.
DROP FUNCTION IF EXISTS broker_guard.resolve_pseudonyms(text, text[]);

-- name: erase_salt#
-- Destroys a customer's salt, where the call on record names their pseudonym: it is nobody's from then on.
CREATE FUNCTION broker_guard.erase_salt(pass text, customer text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = broker_guard, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    named text := broker_guard.check_admin_pass(pass, 'EraseCustomer');
BEGIN
    DELETE FROM broker_guard.salt AS s
    WHERE s.customer = customer
        AND left(encode(sha256(s.salt || convert_to('customer|' || s.customer, 'UTF8')), 'hex'), 32) = named;
    RETURN FOUND;
END
$$;

-- name: erase_salt_undo#
-- Undoes erase_salt.
DROP FUNCTION IF EXISTS broker_guard.erase_salt(text, text);

-- name: status#
-- Says what is installed; nothing in it is secret.
CREATE FUNCTION broker_guard.status()
RETURNS TABLE (mapping jsonb, fingerprint text, keys_in_use bigint, keys_running_out bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker_guard, pg_temp
AS $$
    SELECT
        (SELECT i.mapping FROM broker_guard.installation AS i),
        (SELECT i.fingerprint FROM broker_guard.installation AS i),
        (SELECT count(*) FROM broker_guard.guard_key AS k WHERE k.verify_until IS NULL),
        (SELECT count(*) FROM broker_guard.guard_key AS k WHERE k.verify_until > clock_timestamp())
$$;

-- name: status_undo#
-- Undoes status.
DROP FUNCTION IF EXISTS broker_guard.status();

-- name: function_owner#
-- Hands a function to the keeper.
ALTER FUNCTION broker_guard.@{function} OWNER TO broker_guard_keeper;

-- name: function_private#
-- Takes a function from everybody.
REVOKE ALL ON FUNCTION broker_guard.@{function} FROM PUBLIC;

-- name: function_grant#
-- Lets the reader call a function; PostgreSQL asks whoever reads a view, not the view's owner.
GRANT EXECUTE ON FUNCTION broker_guard.@{function} TO @{roles};

-- name: columns_grant#
-- Lets the guard read the mapped columns of a table, and no other.
GRANT SELECT (@{columns}) ON @{table} TO @{role};

-- name: columns_grant_undo#
-- Undoes columns_grant.
DO $undo$
BEGIN
    @{revokes}
END
$undo$;

-- name: column_revoke#
-- Takes back one column; one that its owner has renamed since keeps the right, and `check` names it.
    BEGIN
        REVOKE SELECT (@{column}) ON @{table} FROM @{role};
    EXCEPTION WHEN undefined_column OR undefined_table OR invalid_schema_name THEN NULL;
    END;

-- name: policy_others#
-- Keeps everything as it was for every other role.
CREATE POLICY broker_guard_others ON @{table} AS PERMISSIVE FOR ALL TO PUBLIC
USING (true) WITH CHECK (true);

-- name: policy_others_undo#
-- Undoes policy_others.
DROP POLICY IF EXISTS broker_guard_others ON @{table};

-- name: policy_passes#
-- Shows the guard only rows of customers with an open pass; the sub-select runs once a statement.
CREATE POLICY broker_guard_passes ON @{table} AS RESTRICTIVE FOR ALL TO broker_guard
USING (@{condition});

-- name: policy_passes_undo#
-- Undoes policy_passes.
DROP POLICY IF EXISTS broker_guard_passes ON @{table};

-- name: condition_customer
-- Holds where the column is the customer's key, or a child's link to it.
@{column} = ANY (ARRAY(SELECT pass.customer_key FROM broker_guard.open_passes() AS pass));

-- name: condition_parent
-- Holds where the parent row is visible, which the parent's own policy decides. OFFSET 0 makes it
-- look up the parents of rows that are read, not collect every parent of a customer beforehand.
EXISTS (SELECT FROM @{parent} AS parent WHERE parent.@{parent_key} = @{table}.@{column} OFFSET 0);

-- name: row_security#
-- Turns row security on; owners and superusers stay outside it, nothing is forced on them.
ALTER TABLE @{table} ENABLE ROW LEVEL SECURITY;

-- name: row_security_undo#
-- Undoes row_security.
ALTER TABLE IF EXISTS @{table} DISABLE ROW LEVEL SECURITY;

-- name: view#
-- Makes the reading view of a kind: one customer per pass, the pass's fields, and one row beyond
-- the cap so that a cut is seen. The inner LIMIT bounds the work on a customer with a million rows.
CREATE VIEW broker_guard.@{view} WITH (security_barrier = true) AS
SELECT
    pass.grant_id,
    @{fields}
FROM broker_guard.open_passes() AS pass
CROSS JOIN LATERAL (
    SELECT bounded.*
    FROM (
        SELECT
            @{columns}
        FROM @{source}
        LIMIT @{scan}
    ) AS bounded
    ORDER BY bounded.sort_key DESC
    LIMIT @{limit}
) AS found
WHERE pass.fields && ARRAY[@{names}];

-- name: source_customer#
-- Finds rows by the customer's key; one spelling of a key is the customer, others are nobody.
@{table} AS @{alias} WHERE @{alias}.@{column} = pass.customer_key AND @{alias}.@{column}::text = pass.customer;

-- name: source_parent
-- Finds rows by their parents, of which a bounded number is looked at.
(SELECT @{parent}.@{parent_key} AS up FROM @{above} LIMIT @{scan}) AS of_@{parent}
        JOIN @{table} AS @{alias} ON @{alias}.@{column} = of_@{parent}.up;

-- name: view_undo#
-- Undoes view.
DROP VIEW IF EXISTS broker_guard.@{view};

-- name: view_owner#
-- Hands a view to the guard, whose rights and policies it reads with.
ALTER VIEW broker_guard.@{view} OWNER TO broker_guard;

-- name: view_grant#
-- Lets the reader read the view.
GRANT SELECT ON broker_guard.@{view} TO broker_reader;

-- name: schema_create#
-- Lets the guard take over views, which needs CREATE for the moment of the hand-over.
GRANT CREATE ON SCHEMA broker_guard TO broker_guard;

-- name: schema_create_end#
-- Ends schema_create.
REVOKE CREATE ON SCHEMA broker_guard FROM broker_guard;

-- name: begin#
-- Gives up soon where a table is busy: nobody waits long, nobody is aborted for us.
SET LOCAL lock_timeout = '@{timeout}';

-- name: lock#
-- Takes a table of another owner, all of them before anything is changed.
LOCK TABLE ONLY @{table} IN ACCESS EXCLUSIVE MODE;

-- name: steps_forget#
-- Forgets the steps of the mapping, which has just been undone.
DELETE FROM broker_guard.install_step WHERE part = 'mapping';

-- name: step_remember#
-- Remembers a step with its undo.
INSERT INTO broker_guard.install_step (step, part, relation, sql, undo)
SELECT coalesce(max(step), 0) + 1, @{part}, @{relation}, @{sql}, @{undo} FROM broker_guard.install_step;

-- name: plain_names#
-- Spells every name out from here on, so that the fingerprint does not hang on a search path.
SET LOCAL search_path = pg_catalog;

-- name: installation_remember#
-- Remembers which mapping is installed and how the guard looks now.
INSERT INTO broker_guard.installation (mapping, fingerprint)
SELECT @{mapping}::jsonb, (@{fingerprint})
ON CONFLICT (only_one) DO UPDATE
SET mapping = excluded.mapping, fingerprint = excluded.fingerprint, install_time = clock_timestamp();
