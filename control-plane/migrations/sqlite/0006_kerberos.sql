-- What the credential has to prove who its user is: 1 a password, 2 a keytab, 3 a keytab on the agent, 4 a cache on the agent.
ALTER TABLE credentials ADD COLUMN secret_kind BIGINT NOT NULL DEFAULT 1;
-- Where it is on the agent; empty: the agent's own choice.
ALTER TABLE credentials ADD COLUMN agent_path TEXT NOT NULL DEFAULT '';
