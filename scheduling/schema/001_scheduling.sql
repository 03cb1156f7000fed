-- +goose Up

-- What jobs can be given to. What is taken of a node is the sum of its live
-- assignments, and is stored nowhere else.
CREATE TABLE nodes (
	id        TEXT    NOT NULL PRIMARY KEY,
	provider  TEXT    NOT NULL,
	zone      TEXT    NOT NULL,
	pool      TEXT    NOT NULL,
	labels    TEXT    NOT NULL, -- JSON object
	cpu_m     INTEGER NOT NULL CHECK (cpu_m >= 0),
	memory_mb INTEGER NOT NULL CHECK (memory_mb >= 0),
	gpu       INTEGER NOT NULL CHECK (gpu >= 0),
	io        INTEGER NOT NULL CHECK (io >= 0),
	offer     TEXT    NOT NULL, -- another one when the capacity changes
	retired   INTEGER NOT NULL CHECK (retired IN (0, 1))
);

-- One row an attempt, from the moment it asks for a place. The queue is what is
-- PENDING or REJECTED and has not ended; the live assignments are what has a node
-- and has not ended. A row ends when its attempt leaves the queue unplaced, or
-- when the worker that was made for it has ended.
CREATE TABLE assignments (
	tenant    TEXT    NOT NULL,
	job       TEXT    NOT NULL,
	attempt   INTEGER NOT NULL CHECK (attempt >= 0), -- 0: asked for by POST /schedule
	id        TEXT    NOT NULL,
	state     TEXT    NOT NULL CHECK (state IN ('PENDING', 'CREATED', 'REJECTED', 'REVOKED')),
	priority  INTEGER NOT NULL,
	since_ns  INTEGER NOT NULL,
	seq       INTEGER NOT NULL,
	cpu_m     INTEGER NOT NULL CHECK (cpu_m >= 0),
	memory_mb INTEGER NOT NULL CHECK (memory_mb >= 0),
	gpu       INTEGER NOT NULL CHECK (gpu >= 0),
	io        INTEGER NOT NULL CHECK (io >= 0),
	body      TEXT    NOT NULL, -- JSON: what the worker is to be like, and whose trace this is
	node      TEXT    NOT NULL,
	offer     TEXT    NOT NULL,
	provider  TEXT    NOT NULL,
	reason    TEXT    NOT NULL,
	rejected  INTEGER NOT NULL CHECK (rejected IN (0, 1)), -- AssignmentRejected has been said
	started   INTEGER NOT NULL CHECK (started IN (0, 1)),  -- a worker is known to have been made
	round     INTEGER NOT NULL,                            -- how often it was said again
	placed_ms INTEGER NOT NULL,
	said_ms   INTEGER NOT NULL,
	ended_ms  INTEGER,
	PRIMARY KEY (tenant, job, attempt),
	CHECK (state <> 'CREATED' OR node <> '')
);

-- Two indexes that share the rows between them: what lives stays small whatever
-- has ended, and what has ended can be let go of by age.
CREATE INDEX assignments_live ON assignments (seq) WHERE ended_ms IS NULL;
CREATE INDEX assignments_ended ON assignments (ended_ms) WHERE ended_ms IS NOT NULL;
