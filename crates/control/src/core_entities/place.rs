//! What a path below core-entities means.

use http::Method;
use percent_encoding::percent_decode_str;
use sallyport_model::Kind;

use super::members::Members;
use crate::identity::{Access, Needs, Part};

/// A collection of entities, perhaps only those of one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collection {
    pub(super) kind: Kind,
    pub(super) parent: Option<Parent>,
}

/// The entity whose children a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) kind: Kind,
    /// The field of the child that refers to it.
    pub(super) field: &'static str,
    /// Id or name, as in the path.
    pub(super) key: String,
}

impl Collection {
    /// Whether entities are written here: targets, credentials and groups only under their parent.
    pub(super) fn writable(&self) -> bool {
        self.parent.is_some() || !(self.kind == Kind::Target || self.kind.is_of_consumer())
    }

    /// The path below core-entities, without a leading slash.
    pub(super) fn path(&self) -> String {
        match &self.parent {
            None => self.kind.collection().to_owned(),
            Some(parent) => {
                let child = CHILDREN
                    .iter()
                    .find(|child| child.parent == parent.kind && child.kind == self.kind);
                let segment = child.map_or(self.kind.collection(), |child| child.segment);
                let key = percent_encoding::utf8_percent_encode(
                    &parent.key,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                let key = key.to_string().replace("%2D", "-");
                format!("{}/{key}/{segment}", parent.kind.collection())
            }
        }
    }
}

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The prefix itself.
    Root,
    Collection(Collection),
    /// One entity, by id or name.
    One(Collection, String),
    /// `schemas/plugins/{name}`.
    PluginSchema(String),
    /// `schemas/vaults/{name}`.
    VaultSchema(String),
    /// Who is in a consumer group, or the groups of a consumer.
    Members(Members),
    /// One of these.
    Member(Members, String),
    /// `schemas/{table}`.
    EntitySchema(String),
    /// `v1/schemas/json/{singular}`.
    JsonSchema(String),
    /// `schemas/{table}/validate`.
    Validate(String),
    /// Entities that this build does not have.
    Unsupported(String),
    Unknown,
}

/// A collection below an entity.
pub(super) struct Child {
    pub(super) parent: Kind,
    pub(super) segment: &'static str,
    pub(super) kind: Kind,
    field: &'static str,
}

/// Every collection below an entity.
pub(super) const CHILDREN: [Child; 13] = [
    Child {
        parent: Kind::Service,
        segment: "routes",
        kind: Kind::Route,
        field: "service",
    },
    Child {
        parent: Kind::Service,
        segment: "plugins",
        kind: Kind::Plugin,
        field: "service",
    },
    Child {
        parent: Kind::Route,
        segment: "plugins",
        kind: Kind::Plugin,
        field: "route",
    },
    Child {
        parent: Kind::Consumer,
        segment: "plugins",
        kind: Kind::Plugin,
        field: "consumer",
    },
    Child {
        parent: Kind::ConsumerGroup,
        segment: "plugins",
        kind: Kind::Plugin,
        field: "consumer_group",
    },
    Child {
        parent: Kind::Consumer,
        segment: "key-auth",
        kind: Kind::KeyAuth,
        field: "consumer",
    },
    Child {
        parent: Kind::Consumer,
        segment: "basic-auth",
        kind: Kind::BasicAuth,
        field: "consumer",
    },
    Child {
        parent: Kind::Consumer,
        segment: "hmac-auth",
        kind: Kind::HmacAuth,
        field: "consumer",
    },
    Child {
        parent: Kind::Consumer,
        segment: "jwt",
        kind: Kind::Jwt,
        field: "consumer",
    },
    Child {
        parent: Kind::Consumer,
        segment: "acls",
        kind: Kind::Acl,
        field: "consumer",
    },
    Child {
        parent: Kind::Certificate,
        segment: "snis",
        kind: Kind::Sni,
        field: "certificate",
    },
    Child {
        parent: Kind::KeySet,
        segment: "keys",
        kind: Kind::Key,
        field: "set",
    },
    Child {
        parent: Kind::Upstream,
        segment: "targets",
        kind: Kind::Target,
        field: "upstream",
    },
];

