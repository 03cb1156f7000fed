-- +goose Up

-- Jobs of runs that ask for a place only when those that they need have ended well:
-- until then this is all that can be said of why they wait.
CREATE TABLE needs (
	tenant   TEXT    NOT NULL,
	job      TEXT    NOT NULL,
	run      TEXT    NOT NULL,
	needs    TEXT    NOT NULL, -- JSON: the names of the jobs that are needed, and their ids
	run_over INTEGER NOT NULL DEFAULT 0,
	at_ms    INTEGER NOT NULL,
	PRIMARY KEY (tenant, job)
);
CREATE INDEX needs_run ON needs (tenant, run);
CREATE INDEX needs_age ON needs (at_ms);

-- +goose Down
DROP TABLE needs;
