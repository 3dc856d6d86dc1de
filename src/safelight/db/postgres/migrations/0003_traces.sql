-- The span that created a task, where it is traced (W3C Trace Context).
ALTER TABLE task ADD COLUMN traceparent text;
ALTER TABLE ended ADD COLUMN traceparent text;
CREATE OR REPLACE VIEW every_task AS SELECT * FROM task UNION ALL SELECT * FROM ended;
-- A partition that was detached is still read once, before it is dropped.
DO $$
DECLARE
  old text;
BEGIN
  FOR old IN SELECT name FROM partition WHERE parent = 'ended' AND announced IS NOT NULL LOOP
    EXECUTE format('ALTER TABLE %I ADD COLUMN traceparent text', old);
  END LOOP;
END $$;
