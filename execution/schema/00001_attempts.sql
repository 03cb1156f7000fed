-- +goose Up
-- Tables with a body have row ids: without them a row is a key of its tree, and one
-- of more than a quarter of a page goes to a page of its own at each change.
CREATE TABLE attempt (
	tenant  TEXT    NOT NULL,
	job     TEXT    NOT NULL,
	attempt INTEGER NOT NULL,
	live    INTEGER NOT NULL,
	body    BLOB    NOT NULL,
	PRIMARY KEY (tenant, job, attempt)
);
CREATE INDEX attempt_live ON attempt (job) WHERE live = 1;

CREATE TABLE exec (
	tenant  TEXT    NOT NULL,
	id      TEXT    NOT NULL,
	job     TEXT    NOT NULL,
	attempt INTEGER NOT NULL,
	step    TEXT    NOT NULL,
	state   TEXT    NOT NULL,
	body    BLOB    NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX exec_by_job ON exec (job, attempt);
CREATE INDEX exec_by_step ON exec (step) WHERE attempt = 0; -- of POST /exec, whose key is the step's id
CREATE INDEX exec_live ON exec (id) WHERE state = 'STARTED';

-- Workers without a job, for POST /exec.
CREATE TABLE lone_worker (
	tenant  TEXT NOT NULL,
	id      TEXT NOT NULL,
	address TEXT NOT NULL,
	PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
