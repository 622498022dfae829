-- Secrets, their versions and the secret managers that keep them. A deleted one keeps its row without what it held, so that its version
-- never goes back.

CREATE TABLE secret_managers (
    identifier TEXT   NOT NULL PRIMARY KEY,
    scope      TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    -- SecretManager, without what stands in the other columns.
    manager    BLOB   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE TABLE secrets (
    identifier  TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    -- JSON: an object of texts.
    tags        TEXT    NOT NULL,
    scope       TEXT    NOT NULL,
    -- 1 text, 2 a file.
    kind        INTEGER NOT NULL,
    -- Of the newest version.
    manager     TEXT    NOT NULL,
    version     BIGINT  NOT NULL,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL,
    deleted_at  BIGINT
);
CREATE INDEX secrets_by_manager ON secrets (manager) WHERE deleted_at IS NULL;

-- Where the value of one version is. In the built-in store: wrapped_key (the data key under a master key) and ciphertext (the value
-- under the data key), each behind its nonce. On agents: source. In AWS KMS: record, a KmsRecord.
CREATE TABLE secret_versions (
    identifier  TEXT   NOT NULL REFERENCES secrets (identifier),
    version     BIGINT NOT NULL,
    manager     TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    created_by  TEXT   NOT NULL,
    -- Id of the master key. Empty where none has to do with it.
    key_id      TEXT   NOT NULL,
    wrapped_key BLOB,
    ciphertext  BLOB,
    source      TEXT,
    record      BLOB,
    PRIMARY KEY (identifier, version)
);
CREATE INDEX secret_versions_by_key ON secret_versions (key_id, identifier, version) WHERE key_id <> '';

-- Identifier of the secret that proves who the user is, in place of one of the credential's own; empty: none.
ALTER TABLE credentials ADD COLUMN secret TEXT NOT NULL DEFAULT '';
CREATE INDEX credentials_by_secret ON credentials (secret) WHERE secret <> '';

-- Secrets of the shell's variables that were handed over, and their versions: [["identifier", version], ...]. An agent that restarts
-- needs the same ones to mask what the command prints.
ALTER TABLE assignments ADD COLUMN shell_secrets TEXT NOT NULL DEFAULT '[]';

-- Master keys that were in use. What tasks hold stays under the key that they were written with, which is needed as long as a task is
-- kept that was submitted before the key was replaced.
CREATE TABLE master_keys (
    key_id      TEXT   NOT NULL PRIMARY KEY,
    first_used  BIGINT NOT NULL,
    -- The newest task when another key took its place.
    last_task   BIGINT,
    replaced_at BIGINT
);
