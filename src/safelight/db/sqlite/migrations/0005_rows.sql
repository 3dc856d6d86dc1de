-- A row as one value is an expression of the statements (connection.py): generated columns cost time at each write.
ALTER TABLE task DROP COLUMN as_json;
ALTER TABLE event DROP COLUMN as_json;
