-- Schema version 4: people beside the owner, teams, system accounts, roles, tokens that end, settings;
-- drafts of control planes, and groups.

ALTER TABLE person ADD COLUMN preferred_name TEXT COLLATE "C";
ALTER TABLE person ADD COLUMN active BIGINT NOT NULL DEFAULT 1;
CREATE TABLE system_account (
    id BYTEA PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);
CREATE TABLE team (
    id BYTEA PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    predefined BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);
-- A member is a person or a system account.
CREATE TABLE team_member (
    team BYTEA NOT NULL REFERENCES team(id) ON DELETE CASCADE,
    member BYTEA NOT NULL,
    PRIMARY KEY (team, member)
);
CREATE INDEX team_member_member ON team_member (member);
-- A holder is a person, a team or a system account.
CREATE TABLE assigned_role (
    id BYTEA PRIMARY KEY NOT NULL,
    holder BYTEA NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    entity_type TEXT COLLATE "C" NOT NULL,
    entity TEXT COLLATE "C" NOT NULL,
    region TEXT COLLATE "C" NOT NULL,
    created_ms BIGINT NOT NULL,
    UNIQUE (holder, role, entity_type, entity, region)
);
ALTER TABLE access_token DROP CONSTRAINT access_token_name_key;
ALTER TABLE access_token ALTER COLUMN person DROP NOT NULL;
ALTER TABLE access_token ADD COLUMN account BYTEA REFERENCES system_account(id) ON DELETE CASCADE;
ALTER TABLE access_token ADD COLUMN updated_ms BIGINT NOT NULL DEFAULT 0;
UPDATE access_token SET updated_ms = created_ms;
ALTER TABLE access_token ADD COLUMN expires_ms BIGINT;
ALTER TABLE access_token ADD COLUMN last_used_ms BIGINT;
ALTER TABLE access_token ADD COLUMN revoked_ms BIGINT;
ALTER TABLE access_token ADD COLUMN revoked_by TEXT COLLATE "C";
ALTER TABLE access_token ADD UNIQUE (person, name);
ALTER TABLE access_token ADD UNIQUE (account, name);
CREATE TABLE setting (
    name TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    updated_ms BIGINT NOT NULL
);

-- A draft is a control plane that began as a copy of another one at a revision.
CREATE TABLE draft (
    cp BIGINT PRIMARY KEY REFERENCES control_plane(cp) ON DELETE CASCADE,
    origin BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    base BIGINT NOT NULL
);
CREATE INDEX draft_origin ON draft (origin);
-- What a group serves is the entities of its members, those that joined first before others.
CREATE TABLE group_member (
    cp_group BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    member BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    place BIGINT NOT NULL,
    PRIMARY KEY (cp_group, member)
);
CREATE INDEX group_member_member ON group_member (member);
-- What an ingress controller tells of itself and of its gateways, as it told it.
CREATE TABLE kic_node (
    cp BIGINT NOT NULL REFERENCES control_plane(cp) ON DELETE CASCADE,
    id BYTEA NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    created_s BIGINT NOT NULL,
    updated_s BIGINT NOT NULL,
    PRIMARY KEY (cp, id)
);
