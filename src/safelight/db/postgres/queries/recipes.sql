-- name: recipes
SELECT coalesce(json_agg(json_build_array(name, changed, size) ORDER BY name COLLATE "C"), '[]')::text
FROM recipe WHERE tenant = $1;

-- name: recipe
SELECT json_build_array(spec, changed)::text FROM recipe WHERE tenant = $1 AND name = $2;

-- name: other_recipes
SELECT json_build_array(count(*), coalesce(sum(size), 0))::text FROM recipe WHERE tenant = $1 AND name <> $2;

-- name: recipe_changed
SELECT changed FROM recipe WHERE tenant = $1 AND name = $2;

-- name: save_recipe
INSERT INTO recipe (tenant, name, spec, changed, size) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, name) DO UPDATE
SET spec = excluded.spec, changed = excluded.changed, size = excluded.size;

-- name: delete_recipe
DELETE FROM recipe WHERE tenant = $1 AND name = $2;

-- name: delete_recipes_of_tenant
DELETE FROM recipe WHERE tenant = $1;
