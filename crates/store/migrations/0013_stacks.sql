-- The version of a stack that a deploy's builds use: set by an operator; NULL where app.json and the
-- platform's setting choose.
ALTER TABLE deploys ADD COLUMN stack TEXT;
