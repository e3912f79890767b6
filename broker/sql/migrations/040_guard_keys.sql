-- The mint of passes: the keys, and the one function that signs with them.
--
-- Trust: whoever reads `broker.guard_key` can open every customer in the records database, so no
-- login role of the service has any right on it; the schema's owner fills it (`broker keys rotate`)
-- and its SECURITY DEFINER functions alone call the mint.
--
-- A pass is `key id|grant|hex of the customer|field,field|expiry|hex HMAC-SHA-256 of all before`.
-- It holds no blank and no quote, so several travel in one setting, joined by blanks.

CREATE TABLE broker.guard_key (
    key_id text PRIMARY KEY CHECK (key_id ~ '^[a-z0-9]{8,32}$'),
    -- the two blocks of HMAC (RFC 2104) made ahead: key XOR 0x36…, key XOR 0x5c…
    inner_pad bytea NOT NULL CHECK (octet_length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (octet_length(outer_pad) = 64),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The key that signs now: the newest. The records side learns a key before this table does, so
-- whatever is signed here is verified there.
CREATE FUNCTION broker.active_guard_key_id() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
AS $$ SELECT key_id FROM broker.guard_key ORDER BY create_time DESC, key_id DESC LIMIT 1 $$;

-- Signs one pass. The caller has checked the ground; this function checks only that what it signs
-- can mean one thing: one customer, known shapes, an end within the hour.
CREATE FUNCTION broker.mint_pass(grant_id uuid, customer text, fields text[], expire_time timestamptz)
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = broker, pg_temp
AS $$
DECLARE
    signing broker.guard_key;
    body text;
BEGIN
    IF grant_id IS NULL OR coalesce(customer, '') = '' OR octet_length(customer) > 255
        OR expire_time IS NULL OR coalesce(cardinality(fields), 0) NOT BETWEEN 1 AND 256
        OR array_to_string(fields, ',', '?') !~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*(,[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)*$'
    THEN
        RAISE EXCEPTION 'a pass needs a grant, a customer, fields and an end' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- An old key is verified for as long as the longest pass can live (see records/keys.py): an hour.
    IF expire_time > clock_timestamp() + interval '1 hour' THEN
        RAISE EXCEPTION 'a pass lives an hour at most' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO signing FROM broker.guard_key k ORDER BY k.create_time DESC, k.key_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no guard key; run: broker keys rotate' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    body := concat_ws(
        '|',
        signing.key_id,
        grant_id,
        encode(convert_to(customer, 'UTF8'), 'hex'),
        array_to_string(fields, ','),
        floor(extract(epoch FROM expire_time))::bigint
    );
    RETURN body || '|' || encode(
        sha256(signing.outer_pad || sha256(signing.inner_pad || convert_to(body, 'UTF8'))), 'hex'
    );
END
$$;

REVOKE ALL ON broker.guard_key FROM PUBLIC;
REVOKE ALL ON FUNCTION broker.active_guard_key_id() FROM PUBLIC;
REVOKE ALL ON FUNCTION broker.mint_pass(uuid, text, text[], timestamptz) FROM PUBLIC;
-- The id alone is no secret; readiness and `broker keys list` show it.
GRANT EXECUTE ON FUNCTION broker.active_guard_key_id() TO broker_access, broker_admin;
