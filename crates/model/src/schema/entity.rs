//! Entities by their schema: parse, complete, index.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{FieldError, Path};
use super::field::{Field, OnDelete, Type, each};
use super::plugin::PluginSchemas;
use super::record::Record;
use super::validate::{Mode, canonical_uuid, validate};
use super::{
    certificates, checks, consumer_groups, consumers, credentials, key_auths, keys, plugins,
    routes, services, targets, upstreams, vaults,
};
use crate::Kind;

/// Everything the table says about one kind.
#[derive(Clone, Debug)]
pub struct EntitySchema {
    /// Which kind.
    pub kind: Kind,
    /// Its fields and rules. For plugins `config` is open here: each plugin has its own.
    pub record: Record,
    /// The field that names an entity in URLs besides its id.
    pub endpoint_key: Option<&'static str>,
    /// Fields that are unique only together; references count by id, unset ones too.
    pub unique_together: &'static [&'static str],
    /// Turns shorthands into fields, before anything is checked.
    pub(super) prepare: fn(&mut Map<String, Value>, &mut Vec<FieldError>),
}

/// The table.
static SCHEMAS: LazyLock<[EntitySchema; Kind::ALL.len()]> = LazyLock::new(|| {
    Kind::ALL.map(|kind| match kind {
        Kind::Certificate => certificates::certificate(),
        Kind::Sni => certificates::sni(),
        Kind::CaCertificate => certificates::ca_certificate(),
        Kind::KeySet => keys::key_set(),
        Kind::Key => keys::key(),
        Kind::Service => services::schema(),
        Kind::Consumer => consumers::schema(),
        Kind::Upstream => upstreams::schema(),
        Kind::Route => routes::schema(),
        Kind::KeyAuth => key_auths::schema(),
        Kind::BasicAuth => credentials::basic_auth(),
        Kind::HmacAuth => credentials::hmac_auth(),
        Kind::Jwt => credentials::jwt(),
        Kind::Acl => credentials::acl(),
        Kind::Target => targets::schema(),
        Kind::Plugin => plugins::schema(),
        Kind::Vault => vaults::schema(),
        Kind::ConsumerGroup => consumer_groups::schema(),
        Kind::ConsumerGroupMember => consumer_groups::member(),
    })
});

/// The schema of a kind.
pub fn of(kind: Kind) -> &'static EntitySchema {
    SCHEMAS
        .iter()
        .find(|schema| schema.kind == kind)
        .expect("the table is made from Kind::ALL")
}

/// No shorthand.
pub(super) fn as_given(_: &mut Map<String, Value>, _: &mut Vec<FieldError>) {}

/// `id`, `created_at` and `updated_at`; the caller completes them with [`Fill`].
pub(super) fn head() -> [Field; 3] {
    [
        Field::uuid("id").auto(),
        Field::integer("created_at").auto().timestamp(),
        Field::integer("updated_at").auto().timestamp(),
    ]
}

/// `tags`.
pub(super) fn tags() -> Field {
    Field::set("tags", each::string().check(checks::tag))
}

/// Checks one entity and returns it normalised: every field present (given, default or null),
/// shorthands expanded, references as `{"id": uuid}`.
///
/// Fields that are generated (`id`, times, [secrets](generated)) stay null when not given:
/// [`Fill::apply`] completes them. Doing it twice changes nothing.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_entity(
    kind: Kind,
    body: Value,
    plugins: &dyn PluginSchemas,
) -> Result<Value, Vec<FieldError>> {
    parse_entity_in(kind, body, Mode::Strict, plugins)
}

