-- The folder of the repository that is an app's codebase; NULL where that is the whole repository.
ALTER TABLE apps ADD COLUMN root TEXT;
