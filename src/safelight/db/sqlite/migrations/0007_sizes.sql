-- The bytes of a saved recipe. A list of them reads only the index, however large they are.
ALTER TABLE recipe ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE recipe SET size = length(CAST(spec AS BLOB));
CREATE INDEX recipe_listed ON recipe (tenant, name, changed, size);
