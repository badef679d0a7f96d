-- Schema version 4: people beside the owner, teams, system accounts, roles, tokens that end, settings;
-- drafts of control planes, and groups.

ALTER TABLE person ADD COLUMN preferred_name TEXT;
ALTER TABLE person ADD COLUMN active INTEGER NOT NULL DEFAULT 1;
CREATE TABLE system_account (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE TABLE team (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    labels TEXT NOT NULL,
    predefined INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
-- A member is a person or a system account.
CREATE TABLE team_member (
    team BLOB NOT NULL REFERENCES team(id) ON DELETE CASCADE,
    member BLOB NOT NULL,
    PRIMARY KEY (team, member)
);
CREATE INDEX team_member_member ON team_member (member);
-- A holder is a person, a team or a system account.
CREATE TABLE assigned_role (
    id BLOB PRIMARY KEY NOT NULL,
    holder BLOB NOT NULL,
    role TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity TEXT NOT NULL,
    region TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (holder, role, entity_type, entity, region)
);
ALTER TABLE access_token RENAME TO access_token_before;
CREATE TABLE access_token (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    person BLOB REFERENCES person(id) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL,
    account BLOB REFERENCES system_account(id) ON DELETE CASCADE,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    last_used_ms INTEGER,
    revoked_ms INTEGER,
    revoked_by TEXT,
    UNIQUE (person, name),
    UNIQUE (account, name)
);
INSERT INTO access_token (id, name, digest, person, created_ms, updated_ms)
    SELECT id, name, digest, person, created_ms, created_ms FROM access_token_before;
DROP TABLE access_token_before;
CREATE TABLE setting (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL,
    updated_ms INTEGER NOT NULL
);

-- A draft is a control plane that began as a copy of another one at a revision.
CREATE TABLE draft (
    cp INTEGER PRIMARY KEY REFERENCES control_plane(cp) ON DELETE CASCADE,
    origin INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    base INTEGER NOT NULL
);
CREATE INDEX draft_origin ON draft (origin);
-- What a group serves is the entities of its members, those that joined first before others.
CREATE TABLE group_member (
    cp_group INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    member INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    PRIMARY KEY (cp_group, member)
);
CREATE INDEX group_member_member ON group_member (member);
-- What an ingress controller tells of itself and of its gateways, as it told it.
CREATE TABLE kic_node (
    cp INTEGER NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    id BLOB NOT NULL,
    body TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    updated_s INTEGER NOT NULL,
    PRIMARY KEY (cp, id)
);
