-- +goose Up
-- A worker that lives is found by its name alone only when it died: among the few
-- that live, by worker_live.
DROP INDEX worker_by_id;
