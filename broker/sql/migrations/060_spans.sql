-- Spans: what happened inside each request. The ledger is the record, these are the copy: whoever may
-- write here could add a false span, never change or remove one, and no decision reads them.

-- One read in one row; the view broker.span makes its spans.
CREATE TABLE broker.read_trace (
    trace_id bytea NOT NULL CHECK (octet_length(trace_id) = 16),
    span_id bytea NOT NULL CHECK (octet_length(span_id) = 8), -- last four bits 0: the steps carry their number there
    start_ns bigint NOT NULL, -- nanoseconds since 1970
    duration_ns bigint NOT NULL,
    steps bigint [] NOT NULL, -- start and end of each step after start_ns, nanoseconds; -1: not reached
    grant_id uuid,
    event_id uuid, -- the decision's ledger event
    code smallint NOT NULL CHECK (code BETWEEN 0 AND 16), -- gRPC status
    reason text, -- an ErrorReason; NULL unless refused
    policy_version text,
    link bytea CHECK (octet_length(link) = 24), -- trace id and span id that the caller named
    PRIMARY KEY (trace_id) -- also what makes a repeated COPY harmless: it is refused as a whole
);
CREATE INDEX read_trace_grant ON broker.read_trace (grant_id, start_ns) WHERE grant_id IS NOT NULL;
CREATE INDEX read_trace_start ON broker.read_trace USING brin (start_ns);

-- One span of every other request, as the SDK made it.
CREATE TABLE broker.span_row (
    trace_id bytea NOT NULL CHECK (octet_length(trace_id) = 16),
    span_id bytea NOT NULL CHECK (octet_length(span_id) = 8),
    parent_span_id bytea CHECK (octet_length(parent_span_id) = 8),
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('INTERNAL', 'SERVER', 'CLIENT')),
    start_ns bigint NOT NULL,
    end_ns bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('UNSET', 'OK', 'ERROR')),
    grant_id uuid, -- of the root span
    attributes jsonb NOT NULL,
    links jsonb NOT NULL, -- [{"trace_id": …, "span_id": …}] in hex
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX span_row_grant ON broker.span_row (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX span_row_start ON broker.span_row USING brin (start_ns);

-- Every span, whichever way it is stored. Names are those of broker/telemetry/names.py; a test compares.
CREATE VIEW broker.span AS
SELECT
    s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind, s.start_ns, s.end_ns, s.status,
    s.grant_id, s.attributes, s.links
FROM broker.span_row AS s
UNION ALL
SELECT
    r.trace_id,
    r.span_id,
    NULL::bytea AS parent_span_id,
    'broker.v1.AccessService/ReadRecord' AS name,
    'SERVER' AS kind,
    r.start_ns,
    r.start_ns + r.duration_ns AS end_ns,
    CASE WHEN f.fault THEN 'ERROR' ELSE 'UNSET' END AS status,
    r.grant_id,
    jsonb_strip_nulls(jsonb_build_object(
        'rpc.system.name', 'grpc',
        'rpc.method', 'broker.v1.AccessService/ReadRecord',
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
    END AS links
FROM broker.read_trace AS r
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
    '[]'::jsonb AS links
FROM broker.read_trace AS r
INNER JOIN (VALUES
    (0, 'authenticate caller', 'INTERNAL', NULL, NULL),
    (1, 'resolve ticket', 'CLIENT', 'SELECT', 'broker'),
    (2, 'decide fields', 'INTERNAL', NULL, NULL),
    (3, 'read record', 'CLIENT', 'SELECT', 'broker_guard'),
    (4, 'append event', 'CLIENT', 'INSERT', 'broker'),
    (5, 'mask fields', 'INTERNAL', NULL, NULL)
) AS t (index, name, kind, operation, namespace) ON r.steps[2 * t.index + 2] >= 0;

-- Forgets the spans of requests that began before a time; for the owner, by hand or by a timer.
CREATE FUNCTION broker.drop_spans_before(p_time timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_limit bigint := (extract(EPOCH FROM p_time) * 1000000000)::bigint;
    v_reads bigint;
    v_spans bigint;
BEGIN
    DELETE FROM broker.read_trace WHERE start_ns < v_limit;
    GET DIAGNOSTICS v_reads = ROW_COUNT;
    DELETE FROM broker.span_row WHERE start_ns < v_limit;
    GET DIAGNOSTICS v_spans = ROW_COUNT;
    RETURN v_reads + v_spans;
END
$$;

REVOKE ALL ON broker.read_trace, broker.span_row, broker.span FROM PUBLIC;
REVOKE ALL ON FUNCTION broker.drop_spans_before(timestamptz) FROM PUBLIC;
-- COPY alone: a writer cannot read back, change or remove what anybody wrote.
GRANT INSERT ON broker.read_trace, broker.span_row TO broker_access, broker_admin, broker_feed;
GRANT SELECT ON broker.read_trace, broker.span_row, broker.span TO broker_auditor;
-- An auditor asks for events since a time; ids hold the time.
GRANT EXECUTE ON FUNCTION broker.uuid7_floor(timestamptz) TO broker_auditor;
