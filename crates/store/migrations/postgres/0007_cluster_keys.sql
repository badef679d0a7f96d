-- The keys that may give commands to every node of the cluster, and the key that a node is about to
-- use instead of its own.

CREATE TABLE cluster_cli_key (
    name TEXT COLLATE "C" PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    allowed_ms BIGINT NOT NULL
);
ALTER TABLE cluster_node ADD COLUMN next_key BYTEA;
