-- Schema version 1. The rules that keep it one design on both engines: only integers, text and bytes;
-- times are integers that the program makes; JSON bodies are opaque to SQL; every column that is
-- filtered or sorted by stands on its own.

CREATE TABLE control_plane (
    cp INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    labels TEXT NOT NULL,
    cluster_type TEXT NOT NULL,
    auth_type TEXT NOT NULL,
    cloud_gateway INTEGER NOT NULL,
    proxy_urls TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE TABLE cp_head (
    cp INTEGER PRIMARY KEY REFERENCES control_plane(cp) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    trust INTEGER NOT NULL
);
CREATE TABLE entity (
    eid INTEGER PRIMARY KEY AUTOINCREMENT,
    cp INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    id BLOB NOT NULL,
    created_us INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (cp, kind, id)
);
CREATE INDEX entity_order ON entity (cp, kind, created_us, id);
CREATE TABLE entity_unique (
    cp INTEGER NOT NULL,
    kind TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    eid INTEGER NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    PRIMARY KEY (cp, kind, field, value)
);
CREATE INDEX entity_unique_eid ON entity_unique (eid);
CREATE TABLE entity_ref (
    from_eid INTEGER NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    field TEXT NOT NULL,
    to_eid INTEGER NOT NULL REFERENCES entity(eid),
    cascades INTEGER NOT NULL,
    PRIMARY KEY (from_eid, field, to_eid)
);
CREATE INDEX entity_ref_to ON entity_ref (to_eid, field);
CREATE TABLE entity_tag (
    eid INTEGER NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (eid, tag)
);
CREATE TABLE change_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    cp BLOB,
    revision INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    operation TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    before TEXT,
    after TEXT
);
CREATE INDEX change_log_cp ON change_log (cp, revision);
CREATE TABLE dp_certificate (
    cp INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    digest BLOB NOT NULL,
    id BLOB NOT NULL UNIQUE,
    pem TEXT NOT NULL,
    title TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    updated_s INTEGER NOT NULL,
    PRIMARY KEY (cp, digest)
);
CREATE INDEX dp_certificate_digest ON dp_certificate (digest);
CREATE TABLE node (
    cp INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    id BLOB NOT NULL,
    hostname TEXT NOT NULL,
    version TEXT NOT NULL,
    ip TEXT NOT NULL,
    labels TEXT NOT NULL,
    first_seen_s INTEGER NOT NULL,
    last_seen_s INTEGER NOT NULL,
    config_hash TEXT NOT NULL,
    sync_status TEXT NOT NULL,
    sync_detail TEXT NOT NULL,
    cert_expires_s INTEGER NOT NULL,
    PRIMARY KEY (cp, id)
);
CREATE TABLE person (
    id BLOB PRIMARY KEY NOT NULL,
    email TEXT NOT NULL UNIQUE,
    full_name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE TABLE organization (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    owner BLOB NOT NULL REFERENCES person(id),
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE TABLE access_token (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE,
    person BLOB NOT NULL REFERENCES person(id) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL
);
