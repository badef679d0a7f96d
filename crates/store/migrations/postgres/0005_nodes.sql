-- Schema version 5: what a data plane runs as a revision, what of it it refused, and tokens by which
-- a new one is let in once.

ALTER TABLE node ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN refused TEXT COLLATE "C" NOT NULL DEFAULT '[]';
CREATE TABLE enrolment_token (
    id BYTEA PRIMARY KEY NOT NULL,
    cp BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    digest BYTEA NOT NULL UNIQUE,
    title TEXT COLLATE "C" NOT NULL,
    created_s BIGINT NOT NULL,
    expires_s BIGINT NOT NULL
);
CREATE INDEX enrolment_token_cp ON enrolment_token (cp);
