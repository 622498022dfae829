-- True: spec, result and the task's late results are encrypted. Rows of earlier versions are encrypted at the next start.
ALTER TABLE tasks ADD COLUMN sealed BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX tasks_in_clear ON tasks (seq) WHERE NOT sealed;
-- True: data is encrypted.
ALTER TABLE output ADD COLUMN sealed BOOLEAN NOT NULL DEFAULT FALSE;

-- Bytes at the beginning of the task's output that are no longer kept, and since when.
ALTER TABLE tasks ADD COLUMN output_removed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN output_removed_at BIGINT;
CREATE INDEX tasks_by_finish ON tasks (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_with_output ON tasks (finished_at) WHERE finished_at IS NOT NULL AND output_removed < output_bytes;

-- One row: how far the calendar had come when it was written, jumps of the clock left out.
CREATE TABLE housekeeping (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    calendar BIGINT  NOT NULL,
    -- Written and given up again, to find out whether there is room.
    ballast  BLOB
);
