-- Users have roles, scopes and several tokens each. Who was a user before stays one who may do everything, with the same
-- token. A token's id is the beginning of its hash: it can be told from the token, and tells nothing of it.

ALTER TABLE users RENAME TO users_before;

CREATE TABLE users (
    name        TEXT    NOT NULL PRIMARY KEY,
    role        INTEGER NOT NULL,
    scope       TEXT    NOT NULL,
    description TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL,
    disabled_at BIGINT
);
INSERT INTO users (name, role, scope, description, created_at)
    SELECT name, 3, '', '', created_at FROM users_before;

CREATE TABLE user_tokens (
    token_id     TEXT   NOT NULL PRIMARY KEY,
    user_name    TEXT   NOT NULL REFERENCES users (name),
    -- SHA-256 of the token's text.
    token_hash   BLOB   NOT NULL,
    description  TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,
    revoked_at   BIGINT
);
CREATE INDEX user_tokens_by_user ON user_tokens (user_name, token_id);
INSERT INTO user_tokens (token_id, user_name, token_hash, description, created_at)
    SELECT lower(hex(substr(token_hash, 1, 8))), name, token_hash, 'from the first start', created_at FROM users_before;
DROP TABLE users_before;

-- Tasks of before are seen by users without a scope only.
ALTER TABLE tasks ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN scope TEXT NOT NULL DEFAULT '';

-- SHA-256 of the certificate's SubjectPublicKeyInfo, and the join token that it was got with.
ALTER TABLE certificates ADD COLUMN key_hash BLOB;
ALTER TABLE certificates ADD COLUMN join_token_id TEXT;

-- One line of JSON per entry, as it is exported; each holds the SHA-256 of the line before.
CREATE TABLE audit (
    seq  INTEGER NOT NULL PRIMARY KEY,
    at   BIGINT  NOT NULL,
    line TEXT    NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- INSERT OR REPLACE deletes without asking the trigger above.
CREATE TRIGGER audit_grows_at_its_end BEFORE INSERT ON audit
    WHEN NEW.seq <> COALESCE((SELECT MAX(seq) FROM audit), 0) + 1
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
