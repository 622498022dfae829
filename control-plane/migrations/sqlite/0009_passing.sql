-- Assignments that came to nothing by what passes, such as a service out of reach: they do not count as tries.
ALTER TABLE tasks ADD COLUMN passed BIGINT NOT NULL DEFAULT 0;
