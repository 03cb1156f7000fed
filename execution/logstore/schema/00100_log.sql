-- +goose Up
CREATE TABLE log (
	tenant TEXT    NOT NULL,
	exec   TEXT    NOT NULL,
	lines  INTEGER NOT NULL,
	bytes  INTEGER NOT NULL, -- of text
	inline BLOB,             -- the frames of a short log, compressed; NULL for one in a file
	PRIMARY KEY (tenant, exec)
);
