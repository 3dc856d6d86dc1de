-- With at most one row alive, the planner takes any index for a single page, however many dead rows it holds, and looked
-- tasks up by number in one of these, which it then reads as a whole for each number. What they are for names the
-- tenant, which implies their condition; a look-up by number alone does not, and is left the primary key. Nor does
-- `coalesce(tenant, '')`, as `tenant || ''` would.
DROP INDEX task_tenant;
CREATE INDEX task_tenant ON task (tenant, n) WHERE tenant IS NOT NULL;
DROP INDEX task_state;
CREATE INDEX task_state ON task (tenant, state, n) WHERE tenant IS NOT NULL;
DROP INDEX task_recipe;
CREATE INDEX task_recipe ON task (tenant, recipe, n) WHERE tenant IS NOT NULL;