/// Collections of other builds.
const UNSUPPORTED: [&str; 14] = [
    "partials",
    "mtls-auths",
    "oauth2",
    "filter-chains",
    "custom-plugins",
    "cloned-plugins",
    "plugin-schemas",
    "degraphql_routes",
    "graphql-rate-limiting-advanced",
    "licenses",
    "workspaces",
    "rbac",
    "event-hooks",
    "documents",
];

/// The same below one entity.
const UNSUPPORTED_BELOW: [&str; 5] = [
    "mtls-auth",
    "oauth2",
    "degraphql",
    "graphql-rate-limiting-advanced",
    "filter-chains",
];

impl Place {
    /// What a caller must be allowed to do here.
    pub(super) fn needs(&self, method: &Method) -> Needs {
        let access = match *method {
            Method::GET | Method::HEAD => Access::Read,
            _ => Access::Write,
        };
        match self {
            Place::Collection(collection) | Place::One(collection, _) => {
                Needs::ControlPlane(Part::Entities(collection.kind.collection()), access)
            }
            Place::Members(_) | Place::Member(..) => {
                let groups = Kind::ConsumerGroup.collection();
                Needs::ControlPlane(Part::Entities(groups), access)
            }
            Place::Unsupported(_) => Needs::ControlPlane(Part::Configuration, access),
            // documents about entities, and questions that change nothing
            _ => Needs::ControlPlane(Part::Itself, Access::Read),
        }
    }

    /// Reads the path below core-entities.
    pub(super) fn parse(path: &str) -> Place {
        let decoded: Option<Vec<String>> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().ok().map(Into::into))
            .collect();
        let Some(parts) = decoded else {
            return Place::Unknown;
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [""] => Place::Root,
            ["schemas", "plugins", name] if *name != "validate" => {
                Place::PluginSchema((*name).to_owned())
            }
            ["schemas", "vaults", name] if *name != "validate" => {
                Place::VaultSchema((*name).to_owned())
            }
            ["schemas", table] => Place::EntitySchema((*table).to_owned()),
            ["schemas", table, "validate"] => Place::Validate((*table).to_owned()),
            ["v1", "schemas", "json", singular] => Place::JsonSchema((*singular).to_owned()),
            [first, rest @ ..] => match Kind::from_collection(first) {
                // memberships are written from either side
                Some(Kind::ConsumerGroupMember) => Place::Unknown,
                Some(kind) => below(kind, rest),
                None if UNSUPPORTED.contains(first) => Place::Unsupported((*first).to_owned()),
                None => Place::Unknown,
            },
            [] => Place::Unknown,
        }
    }
}

