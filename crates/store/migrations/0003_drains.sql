-- Where the lines of a deploy's log go besides; each with its place in the log.
CREATE TABLE drains (
    id TEXT PRIMARY KEY,
    deploy TEXT NOT NULL REFERENCES deploys (id),
    sealed TEXT NOT NULL,
    created BIGINT NOT NULL,
    place TEXT NOT NULL,
    sent BIGINT NOT NULL,
    retried BIGINT NOT NULL,
    dropped BIGINT NOT NULL,
    error TEXT,
    error_at BIGINT
);
CREATE INDEX drains_of_deploy ON drains (deploy, id);
