//! Paths of the Admin API.

use super::health::SetHealth;
use percent_encoding::percent_decode_str;
use sallyport_model::Kind;
use sallyport_model::schema::{self, Type};

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Status,
    Metrics,
    Config,
    Endpoints,
    EnabledPlugins,
    EntitySchema(String),
    PluginSchema(String),
    Validate(String),
    /// All tags, or the entities of one.
    Tags(Option<String>),
    /// Everything of a kind.
    Collection(Kind),
    /// One entity, by id or name.
    One(Kind, String),
    /// Everything of a kind that refers to one entity.
    Below {
        parent: Kind,
        key: String,
        child: Kind,
        /// The field that refers to the parent.
        field: &'static str,
        /// The path, for the next page.
        path: String,
    },
    /// One entity that refers to another one.
    OneBelow {
        parent: Kind,
        key: String,
        child: Kind,
        field: &'static str,
        child_key: String,
    },
    /// Who is in a consumer group, or the groups of a consumer.
    Members {
        of: Kind,
        key: String,
        /// The path, for the next page.
        path: String,
    },
    /// The entity that a field of another one refers to.
    Foreign {
        kind: Kind,
        key: String,
        field: &'static str,
    },
    /// Health of the targets of an upstream.
    Health(String),
    /// Health of a target, to be settled by hand.
    SetHealth(SetHealth),
    /// A collection that Kong has and this build does not: nothing is in it.
    OtherBuilds,
    Clustering,
    Unknown,
}

/// Collections of Kong. decK gives up when one of the first is missing.
const OTHER_BUILDS: [&str; 9] = [
    "acls",
    "basic-auths",
    "hmac-auths",
    "jwts",
    "oauth2",
    "mtls-auths",
    "filter-chains",
    "upstreams",
    "targets",
];

impl Place {
    /// Reads a path.
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
        let own = |text: &str| text.to_owned();
        match parts.as_slice() {
            [""] => Place::Root,
            ["status"] => Place::Status,
            ["metrics"] => Place::Metrics,
            ["config"] => Place::Config,
            ["endpoints"] => Place::Endpoints,
            ["plugins", "enabled"] => Place::EnabledPlugins,
            ["schemas", "plugins", name] if *name != "validate" => Place::PluginSchema(own(name)),
            ["schemas", table] => Place::EntitySchema(own(table)),
            ["schemas", table, "validate"] => Place::Validate(own(table)),
            ["tags"] => Place::Tags(None),
            ["tags", tag] => Place::Tags(Some(own(tag))),
            ["clustering", ..] => Place::Clustering,
            ["upstreams", upstream, "health"] => Place::Health(own(upstream)),
            [
                "upstreams",
                upstream,
                "targets",
                target,
                rest @ ..,
                word @ ("healthy" | "unhealthy"),
            ] if rest.len() < 2 => Place::SetHealth(SetHealth {
                upstream: own(upstream),
                target: own(target),
                address: rest.first().map(|address| own(address)),
                healthy: *word == "healthy",
            }),
            ["upstreams", upstream, "targets", "all"] => {
                Place::parse(&format!("/upstreams/{upstream}/targets"))
            }
            [first, rest @ ..] => match Kind::from_collection(first) {
                // memberships are shown from either side
                Some(Kind::ConsumerGroupMember) => Place::Unknown,
                Some(kind) => below(kind, rest),
                None if rest.is_empty() && OTHER_BUILDS.contains(first) => Place::OtherBuilds,
                None => Place::Unknown,
            },
            [] => Place::Unknown,
        }
    }
}

fn below(kind: Kind, rest: &[&str]) -> Place {
    match *rest {
        [] => Place::Collection(kind),
        [key] if !key.is_empty() => Place::One(kind, key.to_owned()),
        [key, segment]
            if matches!(
                (kind, segment),
                (Kind::ConsumerGroup, "consumers") | (Kind::Consumer, "consumer_groups")
            ) =>
        {
            Place::Members {
                of: kind,
                key: key.to_owned(),
                path: format!("/{}/{key}/{segment}", kind.collection()),
            }
        }
        [key, segment] => match (child(kind, segment), reference(kind, segment)) {
            (Some((child, field)), _) => Place::Below {
                parent: kind,
                key: key.to_owned(),
                child,
                field,
                path: format!("/{}/{key}/{segment}", kind.collection()),
            },
            (None, Some(field)) => Place::Foreign {
                kind,
                key: key.to_owned(),
                field,
            },
            // what other builds have below an entity: nothing
            (None, None) if kind == Kind::Consumer && is_credential(segment) => Place::OtherBuilds,
            (None, None) => Place::Unknown,
        },
        [key, segment, child_key] => match child(kind, segment) {
            Some((child, field)) => Place::OneBelow {
                parent: kind,
                key: key.to_owned(),
                child,
                field,
                child_key: child_key.to_owned(),
            },
            None => Place::Unknown,
        },
        _ => Place::Unknown,
    }
}

/// Whether other builds have this list below a consumer.
fn is_credential(segment: &str) -> bool {
    OTHER_BUILDS
        .iter()
        .any(|name| *name == segment || name.strip_suffix('s') == Some(segment))
}

/// The kind that a path segment below an entity of `parent` means, and its field that refers to
/// the parent. Credentials are named in the singular there.
fn child(parent: Kind, segment: &str) -> Option<(Kind, &'static str)> {
    Kind::ALL.into_iter().find_map(|kind| {
        let name = kind.collection();
        let is = name == segment || name.strip_suffix('s') == Some(segment) && name.contains('-');
        let field = refers(kind, |referred| referred == parent)?;
        (is && kind != Kind::ConsumerGroupMember).then_some((kind, field))
    })
}

/// The field of this name, if it refers to an entity.
fn reference(kind: Kind, segment: &str) -> Option<&'static str> {
    let fields = &schema::of(kind).record.fields;
    let field = fields.iter().find(|field| field.name == segment)?;
    matches!(&field.ty, Type::Foreign(foreign) if foreign.kind.is_some()).then_some(field.name)
}

fn refers(kind: Kind, to: impl Fn(Kind) -> bool) -> Option<&'static str> {
    let fields = &schema::of(kind).record.fields;
    fields.iter().find_map(|field| match &field.ty {
        Type::Foreign(foreign) if foreign.kind.is_some_and(&to) => Some(field.name),
        _ => None,
    })
}
