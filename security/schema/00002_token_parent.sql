-- +goose Up

-- The id of the token that another was made with: revoking that revokes this.
ALTER TABLE token ADD COLUMN parent TEXT NOT NULL DEFAULT '';

-- Of those that are there, their maker tells it: the youngest of its tokens that was
-- there before.
CREATE INDEX token_sub ON token (sub, created_ms);
UPDATE token SET parent = COALESCE((SELECT p.id FROM token AS p
	WHERE p.sub = token.maker AND p.created_ms <= token.created_ms ORDER BY p.created_ms DESC LIMIT 1), '')
WHERE sub <> maker;
DROP INDEX token_sub;
CREATE INDEX token_parent ON token (parent) WHERE parent <> '';
