-- Schema version 3: the appliance cluster. Who belongs to it, what is wanted of each node, and the
-- lease of the one that leads. Keys are sealed with a secret that only nodes have.

CREATE TABLE cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id BLOB NOT NULL,
    revision INTEGER NOT NULL,
    node_ca TEXT NOT NULL,
    node_ca_key BLOB NOT NULL,
    api_ca TEXT NOT NULL,
    api_ca_key BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE TABLE cluster_node (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    address TEXT NOT NULL,
    wanted TEXT NOT NULL,
    wanted_at INTEGER NOT NULL,
    key_digest BLOB NOT NULL,
    boot BLOB,
    joined_ms INTEGER NOT NULL
);
CREATE UNIQUE INDEX cluster_node_name ON cluster_node (name) WHERE wanted <> 'removed';
CREATE TABLE cluster_token (
    digest BLOB PRIMARY KEY,
    role TEXT NOT NULL,
    expires_us INTEGER NOT NULL,
    used_by BLOB
);
CREATE TABLE cluster_lease (
    name TEXT PRIMARY KEY,
    holder BLOB,
    boot BLOB,
    epoch INTEGER NOT NULL,
    until_us INTEGER NOT NULL
);
CREATE TABLE cluster_term (
    epoch INTEGER PRIMARY KEY,
    holder BLOB NOT NULL,
    boot BLOB NOT NULL,
    since_us INTEGER NOT NULL
);
CREATE TABLE cluster_step (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    holder BLOB NOT NULL,
    node BLOB NOT NULL,
    wanted TEXT NOT NULL,
    wanted_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    at_us INTEGER NOT NULL
);
CREATE INDEX cluster_step_node ON cluster_step (node, seq);
