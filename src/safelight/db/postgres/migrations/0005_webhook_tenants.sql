-- Whose webhook call it is: tenants take turns.
ALTER TABLE delivery ADD COLUMN tenant text NOT NULL DEFAULT 'default';
UPDATE delivery SET tenant = coalesce(task::json->>'tenant', 'default');
CREATE INDEX delivery_tenant ON delivery (tenant, due, n);
