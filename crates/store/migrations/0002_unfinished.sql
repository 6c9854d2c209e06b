-- By deploy: each looks for its next operation often, among all that it ever had.
DROP INDEX operations_unfinished;
CREATE INDEX operations_unfinished ON operations (deploy, id) WHERE ended IS NULL;
