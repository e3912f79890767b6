-- What the broker asks the records database: reading through the guard, and what its catalogs say.

-- name: pseudonyms
-- Gives the pseudonyms of each pair of customer and ticket, in the order asked for.
SELECT customer_pseudonym, ticket_pseudonym FROM broker_guard.pseudonyms($1::text[], $2::text[]);

-- name: read_kind
-- Tells the passes and reads what they open, in one statement (a template; see reader.py).
SELECT v.grant_id, @{columns}
FROM (SELECT set_config('broker.pass', $1, true) AS told OFFSET 0) AS s
CROSS JOIN LATERAL (SELECT * FROM broker_guard.@{view} WHERE s.told <> '' OFFSET 0) AS v;

-- name: append_and_read
-- Appends reads and reads what was accepted, in one statement (a template; see reader.py): for where the
-- ledger and the records live in one database. $12 are the passes, beside the reads of $1 to $11.
-- The append runs first, because the passes told to the guard are those of its accepted reads.
WITH done AS MATERIALIZED (
    SELECT d.ord, d.reason, d.leaf, d.free_time, p.grant_id, p.pass
    FROM broker.append_reads(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::bigint[],
        $9::integer[], $10::integer[], $11::bytea[]
    ) AS d
    INNER JOIN unnest($2::uuid[], $12::text[]) WITH ORDINALITY AS p (grant_id, pass, ord) ON p.ord = d.ord
),
read AS MATERIALIZED (
    SELECT v.grant_id, @{columns}
    FROM (
        SELECT set_config(
            'broker.pass',
            coalesce((SELECT string_agg(DISTINCT done.pass, ' ') FROM done WHERE done.reason = ''), ''), true
        ) AS told
        OFFSET 0
    ) AS s
    CROSS JOIN LATERAL (SELECT * FROM broker_guard.@{view} WHERE s.told <> '' OFFSET 0) AS v
)
SELECT read.*, done.ord, done.reason, done.leaf, done.free_time
FROM done LEFT JOIN read ON read.grant_id = done.grant_id AND done.reason = ''
ORDER BY done.ord;

-- name: append_one_and_read
-- Does the same for one read, without arrays (a template; see reader.py): $12 is its pass.
-- The append runs first, because the pass is told to the guard only where its verdict says so.
SELECT read.*, 1::bigint AS ord, done.reason, done.leaf, done.free_time
FROM broker.append_read(
    $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::bigint, $7::boolean, $8::bigint,
    $9::integer, $10::integer, $11::bytea
) AS done
LEFT JOIN LATERAL (
    SELECT v.grant_id, @{columns}
    FROM (
        SELECT set_config('broker.pass', CASE WHEN done.reason = '' THEN $12::text ELSE '' END, true) AS told
        OFFSET 0
    ) AS s
    CROSS JOIN LATERAL (SELECT * FROM broker_guard.@{view} WHERE s.told <> '' OFFSET 0) AS v
) AS read ON read.grant_id = $2::uuid;

-- name: relations
-- Finds the relations that a catalog maps; a missing one has no oid.
SELECT
    wanted.number::int AS number,
    c.oid,
    CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', n.nspname, c.relname) END AS quoted,
    c.relkind::text AS relkind,
    pg_get_userbyid(c.relowner) AS owner,
    c.relrowsecurity AS row_security,
    c.relforcerowsecurity AS forced,
    EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid) AS inherits,
    ARRAY(SELECT p.polname::text FROM pg_policy AS p WHERE p.polrelid = c.oid ORDER BY p.polname) AS policies,
    (
        SELECT NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY['broker_guard'::regrole::oid]
        FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'broker_guard_passes'
    ) AS restricted,
    (
        SELECT p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY[0::oid]
        FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'broker_guard_others'
    ) AS others_free,
    pg_has_role('broker_guard', c.relowner, 'MEMBER') AS guard_owns,
    pg_has_role('broker_reader', c.relowner, 'MEMBER') AS reader_owns,
    has_any_column_privilege('broker_reader', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
    OR has_table_privilege('broker_reader', c.oid, 'DELETE, TRUNCATE, TRIGGER') AS reader_rights,
    has_any_column_privilege('broker_guard', c.oid, 'INSERT, UPDATE, REFERENCES')
    OR has_table_privilege('broker_guard', c.oid, 'SELECT, DELETE, TRUNCATE, TRIGGER') AS guard_table_rights,
    ARRAY(
        SELECT r.rolname::text
        FROM pg_roles AS r
        WHERE has_table_privilege(r.oid, c.oid, 'INSERT') AND NOT r.rolsuper AND NOT r.rolbypassrls
            AND NOT pg_has_role(r.oid, c.relowner, 'USAGE') AND r.rolname !~ '^pg_'
        ORDER BY r.rolname
    ) AS copiers
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (schema, name, number)
LEFT JOIN pg_namespace AS n ON n.nspname = wanted.schema
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
ORDER BY wanted.number;

-- name: columns
-- Lists the columns of relations: type as the guard casts to it, indexes, and what the guard may read.
SELECT
    a.attrelid AS relation,
    a.attnum::int AS number,
    a.attname::text AS name,
    quote_ident(a.attname) AS quoted,
    format_type(a.atttypid, -1) AS type,
    EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL
    ) AS indexed,
    EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL
            AND i.indisunique AND i.indnkeyatts = 1
    ) AS is_unique,
    coalesce((
        SELECT p.proleakproof
        FROM pg_opclass AS oc
        JOIN pg_amop AS ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
            AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_operator AS o ON o.oid = ao.amopopr
        JOIN pg_proc AS p ON p.oid = o.oprcode
        JOIN pg_am AS am ON am.oid = oc.opcmethod AND am.amname = 'btree'
        WHERE oc.opcdefault AND oc.opcintype = CASE coalesce(nullif(t.typbasetype, 0), t.oid)
            WHEN 'varchar'::regtype THEN 'text'::regtype
            ELSE coalesce(nullif(t.typbasetype, 0), t.oid)
        END
    ), false) AS leakproof,
    has_column_privilege('broker_guard', a.attrelid, a.attnum, 'SELECT') AS guard_reads,
    EXISTS (
        SELECT FROM aclexplode(a.attacl) AS acl
        WHERE acl.grantee = 'broker_guard'::regrole AND acl.privilege_type = 'SELECT'
    ) AS guard_granted
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum;