fn below(kind: Kind, rest: &[&str]) -> Place {
    let members = |key: &str| Members {
        of: kind,
        key: key.to_owned(),
    };
    let is_members = |segment: &str| {
        matches!(
            (kind, segment),
            (Kind::ConsumerGroup, "consumers") | (Kind::Consumer, "consumer_groups")
        )
    };
    match rest {
        [] => Place::Collection(Collection { kind, parent: None }),
        [""] | ["", ..] | [_, ""] => Place::Unknown,
        [key] => Place::One(Collection { kind, parent: None }, (*key).to_owned()),
        [key, segment] if is_members(segment) => Place::Members(members(key)),
        [key, segment, other] if is_members(segment) && !other.is_empty() => {
            Place::Member(members(key), (*other).to_owned())
        }
        [key, segment, rest @ ..] => {
            let child = CHILDREN
                .iter()
                .find(|c| c.parent == kind && c.segment == *segment);
            let Some(child) = child else {
                let other = UNSUPPORTED_BELOW.contains(segment);
                return match other {
                    true => Place::Unsupported((*segment).to_owned()),
                    false => Place::Unknown,
                };
            };
            let parent = Parent {
                kind,
                field: child.field,
                key: (*key).to_owned(),
            };
            let collection = Collection {
                kind: child.kind,
                parent: Some(parent),
            };
            match rest {
                [] => Place::Collection(collection),
                [key] if !key.is_empty() => Place::One(collection, (*key).to_owned()),
                _ => Place::Unknown,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(kind: Kind) -> Collection {
        Collection { kind, parent: None }
    }

    fn nested(parent: Kind, key: &str, field: &'static str, kind: Kind) -> Collection {
        Collection {
            kind,
            parent: Some(Parent {
                kind: parent,
                field,
                key: key.to_owned(),
            }),
        }
    }

    #[track_caller]
    fn check(path: &str, expected: Place) {
        assert_eq!(Place::parse(path), expected, "{path}");
    }

    #[test]
    fn every_form_of_path() {
        use Kind::{
            Acl, Certificate, Consumer, Jwt, KeyAuth, Plugin, Route, Service, Sni, Target, Upstream,
        };
        let one = |collection, key: &str| Place::One(collection, key.to_owned());
        check("", Place::Root);
        check("/", Place::Root);
        check("/services", Place::Collection(flat(Service)));
        check("/services/orders", one(flat(Service), "orders"));
        check("/services/a%2Fb", one(flat(Service), "a/b"));
        check("/key-auths", Place::Collection(flat(KeyAuth)));
        check(
            "/services/s/routes",
            Place::Collection(nested(Service, "s", "service", Route)),
        );
        check(
            "/services/s/routes/r",
            one(nested(Service, "s", "service", Route), "r"),
        );
        check(
            "/services/s/plugins/p",
            one(nested(Service, "s", "service", Plugin), "p"),
        );
        check(
            "/routes/r/plugins",
            Place::Collection(nested(Route, "r", "route", Plugin)),
        );
        check(
            "/consumers/c/plugins",
            Place::Collection(nested(Consumer, "c", "consumer", Plugin)),
        );
        check(
            "/consumers/c/key-auth/k",
            one(nested(Consumer, "c", "consumer", KeyAuth), "k"),
        );
        check("/jwts", Place::Collection(flat(Jwt)));
        check(
            "/consumers/c/jwt",
            Place::Collection(nested(Consumer, "c", "consumer", Jwt)),
        );
        check(
            "/consumers/c/acls/staff",
            one(nested(Consumer, "c", "consumer", Acl), "staff"),
        );
        check(
            "/upstreams/u/targets/t",
            one(nested(Upstream, "u", "upstream", Target), "t"),
        );
        check(
            "/schemas/plugins/key-auth",
            Place::PluginSchema("key-auth".to_owned()),
        );
        check(
            "/schemas/plugins/validate",
            Place::Validate("plugins".to_owned()),
        );
        check(
            "/schemas/services",
            Place::EntitySchema("services".to_owned()),
        );
        check(
            "/schemas/services/validate",
            Place::Validate("services".to_owned()),
        );
        check(
            "/v1/schemas/json/route",
            Place::JsonSchema("route".to_owned()),
        );
        check("/certificates", Place::Collection(flat(Certificate)));
        check(
            "/certificates/x/snis",
            Place::Collection(nested(Certificate, "x", "certificate", Sni)),
        );
        let other = |name: &str| Place::Unsupported(name.to_owned());
        check("/partials", other("partials"));
        check("/partials/x", other("partials"));
        check("/vaults/my-vault", one(flat(Kind::Vault), "my-vault"));
        check("/schemas/vaults/env", Place::VaultSchema("env".to_owned()));
        check("/consumer_groups/g", one(flat(Kind::ConsumerGroup), "g"));
        let members = |of, key: &str| Members {
            of,
            key: key.to_owned(),
        };
        check(
            "/consumer_groups/g/consumers",
            Place::Members(members(Kind::ConsumerGroup, "g")),
        );
        check(
            "/consumers/c/consumer_groups/g",
            Place::Member(members(Consumer, "c"), "g".to_owned()),
        );
        check(
            "/consumer_groups/g/plugins/p",
            one(
                nested(Kind::ConsumerGroup, "g", "consumer_group", Plugin),
                "p",
            ),
        );
        check("/consumer_group_consumers", Place::Unknown);
        check("/consumers/c/oauth2/x", other("oauth2"));
        for unknown in [
            "/servicse",
            "/services//routes",
            "/services/s/x",
            "/services/s/routes/r/x",
            "/%ff",
        ] {
            check(unknown, Place::Unknown);
        }
    }

    #[test]
    fn a_collection_leads_back_to_its_path() {
        for path in [
            "services",
            "services/a%20b/routes",
            "consumers/c-1/key-auth",
            "consumers/c-1/basic-auth",
            "consumers/c-1/acls",
            "upstreams/u/targets",
        ] {
            let Place::Collection(collection) = Place::parse(path) else {
                panic!("{path}")
            };
            assert_eq!(collection.path(), path);
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in ".{0,200}") {
            let _ = Place::parse(&path);
        }
    }
}
