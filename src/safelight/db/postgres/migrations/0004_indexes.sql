-- Few tasks are alive at a time, so the planner takes every index of theirs to be equally good, and reads a whole one
-- that is full of dead rows. The statements that each task needs therefore leave it one index: they hide the columns
-- that other indexes begin with, or name in their conditions (`tenant || ''`, `state + 0`).
DROP INDEX task_worker;
CREATE INDEX task_worker ON task (worker, seq) WHERE worker IS NOT NULL;
DROP INDEX task_idempotency;
CREATE UNIQUE INDEX task_idempotency ON task (idempotency_key, tenant) WHERE idempotency_key IS NOT NULL;
DROP INDEX ended_idempotency;
CREATE INDEX ended_idempotency ON ended (idempotency_key, tenant) WHERE idempotency_key IS NOT NULL;
DROP INDEX ended_result;
CREATE INDEX ended_result ON ended (input, spec, engine, tenant) WHERE state = 2 AND outputs IS NOT NULL;