-- name: view_bases
-- Follows mapped views down to what they read, and says as whom each step reads.
WITH RECURSIVE chain AS (
    SELECT v.oid AS mapped, v.oid AS via FROM pg_class AS v WHERE v.oid = ANY ($1::oid[])
    UNION
    SELECT chain.mapped, below.oid
    FROM chain
    JOIN pg_rewrite AS r ON r.ev_class = chain.via
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> chain.via
    JOIN pg_class AS below ON below.oid = d.refobjid AND below.relkind = 'v'
)
SELECT
    chain.mapped,
    format('%I.%I', vn.nspname, v.relname) AS via,
    pg_get_userbyid(v.relowner) AS acting,
    EXISTS (
        SELECT FROM pg_options_to_table(v.reloptions) AS o
        WHERE o.option_name = 'security_invoker' AND o.option_value::boolean
    ) AS invoker,
    base.oid AS base,
    base.relkind::text AS relkind,
    format('%I.%I', bn.nspname, base.relname) AS quoted,
    array_agg(DISTINCT d.refobjsubid) FILTER (WHERE d.refobjsubid > 0) AS columns,
    -- guarded only if our restrictive policy is for the acting role and the role cannot pass it by
    pg_has_role(v.relowner, 'broker_guard', 'USAGE') AND NOT pg_has_role(v.relowner, base.relowner, 'USAGE')
    AND NOT acting.rolsuper AND NOT acting.rolbypassrls AS under_guard,
    ARRAY(
        SELECT DISTINCT p.oid::regprocedure::text
        FROM pg_rewrite AS r2
        JOIN pg_depend AS d2 ON d2.classid = 'pg_rewrite'::regclass AND d2.objid = r2.oid
            AND d2.refclassid = 'pg_proc'::regclass
        JOIN pg_proc AS p ON p.oid = d2.refobjid AND p.prosecdef
        WHERE r2.ev_class = v.oid
    ) AS definers
FROM chain
JOIN pg_class AS v ON v.oid = chain.via
JOIN pg_namespace AS vn ON vn.oid = v.relnamespace
JOIN pg_roles AS acting ON acting.oid = v.relowner
JOIN pg_rewrite AS r ON r.ev_class = chain.via
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> chain.via
JOIN pg_class AS base ON base.oid = d.refobjid AND base.relkind <> 'v'
JOIN pg_namespace AS bn ON bn.oid = base.relnamespace
GROUP BY chain.mapped, vn.nspname, v.oid, v.relname, v.relowner, acting.rolsuper, acting.rolbypassrls,
    v.reloptions, base.oid, base.relkind, base.relowner, bn.nspname, base.relname;

-- name: roles
-- Says of each role of the guard what it could do beside its job.
SELECT
    r.rolname::text AS name,
    r.rolcanlogin AS can_login,
    r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication OR r.rolcreatedb AS mighty,
    ARRAY(
        SELECT m.rolname::text FROM pg_roles AS m
        WHERE m.oid <> r.oid AND NOT r.rolsuper AND pg_has_role(r.oid, m.oid, 'MEMBER') ORDER BY m.rolname
    ) AS member_of
FROM pg_roles AS r
WHERE r.rolname IN ('broker_reader', 'broker_guard', 'broker_guard_keeper')
ORDER BY r.rolname;