/// [`parse_entity`] with a choice of how strict it is about unknown members.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_entity_in(
    kind: Kind,
    body: Value,
    mode: Mode,
    plugins: &dyn PluginSchemas,
) -> Result<Value, Vec<FieldError>> {
    let schema = of(kind);
    let Value::Object(mut body) = body else {
        return Err(vec![FieldError::field(Path::root(), "expected a record")]);
    };
    if mode == Mode::Payload {
        // Control planes send these two on entities whose schema lacks them.
        for extra in ["updated_at", "ttl"] {
            if schema.record.field(extra).is_none() {
                body.remove(extra);
            }
        }
    }
    let mut errors = Vec::new();
    (schema.prepare)(&mut body, &mut errors);
    let parsed = match kind {
        Kind::Plugin => plugins::parse(body, mode, plugins),
        _ => validate(&schema.record, Value::Object(body), mode),
    };
    if kind == Kind::Route
        && let Ok(route) = &parsed
    {
        errors.extend(routes::by_flavor(plugins.router_flavor(), route));
    }
    match parsed {
        Ok(value) if errors.is_empty() => Ok(value),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

/// What a writer adds to an entity that has been parsed: this crate has no dice and no clock.
#[derive(Clone, Copy, Debug)]
pub struct Fill<'a> {
    /// The id, used when the entity does not bring one.
    pub id: Uuid,
    /// Seconds since 1970; of the older version of the entity if there is one. Always written.
    pub created_at: i64,
    /// Seconds since 1970, now. Always written, where the kind has it.
    pub updated_at: i64,
    /// Fresh random secrets of 32 letters and digits, for what is [generated] and was not given.
    pub random_keys: [&'a str; 2],
}

impl Fill<'_> {
    /// Completes what [`parse_entity`] returned.
    pub fn apply(&self, kind: Kind, entity: &mut Value) {
        let Value::Object(entity) = entity else {
            return;
        };
        let unset = |value: Option<&Value>| value.is_none_or(Value::is_null);
        if unset(entity.get("id")) {
            entity.insert("id".to_owned(), Value::from(self.id.to_string()));
        }
        entity.insert("created_at".to_owned(), Value::from(self.created_at));
        if of(kind).record.field("updated_at").is_some() {
            entity.insert("updated_at".to_owned(), Value::from(self.updated_at));
        }
        for (name, random) in generated(kind).zip(self.random_keys) {
            if unset(entity.get(name)) {
                entity.insert(name.to_owned(), Value::from(random));
            }
        }
    }
}

/// The fields of a kind that a writer fills with random text when they are unset, such as the
/// `key` of a key-auth; at most two.
pub fn generated(kind: Kind) -> impl Iterator<Item = &'static str> {
    generated_in(&of(kind).record)
}

/// The same for any record, such as the configuration of a plugin; only its own members.
pub fn generated_in(record: &Record) -> impl Iterator<Item = &'static str> {
    let fields = record.fields.iter();
    fields
        .filter(|field| field.auto && !field.uuid && matches!(field.ty, Type::String))
        .map(|field| field.name)
}

/// What other entities and queries need to know about one entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Values that no other entity of the kind may have: field and value. Fields that are
    /// unique together appear as one entry named by all of them, `upstream, target`.
    pub unique: Vec<(&'static str, String)>,
    /// References: field, kind and id of the referenced entity, and what its deletion does.
    pub foreign: Vec<(&'static str, Kind, Uuid, OnDelete)>,
    /// Tags.
    pub tags: Vec<String>,
}

/// Indexes an entity that [`parse_entity`] returned.
pub fn index(kind: Kind, entity: &Value) -> Index {
    let schema = of(kind);
    let mut index = Index::default();
    for field in &schema.record.fields {
        let value = &entity[field.name];
        if field.unique
            && let Some(text) = value.as_str()
        {
            index.unique.push((field.name, text.to_owned()));
        }
        if let Type::Foreign(foreign) = &field.ty
            && let (Some(kind), Some(id)) = (foreign.kind, reference(value))
        {
            index
                .foreign
                .push((field.name, kind, id, foreign.on_delete));
        }
    }
    let together = schema.unique_together;
    if !together.is_empty() {
        let mut parts: Vec<String> = together
            .iter()
            .map(|name| match (&entity[*name], reference(&entity[*name])) {
                (_, Some(id)) => id.to_string(),
                (value, None) => value.as_str().unwrap_or_default().to_owned(),
            })
            .collect();
        if kind == Kind::Plugin && parts.last().is_some_and(String::is_empty) {
            parts.pop(); // as before there were consumer groups
        }
        index
            .unique
            .push((unique_together_name(kind), parts.join("|")));
    }
    let tags = entity["tags"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    index.tags = tags
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    index
}

/// The entry of [`Index::unique`] that a target has, to look it up by its address; `target`
/// may lack the port. `None` if it is no address.
pub fn unique_target(upstream: Uuid, target: &str) -> Option<(&'static str, String)> {
    let target = checks::target(target)?;
    Some((
        unique_together_name(Kind::Target),
        format!("{upstream}|{target}"),
    ))
}

/// The entry of [`Index::unique`] by which a child is looked up below its parent: a target of an
/// upstream by its address, a group of a consumer by its name. `None` for other kinds, and for
/// what is no address.
pub fn unique_child(kind: Kind, parent: Uuid, key: &str) -> Option<(&'static str, String)> {
    match kind {
        Kind::Target => unique_target(parent, key),
        Kind::Acl => Some((unique_together_name(kind), format!("{parent}|{key}"))),
        _ => None,
    }
}

fn unique_together_name(kind: Kind) -> &'static str {
    match kind {
        // with the consumer group, where there is one
        Kind::Plugin => "name, route, service, consumer",
        Kind::ConsumerGroupMember => "consumer_group, consumer",
        Kind::Target => "upstream, target",
        Kind::Acl => "consumer, group",
        Kind::Key => "kid, set",
        _ => "",
    }
}

/// The id of a reference in either form.
pub fn reference(value: &Value) -> Option<Uuid> {
    let id = match value {
        Value::Object(map) => map.get("id")?,
        other => other,
    };
    canonical_uuid(id.as_str()?)
}
