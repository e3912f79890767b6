-- name: suspend
-- Suspends an agent; gives the suspension in force.
SELECT agent, reason, suspended_by, create_time, end_time FROM broker.suspend_agent($1, $2, $3);

-- name: reinstate
-- Ends an agent's suspension; gives when.
SELECT broker.reinstate_agent($1);

-- name: revoke_grants
-- Revokes live grants by exactly one selector; gives how many.
SELECT broker.revoke_grants($1, $2, $3);

-- name: list_suspensions
-- Lists suspensions, newest first, behind a position.
SELECT suspension_id, agent, reason, suspended_by, create_time, end_time
FROM broker.agent_suspension
WHERE (end_time IS NULL OR $1) AND ($2::bigint IS NULL OR suspension_id < $2)
ORDER BY suspension_id DESC LIMIT $3;