-- name: guard_views
-- Lists everything that broker_guard owns and every view of the guard's room.
SELECT
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.oid,
    c.relkind::text AS relkind,
    pg_get_userbyid(c.relowner) AS owner,
    EXISTS (
        SELECT FROM pg_options_to_table(c.reloptions) AS o
        WHERE o.option_name = 'security_barrier' AND o.option_value::boolean
    ) AND NOT EXISTS (
        SELECT FROM pg_options_to_table(c.reloptions) AS o
        WHERE o.option_name = 'security_invoker' AND o.option_value::boolean
    ) AS barrier,
    has_table_privilege('broker_reader', c.oid, 'SELECT') AS reader_reads,
    ARRAY(
        SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(acl.grantee) END::text
        FROM aclexplode(c.relacl) AS acl
        WHERE acl.grantee NOT IN (c.relowner, 'broker_reader'::regrole)
            OR (acl.grantee = 'broker_reader'::regrole AND acl.privilege_type <> 'SELECT')
    ) AS others
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p')
    AND (c.relowner = 'broker_guard'::regrole OR n.nspname = 'broker_guard')
ORDER BY 1, 2;

-- name: guard_functions
-- Lists the functions of the guard's room: whose rights they use, and who may call them.
SELECT
    p.oid::regprocedure::text AS name,
    p.proname::text AS short_name,
    pg_get_userbyid(p.proowner) AS owner,
    p.prosecdef AS definer,
    coalesce('search_path=broker_guard, pg_temp' = ANY (p.proconfig), false) AS pinned,
    EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee = 0) AS is_public
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'broker_guard'
ORDER BY 1;

-- name: status
-- Asks the guard what is installed.
SELECT mapping::text AS mapping, fingerprint, keys_in_use, keys_running_out FROM broker_guard.status();

-- name: is_installed
-- Says whether the guard's room is there with everything that an undo needs.
SELECT to_regclass('broker_guard.install_step') IS NOT NULL AS installed,
    EXISTS (SELECT FROM pg_namespace WHERE nspname = 'broker_guard') AS room,
    current_setting('server_version_num')::int AS version;

-- name: fingerprint
-- Digests how the guard looks: policies, views, functions, with owners and rights.
SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\n' ORDER BY line), ''), 'UTF8')), 'hex')
FROM (
    SELECT concat_ws('|', 'policy', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive,
        p.polroles::regrole[]::text, pg_get_expr(p.polqual, p.polrelid),
        pg_get_expr(p.polwithcheck, p.polrelid)) AS line
    FROM pg_policy AS p
    WHERE p.polname IN ('broker_guard_others', 'broker_guard_passes')
    UNION ALL
    SELECT concat_ws('|', c.relkind, c.relname, c.relowner::regrole, c.reloptions::text, c.relacl::text,
        CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END)
    FROM pg_class AS c
    WHERE c.relnamespace = 'broker_guard'::regnamespace AND c.relkind IN ('r', 'v')
    UNION ALL
    SELECT concat_ws('|', 'function', p.oid::regprocedure, p.proowner::regrole, p.proacl::text,
        pg_get_functiondef(p.oid))
    FROM pg_proc AS p
    WHERE p.pronamespace = 'broker_guard'::regnamespace
) AS looks (line);

-- name: steps
-- Lists what an installation did, in order.
SELECT step, part, relation, sql, undo FROM broker_guard.install_step ORDER BY step;

-- name: looked
-- Gives how the guard looked when it was installed.
SELECT fingerprint FROM broker_guard.installation;

-- name: still_there
-- Says which of the relations that were changed are still there.
SELECT r FROM unnest($1::text[]) AS r WHERE to_regclass(r) IS NOT NULL;

-- name: salts
-- Counts the salts, whose loss would make every pseudonym nobody's.
SELECT count(*) FROM broker_guard.salt;

-- name: verify_key_add!
-- Teaches the records side a key, before the mint has it.
INSERT INTO broker_guard.guard_key (key_id, inner_pad, outer_pad) VALUES ($1, $2, $3);

-- name: verify_keys_expire!
-- Lets every key but the named one run out.
UPDATE broker_guard.guard_key SET verify_until = clock_timestamp() + $2::interval
WHERE key_id <> $1 AND (verify_until IS NULL OR verify_until > clock_timestamp() + $2::interval);

-- name: verify_keys_retire!
-- Deletes keys that have run out.
DELETE FROM broker_guard.guard_key WHERE verify_until <= clock_timestamp();

-- name: verify_keys
-- Lists the keys that verify, without their secrets.
SELECT key_id, create_time, verify_until FROM broker_guard.guard_key ORDER BY create_time, key_id;

-- name: mint_key_add!
-- Lets the mint sign with a key from now on.
INSERT INTO broker.guard_key (key_id, inner_pad, outer_pad) VALUES ($1, $2, $3);

-- name: mint_keys_forget!
-- Deletes the keys that no longer sign.
DELETE FROM broker.guard_key WHERE key_id <> $1;
