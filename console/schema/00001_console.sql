-- +goose Up

-- One row a job, as it was last heard of. progress orders what is said of a job,
-- so that late and repeated events change nothing; class sorts jobs that live (0),
-- succeeded (1) and ended otherwise (2).
CREATE TABLE job (
	tenant      TEXT    NOT NULL CHECK (tenant <> ''),
	id          TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	pipeline    TEXT    NOT NULL,
	run         TEXT    NOT NULL,
	state       TEXT    NOT NULL CHECK (state IN ('PENDING', 'SCHEDULED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TERMINATED')),
	class       INTEGER NOT NULL CHECK (class IN (0, 1, 2)),
	attempt     INTEGER NOT NULL,
	progress    INTEGER NOT NULL,
	created_ns  INTEGER NOT NULL,
	started_ns  INTEGER NOT NULL, -- 0: not yet
	finished_ns INTEGER NOT NULL, -- 0: not yet
	node        TEXT    NOT NULL,
	worker      TEXT    NOT NULL,
	step        INTEGER NOT NULL, -- index of the step that runs, or ran last; -1: none yet
	steps       TEXT    NOT NULL, -- JSON list of the steps' names
	failure     TEXT    NOT NULL, -- JSON, or ''
	PRIMARY KEY (tenant, id)
);
CREATE INDEX job_created ON job (tenant, created_ns, id);
CREATE INDEX job_live ON job (tenant, created_ns, id) WHERE class = 0;
CREATE INDEX job_bad ON job (tenant, created_ns, id) WHERE class = 2;
CREATE INDEX job_pipeline ON job (tenant, pipeline, created_ns, id) WHERE pipeline <> '';
CREATE INDEX job_run ON job (tenant, run, created_ns, id) WHERE run <> '';
