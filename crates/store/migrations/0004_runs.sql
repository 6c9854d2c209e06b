-- One-off runs: who ran what, and how that ended. Values of variables are not here, their names are.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    deploy TEXT NOT NULL REFERENCES deploys (id),
    deploy_name TEXT NOT NULL,
    number BIGINT NOT NULL,
    release BIGINT NOT NULL,
    actor TEXT NOT NULL,
    argv TEXT NOT NULL,
    env TEXT NOT NULL,
    connection TEXT NOT NULL,
    state TEXT NOT NULL,
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    status BIGINT,
    note TEXT,
    recorded BIGINT
);
CREATE INDEX runs_of_deploy ON runs (deploy, id);
CREATE INDEX runs_under_way ON runs (id) WHERE ended IS NULL;
