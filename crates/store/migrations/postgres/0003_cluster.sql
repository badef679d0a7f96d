-- Schema version 3: the appliance cluster. Who belongs to it, what is wanted of each node, and the
-- lease of the one that leads. Keys are sealed with a secret that only nodes have.

CREATE TABLE cluster (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    id BYTEA NOT NULL,
    revision BIGINT NOT NULL,
    node_ca TEXT COLLATE "C" NOT NULL,
    node_ca_key BYTEA NOT NULL,
    api_ca TEXT COLLATE "C" NOT NULL,
    api_ca_key BYTEA NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE TABLE cluster_node (
    id BYTEA PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    wanted TEXT COLLATE "C" NOT NULL,
    wanted_at BIGINT NOT NULL,
    key_digest BYTEA NOT NULL,
    boot BYTEA,
    joined_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX cluster_node_name ON cluster_node (name) WHERE wanted <> 'removed';
CREATE TABLE cluster_token (
    digest BYTEA PRIMARY KEY,
    role TEXT COLLATE "C" NOT NULL,
    expires_us BIGINT NOT NULL,
    used_by BYTEA
);
CREATE TABLE cluster_lease (
    name TEXT COLLATE "C" PRIMARY KEY,
    holder BYTEA,
    boot BYTEA,
    epoch BIGINT NOT NULL,
    until_us BIGINT NOT NULL
);
CREATE TABLE cluster_term (
    epoch BIGINT PRIMARY KEY,
    holder BYTEA NOT NULL,
    boot BYTEA NOT NULL,
    since_us BIGINT NOT NULL
);
CREATE TABLE cluster_step (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch BIGINT NOT NULL,
    holder BYTEA NOT NULL,
    node BYTEA NOT NULL,
    wanted TEXT COLLATE "C" NOT NULL,
    wanted_at BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    at_us BIGINT NOT NULL
);
CREATE INDEX cluster_step_node ON cluster_step (node, seq);
