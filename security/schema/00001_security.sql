-- +goose Up

-- What was decided, by whom it was asked, and about what. The key sorts by time
-- within a tenant: rows are added at the end, and read from there.
CREATE TABLE audit (
	tenant      TEXT    NOT NULL,
	decision    TEXT    NOT NULL, -- its id
	kind        INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 3), -- 1 permit, 2 deny, 3 revoke
	at_us       INTEGER NOT NULL,
	principal   TEXT    NOT NULL,
	action      TEXT    NOT NULL,
	resource    TEXT    NOT NULL,
	why         TEXT    NOT NULL, -- the policies of a permit, the reason of a denial
	correlation TEXT    NOT NULL,
	PRIMARY KEY (tenant, decision, kind)
) WITHOUT ROWID;

-- Secrets, each sealed with a key of its own, which the vault's key seals.
CREATE TABLE secret (
	tenant     TEXT    NOT NULL,
	name       TEXT    NOT NULL,
	sealed     BLOB    NOT NULL,
	created_ms INTEGER NOT NULL,
	updated_ms INTEGER NOT NULL,
	PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- Tokens that were made: never the token itself.
CREATE TABLE token (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	sub        TEXT    NOT NULL,
	maker      TEXT    NOT NULL,
	scopes     TEXT    NOT NULL, -- separated by spaces
	created_ms INTEGER NOT NULL,
	expires_ms INTEGER NOT NULL,
	revoked_ms INTEGER NOT NULL DEFAULT 0, -- 0: it is not
	PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX token_revoked ON token (revoked_ms) WHERE revoked_ms > 0;

-- The names under which tokens were made with this key: they stay good when the
-- server moves to another address.
CREATE TABLE issuer (
	url      TEXT    PRIMARY KEY,
	since_ms INTEGER NOT NULL
);
