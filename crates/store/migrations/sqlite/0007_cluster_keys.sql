-- The keys that may give commands to every node of the cluster, and the key that a node is about to
-- use instead of its own.

CREATE TABLE cluster_cli_key (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    allowed_ms INTEGER NOT NULL
);
ALTER TABLE cluster_node ADD COLUMN next_key BLOB;
