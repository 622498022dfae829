-- W3C traceparent of the submission; NULL when nothing was traced.
ALTER TABLE tasks ADD COLUMN traceparent TEXT;
