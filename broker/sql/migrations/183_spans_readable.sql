-- Spans that everybody can read: whoever may write spans could store one whose times add up to more than a number
-- holds, or whose attributes are none, and so end every search over its minute. NOT VALID: what is stored is not
-- looked over, so no writer waits for it.

ALTER TABLE broker.read_trace ADD CONSTRAINT read_trace_times CHECK (
    start_ns BETWEEN 0 AND 4000000000000000000
    AND duration_ns BETWEEN -4000000000000000000 AND 4000000000000000000
    AND 4000000000000000000 >= ALL (steps)
) NOT VALID;
ALTER TABLE broker.span_row ADD CONSTRAINT span_row_shape CHECK (
    jsonb_typeof(attributes) = 'object' AND jsonb_typeof(links) = 'array'
) NOT VALID;
