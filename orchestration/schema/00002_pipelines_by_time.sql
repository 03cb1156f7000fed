-- +goose Up
CREATE INDEX pipeline_by_time ON pipeline (tenant, created_ms, id) WHERE latest = 1;
