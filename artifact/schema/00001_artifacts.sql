-- +goose Up
CREATE TABLE artifact (
	tenant     TEXT    NOT NULL,
	repository TEXT    NOT NULL,
	name       TEXT    NOT NULL,
	version    TEXT    NOT NULL,
	sum        TEXT    NOT NULL, -- SHA-256 of the content
	body       BLOB    NOT NULL,
	PRIMARY KEY (tenant, repository, name, version)
);
CREATE INDEX artifact_by_sum ON artifact (sum);
