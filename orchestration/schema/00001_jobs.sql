-- +goose Up
-- Tables with a body have row ids: without them a row is a key of its tree, and one
-- of more than a quarter of a page goes to a page of its own at each change.
CREATE TABLE job (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	run        TEXT    NOT NULL,
	pipeline   TEXT    NOT NULL,
	state      TEXT    NOT NULL,
	live       INTEGER NOT NULL, -- 1 until the job has ended
	created_ms INTEGER NOT NULL,
	due_ms     INTEGER NOT NULL, -- when the reconciler looks at a live job
	hash       BLOB    NOT NULL, -- of what was asked for
	body       BLOB    NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX job_by_time ON job (tenant, created_ms, id);
CREATE INDEX job_due     ON job (due_ms) WHERE live = 1;
CREATE INDEX job_live    ON job (tenant, created_ms, id) WHERE live = 1;
CREATE INDEX job_bad     ON job (tenant, created_ms, id) WHERE state IN ('FAILED', 'CANCELLED', 'TERMINATED');
CREATE INDEX job_by_run  ON job (run) WHERE run <> '';
CREATE INDEX job_by_pipeline ON job (pipeline, created_ms, id) WHERE pipeline <> '';

CREATE TABLE pipeline (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	version    INTEGER NOT NULL,
	latest     INTEGER NOT NULL, -- 1 for the version that runs
	name       TEXT    NOT NULL,
	owner      TEXT    NOT NULL,
	created_ms INTEGER NOT NULL,
	hash       BLOB    NOT NULL,
	spec       BLOB    NOT NULL,
	PRIMARY KEY (tenant, id, version)
);
CREATE INDEX pipeline_latest ON pipeline (tenant, id) WHERE latest = 1;

CREATE TABLE run (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	pipeline   TEXT    NOT NULL,
	state      TEXT    NOT NULL,
	created_ms INTEGER NOT NULL,
	hash       BLOB    NOT NULL,
	body       BLOB    NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX run_by_pipeline ON run (tenant, pipeline, created_ms, id);
