-- Schema version 5: what a data plane runs as a revision, what of it it refused, and tokens by which
-- a new one is let in once.

ALTER TABLE node ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN refused TEXT NOT NULL DEFAULT '[]';
CREATE TABLE enrolment_token (
    id BLOB PRIMARY KEY NOT NULL,
    cp INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE,
    title TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    expires_s INTEGER NOT NULL
);
CREATE INDEX enrolment_token_cp ON enrolment_token (cp);
