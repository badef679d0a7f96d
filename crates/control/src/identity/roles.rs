//! What a caller may: the one table of roles, and the grants that somebody holds.
//!
//! Names of roles, entity types and predefined teams are those of the hosted identity API; only
//! roles that open something in this build are offered.

use sallyport_store::{Bearer, NewRole};
use uuid::Uuid;

/// Whether something is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A part of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Name, labels, membership in groups, existence.
    Itself,
    /// Certificates of data planes.
    DpCertificates,
    /// Data planes.
    Nodes,
    /// What data planes counted.
    Telemetry,
    /// All entities together: versions, drafts, batches.
    Configuration,
    /// Entities of one kind, by the name of their collection.
    Entities(&'static str),
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Not even a token.
    Nothing,
    /// Any token; what is shown may depend on it.
    Token,
    /// To make control planes.
    CreateControlPlane,
    /// People, teams, system accounts, roles, settings.
    Identity(Access),
    /// The person `{user}` of the path: that one, or who may [`Needs::Identity`].
    Person(Access),
    AuditLog(Access),
    /// Of the control plane `{cp}` of the path, or of all.
    ControlPlane(Part, Access),
}

use Access::Read;
use Part::{Configuration, DpCertificates, Entities, Itself, Nodes, Telemetry};

/// A role that can be assigned.
pub(crate) struct Role {
    /// Such as `Control Planes`.
    pub(crate) entity_type: &'static str,
    /// Such as `Viewer`.
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// Whether it allows this, on what it is assigned for.
    allows: fn(Needs) -> bool,
}

const CONTROL_PLANES: &str = "Control Planes";

const fn steward(name: &'static str, description: &'static str, allows: fn(Needs) -> bool) -> Role {
    Role {
        entity_type: CONTROL_PLANES,
        name,
        description,
        allows,
    }
}

/// To see the control plane, and to read and write these collections.
fn entities_of(needs: Needs, collections: &[&str]) -> bool {
    match needs {
        Needs::ControlPlane(Itself, Read) => true,
        Needs::ControlPlane(Entities(name), _) => collections.contains(&name),
        _ => false,
    }
}

/// Every role of this build.
pub(crate) const ROLES: [Role; 16] = [
    steward("Admin", "Everything on a control plane.", |needs| {
        matches!(needs, Needs::ControlPlane(..))
    }),
    steward("Viewer", "Reads everything on a control plane.", |needs| {
        matches!(needs, Needs::ControlPlane(_, Read))
    }),
    steward(
        "Creator",
        "Makes control planes, and becomes Admin of each.",
        |needs| needs == Needs::CreateControlPlane,
    ),
    steward(
        "Deployer",
        "Reads a control plane; writes its entities, versions, nodes and their certificates.",
        |needs| match needs {
            Needs::ControlPlane(Itself, access) => access == Read,
            Needs::ControlPlane(
                Configuration | DpCertificates | Nodes | Telemetry | Entities(_),
                _,
            ) => true,
            _ => false,
        },
    ),
    steward(
        "Certificate Admin",
        "Certificates that gateways show or trust.",
        |needs| entities_of(needs, &["certificates", "ca_certificates"]),
    ),
    steward(
        "Consumer Admin",
        "Consumers, their groups and credentials.",
        |needs| {
            let collections = [
                "consumers",
                "consumer_groups",
                "key-auths",
                "basic-auths",
                "hmac-auths",
                "jwts",
                "acls",
                "mtls-auths",
            ];
            entities_of(needs, &collections)
        },
    ),
    steward("Gateway Service Admin", "Services.", |needs| {
        entities_of(needs, &["services"])
    }),
    steward("Key Admin", "Keys and key sets.", |needs| {
        entities_of(needs, &["keys", "key-sets"])
    }),
    steward("Plugin Admin", "Plugins.", |needs| {
        entities_of(needs, &["plugins"])
    }),
    steward("Route Admin", "Routes.", |needs| {
        entities_of(needs, &["routes"])
    }),
    steward("SNI Admin", "Server names.", |needs| {
        entities_of(needs, &["snis"])
    }),
    steward("Upstream Admin", "Upstreams and their targets.", |needs| {
        entities_of(needs, &["upstreams", "targets"])
    }),
    steward("Vault Admin", "Vaults.", |needs| {
        entities_of(needs, &["vaults"])
    }),
    Role {
        entity_type: "Audit Logs",
        name: "Admin",
        description: "Reads the audit log and says where it goes.",
        allows: |needs| matches!(needs, Needs::AuditLog(_)),
    },
    Role {
        entity_type: "Identity",
        name: "Admin",
        description: "People, teams, system accounts, roles and settings.",
        allows: |needs| matches!(needs, Needs::Identity(_)),
    },
    Role {
        entity_type: "Identity",
        name: "Viewer",
        description: "Reads people, teams, system accounts, roles and settings.",
        allows: |needs| needs == Needs::Identity(Read),
    },
];

