-- Times are milliseconds since 1970-01-01 UTC. Blobs named spec, result, candidates, handed_back and connection hold
-- messages of lictor.v1.

CREATE TABLE users (
    name       TEXT   NOT NULL PRIMARY KEY,
    token_hash BLOB   NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE join_tokens (
    token_id    TEXT   NOT NULL PRIMARY KEY,
    secret_hash BLOB   NOT NULL,
    scope       TEXT   NOT NULL,
    tags        TEXT   NOT NULL,
    max_uses    BIGINT NOT NULL,
    uses        BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    revoked_at  BIGINT,
    description TEXT   NOT NULL
);

CREATE TABLE agents (
    agent_id              TEXT   NOT NULL PRIMARY KEY,
    name                  TEXT   NOT NULL UNIQUE,
    own_tags              TEXT   NOT NULL,
    token_tags            TEXT   NOT NULL,
    scope                 TEXT   NOT NULL,
    version               TEXT   NOT NULL,
    description           TEXT   NOT NULL,
    sealing_key           BLOB   NOT NULL,
    slots                 BIGINT NOT NULL,
    capabilities          TEXT   NOT NULL,
    enrolled_at           BIGINT NOT NULL,
    last_seen_at          BIGINT,
    certificate_not_after BIGINT NOT NULL,
    drain_reason          TEXT,
    revoked_at            BIGINT,
    revoke_reason         TEXT,
    -- True after a new enrolment, until the next Hello: the journal of its assignments is gone.
    journal_lost          BOOLEAN NOT NULL,
    -- Of the last Hello; a drain ends with the process it was asked of.
    instance_id           TEXT   NOT NULL
);

CREATE TABLE certificates (
    serial     TEXT   NOT NULL PRIMARY KEY,
    agent_id   TEXT   NOT NULL REFERENCES agents (agent_id),
    issued_at  BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX certificates_by_agent ON certificates (agent_id);

-- A deleted credential keeps its row, without its secret, so that its version never goes back.
CREATE TABLE credentials (
    name        TEXT    NOT NULL PRIMARY KEY,
    username    TEXT    NOT NULL,
    domain      TEXT    NOT NULL,
    connection  BLOB    NOT NULL,
    no_profile  BOOLEAN NOT NULL,
    description TEXT    NOT NULL,
    version     BIGINT  NOT NULL,
    key_id      TEXT    NOT NULL,
    nonce       BLOB    NOT NULL,
    ciphertext  BLOB    NOT NULL,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL,
    rejected_at BIGINT,
    deleted_at  BIGINT
);

CREATE TABLE tasks (
    seq                INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id            TEXT    NOT NULL UNIQUE,
    spec               BLOB    NOT NULL,
    submitted_by       TEXT    NOT NULL,
    idempotency_key    TEXT,
    state              INTEGER NOT NULL,
    epoch              BIGINT  NOT NULL,
    agent_id           TEXT,
    accepted           BOOLEAN NOT NULL,
    started            BOOLEAN NOT NULL,
    credential_version BIGINT  NOT NULL,
    submitted_at       BIGINT  NOT NULL,
    queued_at          BIGINT  NOT NULL,
    assigned_at        BIGINT,
    started_at         BIGINT,
    finished_at        BIGINT,
    cancel_reason      TEXT,
    output_bytes       BIGINT  NOT NULL,
    output_base        BIGINT  NOT NULL,
    handed_back        BLOB,
    candidates         BLOB,
    result             BLOB
);
CREATE UNIQUE INDEX tasks_by_idempotency_key ON tasks (submitted_by, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_by_state ON tasks (state, seq);

CREATE TABLE assignments (
    task_id            TEXT    NOT NULL,
    epoch              BIGINT  NOT NULL,
    agent_id           TEXT    NOT NULL,
    credential_version BIGINT  NOT NULL,
    assigned_at        BIGINT  NOT NULL,
    result_stored      BOOLEAN NOT NULL,
    PRIMARY KEY (task_id, epoch)
);

-- Results that came after the task was final or given to another agent: evidence, not outcome.
CREATE TABLE late_results (
    task_id     TEXT   NOT NULL,
    epoch       BIGINT NOT NULL,
    agent_id    TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    result      BLOB   NOT NULL,
    PRIMARY KEY (task_id, epoch)
);

CREATE TABLE output (
    task_seq BIGINT  NOT NULL,
    start    BIGINT  NOT NULL,
    stream   INTEGER NOT NULL,
    data     BLOB    NOT NULL,
    PRIMARY KEY (task_seq, start)
);
