-- name: recipes
SELECT json_group_array(json_array(name, changed, size)) FROM (
  SELECT name, changed, size FROM recipe WHERE tenant = ?1 ORDER BY name
);

-- name: recipe
SELECT json_array(spec, changed) FROM recipe WHERE tenant = ?1 AND name = ?2;

-- name: other_recipes
SELECT json_array(count(*), coalesce(sum(size), 0)) FROM recipe WHERE tenant = ?1 AND name <> ?2;

-- name: recipe_changed
SELECT changed FROM recipe INDEXED BY recipe_listed WHERE tenant = ?1 AND name = ?2;

-- name: save_recipe
INSERT INTO recipe (tenant, name, spec, changed, size) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (tenant, name) DO UPDATE SET spec = ?3, changed = ?4, size = ?5;

-- name: delete_recipe
DELETE FROM recipe WHERE tenant = ?1 AND name = ?2;

-- name: delete_recipes_of_tenant
DELETE FROM recipe WHERE tenant = ?1;