/// To see which control planes there are, and what was counted at them.
fn telemetry_of(needs: Needs, wanted: Access) -> bool {
    match needs {
        Needs::ControlPlane(Itself, Read) => true,
        Needs::ControlPlane(Telemetry, access) => access == Read || wanted == Access::Write,
        _ => false,
    }
}

/// A team that every organisation has.
pub(crate) struct PredefinedTeam {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// What it is for, where this build does not have that: nobody can join then.
    pub(crate) absent: Option<&'static str>,
    pub(crate) allows: fn(Needs) -> bool,
}

/// Every predefined team of the hosted API, so that whoever looks one up by its name finds it. Those
/// for what is not in this build say so, and take nobody in: a membership that opens nothing would
/// look as if it did.
pub(crate) const TEAMS: [PredefinedTeam; 8] = [
    PredefinedTeam {
        name: "Analytics Admin",
        description: "Members may do everything with the telemetry of every control plane.",
        absent: None,
        allows: |needs| telemetry_of(needs, Access::Write),
    },
    PredefinedTeam {
        name: "Analytics Viewer",
        description: "Members may read the telemetry of every control plane.",
        absent: None,
        allows: |needs| telemetry_of(needs, Read),
    },
    PredefinedTeam {
        name: "API Product Admin",
        description: "For API products, which are not in this build: nobody can join.",
        absent: Some("API products"),
        allows: |_| false,
    },
    PredefinedTeam {
        name: "API Product Developer",
        description: "For API products, which are not in this build: nobody can join.",
        absent: Some("API products"),
        allows: |_| false,
    },
    PredefinedTeam {
        name: "Portal Admin",
        description: "For developer portals, which are not in this build: nobody can join.",
        absent: Some("developer portals"),
        allows: |_| false,
    },
    PredefinedTeam {
        name: "Organization Admin",
        description: "Members may do everything in the organization.",
        absent: None,
        allows: |_| true,
    },
    PredefinedTeam {
        name: "Organization Admin (Read Only)",
        description: "Members may read everything in the organization.",
        absent: None,
        allows: |needs| match needs {
            Needs::Nothing | Needs::Token => true,
            Needs::CreateControlPlane => false,
            Needs::Identity(access)
            | Needs::Person(access)
            | Needs::AuditLog(access)
            | Needs::ControlPlane(_, access) => access == Read,
        },
    },
    PredefinedTeam {
        name: "Control Plane Admin",
        description: "Members may do everything with every control plane.",
        absent: None,
        allows: |needs| matches!(needs, Needs::CreateControlPlane | Needs::ControlPlane(..)),
    },
];

/// What a predefined team is for, if this build does not have that.
pub(crate) fn absent(team: &str) -> Option<&'static str> {
    let mut all = TEAMS.iter();
    all.find(|known| known.name == team)
        .and_then(|known| known.absent)
}

/// The role of these names.
pub(crate) fn role(entity_type: &str, name: &str) -> Option<&'static Role> {
    let mut all = ROLES.iter();
    all.find(|role| role.entity_type == entity_type && role.name == name)
}

/// For what a role is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    One(Uuid),
}

/// What a role opens, and where.
type Granted = (fn(Needs) -> bool, Scope);

/// All that somebody may.
#[derive(Clone, Default)]
pub(crate) struct Grants {
    /// The owner of the organisation, or this machine itself.
    all: bool,
    teams: Vec<fn(Needs) -> bool>,
    roles: Vec<Granted>,
}

