-- What the run stage needs of a slug is under the slug's own id, in its manifest.
ALTER TABLE slugs DROP COLUMN runtime;
-- Outcomes are in the chain of the ledger: each has the hash of what was appended before it.
ALTER TABLE outcomes ADD COLUMN prev TEXT;
ALTER TABLE outcomes ADD COLUMN hash TEXT;
CREATE INDEX outcomes_by_prev ON outcomes (deploy, prev);
