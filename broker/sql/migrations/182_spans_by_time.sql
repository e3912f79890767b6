-- Spans by time: a step of a read is stored as what passed since its request began, and no index holds the sum. So a
-- search says as well between which times the request began, which the index on that finds.

-- As in 070, with near_ns: what the index is on. A step began at or after it; a minute is longer than a request lasts.
CREATE OR REPLACE VIEW broker.span AS
SELECT
    s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind, s.start_ns, s.end_ns, s.status,
    s.grant_id, s.attributes, s.links, s.start_ns AS near_ns
FROM broker.span_row AS s
UNION ALL
SELECT
    r.trace_id,
    r.span_id,
    NULL::bytea AS parent_span_id,
    m.method_name AS name,
    'SERVER' AS kind,
    r.start_ns,
    r.start_ns + r.duration_ns AS end_ns,
    CASE WHEN f.fault THEN 'ERROR' ELSE 'UNSET' END AS status,
    r.grant_id,
    jsonb_strip_nulls(jsonb_build_object(
        'rpc.system.name', 'grpc',
        'rpc.method', m.method_name,
        'rpc.response.status_code', c.code_name,
        'error.type', CASE WHEN f.fault THEN c.code_name END,
        'broker.error.reason', r.reason,
        'broker.grant.id', r.grant_id,
        'broker.decision.id', r.event_id,
        'broker.policy.version', r.policy_version
    )) AS attributes,
    CASE
        WHEN r.link IS NULL THEN '[]'::jsonb
        ELSE jsonb_build_array(jsonb_build_object(
            'trace_id', encode(substr(r.link, 1, 16), 'hex'), 'span_id', encode(substr(r.link, 17, 8), 'hex')
        ))
    END AS links,
    r.start_ns AS near_ns
FROM broker.read_trace AS r
CROSS JOIN LATERAL (
    SELECT (ARRAY[
        'broker.v1.AccessService/ReadRecord', 'broker.v1.AccessService/CreateGrant'
    ])[r.method + 1] AS method_name
) AS m
CROSS JOIN LATERAL (
    SELECT (ARRAY[
        'OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS',
        'PERMISSION_DENIED', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE',
        'UNIMPLEMENTED', 'INTERNAL', 'UNAVAILABLE', 'DATA_LOSS', 'UNAUTHENTICATED'
    ])[r.code + 1] AS code_name
) AS c
CROSS JOIN LATERAL (
    SELECT c.code_name IN (
        'UNKNOWN', 'DEADLINE_EXCEEDED', 'UNIMPLEMENTED', 'INTERNAL', 'UNAVAILABLE', 'DATA_LOSS'
    ) AS fault
) AS f
UNION ALL
SELECT
    r.trace_id,
    set_byte(r.span_id, 7, get_byte(r.span_id, 7) | (t.index + 1)) AS span_id,
    r.span_id AS parent_span_id,
    t.name,
    t.kind,
    r.start_ns + r.steps[2 * t.index + 1] AS start_ns,
    r.start_ns + r.steps[2 * t.index + 2] AS end_ns,
    'UNSET' AS status,
    NULL::uuid AS grant_id,
    CASE
        WHEN t.operation IS NULL THEN '{}'::jsonb
        ELSE jsonb_build_object(
            'db.system.name', 'postgresql', 'db.namespace', t.namespace, 'db.operation.name', t.operation
        )
    END AS attributes,
    '[]'::jsonb AS links,
    r.start_ns AS near_ns
FROM broker.read_trace AS r
INNER JOIN (VALUES
    (0, 'authenticate caller', 'INTERNAL', NULL, NULL),
    (1, 'resolve ticket', 'CLIENT', 'SELECT', 'broker'),
    (2, 'decide fields', 'INTERNAL', NULL, NULL),
    (3, 'read record', 'CLIENT', 'SELECT', 'broker_guard'),
    (4, 'append event', 'CLIENT', 'INSERT', 'broker'),
    (5, 'mask fields', 'INTERNAL', NULL, NULL),
    (6, 'derive pseudonyms', 'CLIENT', 'SELECT', 'broker_guard'),
    (7, 'sign grant', 'INTERNAL', NULL, NULL)
) AS t (index, name, kind, operation, namespace) ON r.steps[2 * t.index + 2] >= 0;

-- Pages that were never summarised are read whatever the time asked for: do it as they fill up, not at the next vacuum.
ALTER INDEX broker.read_trace_start SET (autosummarize = on);
ALTER INDEX broker.span_row_start SET (autosummarize = on);
