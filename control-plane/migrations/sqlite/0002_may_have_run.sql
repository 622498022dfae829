-- An earlier assignment of the task may have been carried out, though nobody could tell any more.
ALTER TABLE tasks ADD COLUMN may_have_run BOOLEAN NOT NULL DEFAULT FALSE;
