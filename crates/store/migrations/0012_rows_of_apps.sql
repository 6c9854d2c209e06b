-- The rows of apps and deploys are authenticated as well. A deploy's row has a version, which grows with
-- each change: an earlier row that is put back has a lower one than the state folder knows.
ALTER TABLE apps ADD COLUMN mac TEXT;
ALTER TABLE deploys ADD COLUMN mac TEXT;
ALTER TABLE deploys ADD COLUMN row_version BIGINT NOT NULL DEFAULT 0;
