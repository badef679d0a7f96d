-- Schema version 6: the published list of addresses. What each node and process contributes, every
-- version that was published, what is announced, and the key by which all of them sign. The key is
-- sealed with a secret that only nodes have, or not here at all.

CREATE TABLE ip_addresses (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    revision BIGINT NOT NULL,
    announced TEXT COLLATE "C" NOT NULL
);
CREATE TABLE ip_addresses_source (
    origin TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    body TEXT COLLATE "C" NOT NULL
);
CREATE TABLE ip_addresses_version (
    seq BIGINT PRIMARY KEY NOT NULL,
    body TEXT COLLATE "C" NOT NULL
);
CREATE TABLE ip_addresses_key (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    public_key TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL
);
