-- +goose Up
-- Tables with a body have row ids: without them a row is a key of its tree, and one
-- of more than a quarter of a page goes to a page of its own at each change.
CREATE TABLE worker (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	job        TEXT    NOT NULL, -- '' for one made by POST /workers
	attempt    INTEGER NOT NULL,
	state      TEXT    NOT NULL,
	live       INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	due_ms     INTEGER NOT NULL,
	body       BLOB    NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX worker_live ON worker (due_ms) WHERE live = 1;
CREATE INDEX worker_of_job ON worker (job, attempt) WHERE job <> '';
CREATE INDEX worker_by_id ON worker (id, tenant) WHERE live = 1;
CREATE INDEX worker_by_time ON worker (tenant, created_ms, id);

-- Attempts that ended before they had a worker: none is made for them any more.
CREATE TABLE tombstone (
	tenant  TEXT    NOT NULL,
	job     TEXT    NOT NULL,
	attempt INTEGER NOT NULL,
	reason  TEXT    NOT NULL,
	at_ms   INTEGER NOT NULL,
	PRIMARY KEY (tenant, job, attempt)
) WITHOUT ROWID;
CREATE INDEX tombstone_by_time ON tombstone (at_ms);
