-- Batches, their counts (a message of lictor.v1) and why they were stopped. A batch is stored with all of its tasks in
-- one transaction.
CREATE TABLE batches (
    seq                  INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    batch_id             TEXT    NOT NULL UNIQUE,
    submitted_by         TEXT    NOT NULL,
    idempotency_key      TEXT,
    label                TEXT    NOT NULL,
    credential           TEXT    NOT NULL,
    scope                TEXT    NOT NULL,
    concurrency          BIGINT  NOT NULL,
    max_failures         BIGINT,
    max_failures_percent BIGINT,
    retries              BIGINT  NOT NULL,
    submitted_at         BIGINT  NOT NULL,
    finished_at          BIGINT,
    stop_code            TEXT,
    stop_message         TEXT,
    stopped_at           BIGINT,
    progress             BLOB    NOT NULL
);
CREATE UNIQUE INDEX batches_by_idempotency_key ON batches (submitted_by, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

ALTER TABLE tasks ADD COLUMN batch_id TEXT;
-- Which end of its batch this was, from 1: what a watcher of the batch has seen.
ALTER TABLE tasks ADD COLUMN batch_ended BIGINT;
-- Tries that are left after the present one, and when the next one is due.
ALTER TABLE tasks ADD COLUMN retries_left BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN retry_at BIGINT;
-- How the try before ended: what the task comes to when there is no other.
ALTER TABLE tasks ADD COLUMN last_result BLOB;
CREATE INDEX tasks_by_batch ON tasks (batch_id, seq) WHERE batch_id IS NOT NULL;
CREATE INDEX tasks_by_batch_end ON tasks (batch_id, batch_ended) WHERE batch_ended IS NOT NULL;
