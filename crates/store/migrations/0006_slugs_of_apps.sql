-- Apps have slugs of their own: two that come to the same files share none.
CREATE TABLE slugs_of_apps (
    app TEXT NOT NULL,
    id TEXT NOT NULL,
    commit_id TEXT,
    built BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    runtime TEXT NOT NULL,
    PRIMARY KEY (app, id)
);
INSERT INTO slugs_of_apps (app, id, commit_id, built, bytes, runtime)
    SELECT app, id, commit_id, built, bytes, runtime FROM slugs;
DROP TABLE slugs;
ALTER TABLE slugs_of_apps RENAME TO slugs;
