-- As in 0006, for tasks that have ended. A new partition has no statistics, so its indexes all cost the same, and a
-- search for a finished task with the same input read a whole one by state (tenant, state, n) for each new task.
DROP INDEX ended_tenant;
CREATE INDEX ended_tenant ON ended (tenant, n) WHERE tenant IS NOT NULL;
DROP INDEX ended_state;
CREATE INDEX ended_state ON ended (tenant, state, n) WHERE tenant IS NOT NULL;
DROP INDEX ended_recipe;
CREATE INDEX ended_recipe ON ended (tenant, recipe, n) WHERE tenant IS NOT NULL;
