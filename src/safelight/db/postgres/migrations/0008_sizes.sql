-- The bytes of a saved recipe.
ALTER TABLE recipe ADD COLUMN size bigint NOT NULL DEFAULT 0;
UPDATE recipe SET size = octet_length(spec);
