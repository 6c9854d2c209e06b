-- A token is for some apps, their names with commas between them, or for all where there is no list.
ALTER TABLE tokens RENAME COLUMN app TO apps;
