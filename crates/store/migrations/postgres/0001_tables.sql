-- Schema version 1. The rules that keep it one design on both engines: only integers, text and bytes;
-- times are integers that the program makes; JSON bodies are opaque to SQL; every column that is
-- filtered or sorted by stands on its own.

CREATE TABLE control_plane (
    cp BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    prefix TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    cluster_type TEXT COLLATE "C" NOT NULL,
    auth_type TEXT COLLATE "C" NOT NULL,
    cloud_gateway BIGINT NOT NULL,
    proxy_urls TEXT COLLATE "C" NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);
CREATE TABLE cp_head (
    cp BIGINT PRIMARY KEY REFERENCES control_plane(cp) ON DELETE CASCADE,
    revision BIGINT NOT NULL,
    trust BIGINT NOT NULL
);
CREATE TABLE entity (
    eid BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cp BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    kind TEXT COLLATE "C" NOT NULL,
    id BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    UNIQUE (cp, kind, id)
);
CREATE INDEX entity_order ON entity (cp, kind, created_us, id);
CREATE TABLE entity_unique (
    cp BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    field TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    eid BIGINT NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    PRIMARY KEY (cp, kind, field, value)
);
CREATE INDEX entity_unique_eid ON entity_unique (eid);
CREATE TABLE entity_ref (
    from_eid BIGINT NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    field TEXT COLLATE "C" NOT NULL,
    to_eid BIGINT NOT NULL REFERENCES entity(eid),
    cascades BIGINT NOT NULL,
    PRIMARY KEY (from_eid, field, to_eid)
);
CREATE INDEX entity_ref_to ON entity_ref (to_eid, field);
CREATE TABLE entity_tag (
    eid BIGINT NOT NULL REFERENCES entity(eid) ON DELETE CASCADE,
    tag TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (eid, tag)
);
CREATE TABLE change_log (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cp BYTEA,
    revision BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    before TEXT COLLATE "C",
    after TEXT COLLATE "C"
);
CREATE INDEX change_log_cp ON change_log (cp, revision);
CREATE TABLE dp_certificate (
    cp BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    digest BYTEA NOT NULL,
    id BYTEA NOT NULL UNIQUE,
    pem TEXT COLLATE "C" NOT NULL,
    title TEXT COLLATE "C" NOT NULL,
    created_s BIGINT NOT NULL,
    updated_s BIGINT NOT NULL,
    PRIMARY KEY (cp, digest)
);
CREATE INDEX dp_certificate_digest ON dp_certificate (digest);
CREATE TABLE node (
    cp BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    id BYTEA NOT NULL,
    hostname TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    ip TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    first_seen_s BIGINT NOT NULL,
    last_seen_s BIGINT NOT NULL,
    config_hash TEXT COLLATE "C" NOT NULL,
    sync_status TEXT COLLATE "C" NOT NULL,
    sync_detail TEXT COLLATE "C" NOT NULL,
    cert_expires_s BIGINT NOT NULL,
    PRIMARY KEY (cp, id)
);
CREATE TABLE person (
    id BYTEA PRIMARY KEY NOT NULL,
    email TEXT COLLATE "C" NOT NULL UNIQUE,
    full_name TEXT COLLATE "C" NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);
CREATE TABLE organization (
    id BYTEA PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    owner BYTEA NOT NULL REFERENCES person(id),
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);
CREATE TABLE access_token (
    id BYTEA PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    digest BYTEA NOT NULL UNIQUE,
    person BYTEA NOT NULL REFERENCES person(id) ON DELETE CASCADE,
    created_ms BIGINT NOT NULL
);
