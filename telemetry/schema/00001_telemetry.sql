-- +goose Up

-- Spans, a row for what came together of one trace and one job. Whole chunks are
-- cheaper than rows of spans, which nobody asks for one by one.
CREATE TABLE chunk (
	seq    INTEGER NOT NULL PRIMARY KEY,
	tenant TEXT    NOT NULL CHECK (tenant <> ''),
	trace  TEXT    NOT NULL,
	job    TEXT    NOT NULL, -- '' for spans of no job
	at_ms  INTEGER NOT NULL, -- when they were kept
	n      INTEGER NOT NULL CHECK (n > 0),
	body   BLOB    NOT NULL  -- JSON list of spans
);
CREATE INDEX chunk_trace ON chunk (tenant, trace);
CREATE INDEX chunk_job ON chunk (tenant, job) WHERE job <> '';

-- What lives now, for the gauges: jobs that have not ended, and workers.
CREATE TABLE live (
	kind   TEXT    NOT NULL CHECK (kind IN ('job', 'worker')),
	tenant TEXT    NOT NULL,
	id     TEXT    NOT NULL,
	body   TEXT    NOT NULL, -- JSON
	PRIMARY KEY (kind, tenant, id)
) WITHOUT ROWID;
