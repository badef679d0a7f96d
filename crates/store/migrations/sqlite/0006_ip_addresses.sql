-- Schema version 6: the published list of addresses. What each node and process contributes, every
-- version that was published, what is announced, and the key by which all of them sign. The key is
-- sealed with a secret that only nodes have, or not here at all.

CREATE TABLE ip_addresses (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    announced TEXT NOT NULL
);
CREATE TABLE ip_addresses_source (
    origin TEXT PRIMARY KEY NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE ip_addresses_version (
    seq INTEGER PRIMARY KEY NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE ip_addresses_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    public_key TEXT NOT NULL,
    sealed BLOB NOT NULL
);
