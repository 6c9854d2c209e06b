-- How much of the machine each process type may take: what was asked for. Of a release it never
-- changes; of a deploy it is what the operator wants of the next one.
ALTER TABLE releases ADD COLUMN sizes TEXT NOT NULL DEFAULT '{}';
ALTER TABLE deploys ADD COLUMN sizes TEXT NOT NULL DEFAULT '{}';
