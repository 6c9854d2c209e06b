-- Runs of schedules, and ticks that were left out. A tick is recorded before it is fired, and only
-- once; a run that somebody asked for has no tick.
CREATE TABLE cron_runs (
    id TEXT PRIMARY KEY,
    deploy TEXT NOT NULL REFERENCES deploys (id),
    name TEXT NOT NULL,
    tick BIGINT,
    actor TEXT,
    release BIGINT NOT NULL,
    command TEXT NOT NULL,
    outcome TEXT NOT NULL,
    created BIGINT NOT NULL,
    ended BIGINT,
    status BIGINT,
    error TEXT,
    UNIQUE (deploy, name, tick)
);
CREATE INDEX cron_runs_of_schedule ON cron_runs (deploy, name, id);
