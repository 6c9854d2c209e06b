-- Only TEXT and BIGINT, so that one text serves SQLite and PostgreSQL. Times are microseconds
-- since 1970, UTC.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    roots TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE deploys (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id),
    app_name TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL UNIQUE,
    branch TEXT,
    created BIGINT NOT NULL,
    config_version BIGINT NOT NULL,
    current_release BIGINT,
    formation TEXT NOT NULL,
    stopped BIGINT NOT NULL,
    UNIQUE (app_name, name)
);
CREATE INDEX deploys_of_app ON deploys (app, name);
CREATE TABLE configs (
    deploy TEXT NOT NULL REFERENCES deploys (id),
    version BIGINT NOT NULL,
    sealed TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (deploy, version)
);
CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    deploy TEXT NOT NULL REFERENCES deploys (id),
    deploy_name TEXT NOT NULL,
    request TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    slug TEXT,
    release BIGINT,
    error TEXT
);
CREATE INDEX operations_of_deploy ON operations (deploy, id);
CREATE INDEX operations_unfinished ON operations (id) WHERE ended IS NULL;
CREATE TABLE slugs (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    commit_id TEXT,
    built BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    runtime TEXT NOT NULL
);
-- The ledger: rows are only ever added.
CREATE TABLE releases (
    deploy TEXT NOT NULL REFERENCES deploys (id),
    number BIGINT NOT NULL,
    operation TEXT NOT NULL UNIQUE,
    slug TEXT NOT NULL,
    commit_id TEXT,
    config_version BIGINT NOT NULL,
    config_digest TEXT NOT NULL,
    process_types TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created BIGINT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (deploy, number)
);
-- How releases turned out: said once each.
CREATE TABLE outcomes (
    deploy TEXT NOT NULL REFERENCES deploys (id),
    number BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    ended BIGINT NOT NULL,
    PRIMARY KEY (deploy, number)
);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    app TEXT,
    created BIGINT NOT NULL,
    expires BIGINT
);
CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    app TEXT,
    deploy TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX audit_of_app ON audit (app, id);
CREATE TABLE idempotency (
    token TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created BIGINT NOT NULL,
    status BIGINT,
    body TEXT,
    PRIMARY KEY (token, idempotency_key)
);