impl Grants {
    /// Of the bearer of a token, in this geo. Roles that this build does not know open nothing.
    pub(crate) fn of(bearer: &Bearer, geo: &str) -> Grants {
        let teams = TEAMS.iter().filter(|team| {
            let mut names = bearer.predefined_teams.iter();
            names.any(|name| name == team.name)
        });
        let held = bearer.roles.iter();
        Grants {
            all: bearer.is_owner,
            teams: teams.map(|team| team.allows).collect(),
            roles: held.filter_map(|held| granted(&held.role, geo)).collect(),
        }
    }

    /// Of whoever may do everything.
    pub(crate) fn everything() -> Grants {
        Grants {
            all: true,
            ..Grants::default()
        }
    }

    /// Whether they cover what a request needs, on this control plane if it is about one.
    pub(crate) fn cover(&self, needs: Needs, cp: Option<Uuid>) -> bool {
        if self.all || matches!(needs, Needs::Nothing | Needs::Token) {
            return true;
        }
        let needs = match needs {
            // who it is about is for the caller to look at
            Needs::Person(access) => Needs::Identity(access),
            other => other,
        };
        let role = |(allows, scope): &(fn(Needs) -> bool, Scope)| {
            let reaches = match (scope, needs) {
                (Scope::All, _) => true,
                (Scope::One(id), Needs::ControlPlane(..)) => Some(*id) == cp,
                (Scope::One(_), _) => false,
            };
            reaches && allows(needs)
        };
        self.teams.iter().any(|allows| allows(needs)) || self.roles.iter().any(role)
    }
}

fn granted(held: &NewRole, geo: &str) -> Option<Granted> {
    if held.region != "*" && held.region != geo {
        return None;
    }
    let scope = match held.entity.as_str() {
        "*" => Scope::All,
        id => Scope::One(Uuid::try_parse(id).ok()?),
    };
    let role = role(&held.entity_type, &held.role)?;
    Some((role.allows, scope))
}

/// Whether a role, held for everything, covers a need.
#[cfg(test)]
pub(crate) fn covers(role: &Role, needs: Needs) -> bool {
    let grants = Grants {
        roles: vec![(role.allows, Scope::All)],
        ..Grants::default()
    };
    grants.cover(needs, None)
}

#[cfg(test)]
mod tests {
    use super::Access::Write;
    use super::*;

    fn held(role: &str, entity: &str, region: &str) -> Grants {
        let new = NewRole {
            role: role.to_owned(),
            entity_type: CONTROL_PLANES.to_owned(),
            entity: entity.to_owned(),
            region: region.to_owned(),
        };
        Grants {
            roles: granted(&new, "eu").into_iter().collect(),
            ..Grants::default()
        }
    }

    #[test]
    fn a_role_reaches_no_further_than_its_entity_and_region() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let needs = Needs::ControlPlane(Nodes, Read);
        let check = |grants: &Grants, cp, expected| assert_eq!(grants.cover(needs, cp), expected);
        check(&held("Viewer", "*", "*"), Some(other), true);
        check(&held("Viewer", "*", "eu"), Some(other), true);
        check(&held("Viewer", "*", "us"), Some(other), false);
        check(&held("Viewer", &one.to_string(), "*"), Some(one), true);
        check(&held("Viewer", &one.to_string(), "*"), Some(other), false);
        check(&held("Viewer", &one.to_string(), "*"), None, false);
        check(&held("Emperor", "*", "*"), Some(one), false);
        check(&held("Viewer", "all", "*"), Some(one), false);
        let create = held("Creator", &one.to_string(), "*");
        assert!(!create.cover(Needs::CreateControlPlane, None));
        let create = held("Creator", "*", "*");
        assert!(create.cover(Needs::CreateControlPlane, None));
        assert!(!create.cover(Needs::ControlPlane(Itself, Write), Some(one)));
    }

    #[test]
    fn names_of_roles_are_unique() {
        for (at, role) in ROLES.iter().enumerate() {
            let first = ROLES
                .iter()
                .position(|other| (other.entity_type, other.name) == (role.entity_type, role.name));
            assert_eq!(first, Some(at), "{}", role.name);
        }
    }
}
