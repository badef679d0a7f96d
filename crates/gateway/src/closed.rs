//! Where a gateway answers 503 because it refused what was to apply there: a missing lock is no
//! open door.
//!
//! | refused, and no version of it is served | answers 503 |
//! |---|---|
//! | plugin | its scope, for its protocols; nothing if it only watches |
//! | `acls`, `consumer_group_consumers` | requests of the consumer: a rule may be about its group |
//! | upstream | services with its name as `host`, which would go by DNS otherwise |
//!
//! Of all other kinds what hangs on the refused entity is refused with it, and who had no way in
//! before gets none.

use ahash::AHashMap;
use http::StatusCode;
use sallyport_model::Kind;
use sallyport_model::entities::Protocol;
use sallyport_plugins::{ALL, Env, Exchange, Flow, Handler, Reply, observes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The first number in the order behind what stands in for unknown plugins.
const AFTER_OTHERS: u32 = 1 << 30;

/// What clients are told.
const MESSAGE: &str = "Closed: this gateway refused a part of its configuration that applies here";

/// Kong's plugins that find out who calls have this priority or a higher one.
const AUTHENTICATES: i32 = 1_000;

/// A scope that is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Closed {
    /// The plugin in whose place it is; without one it is as soon as the caller is known.
    pub(crate) plugin: Option<String>,
    pub(crate) route: Option<Uuid>,
    pub(crate) service: Option<Uuid>,
    pub(crate) consumer: Option<Uuid>,
    pub(crate) consumer_group: Option<Uuid>,
    /// For these protocols; for all if there are none.
    pub(crate) protocols: Vec<Protocol>,
}

/// An entity that is refused.
pub(crate) struct Refusal<'a> {
    pub(crate) kind: Kind,
    /// As published, flat or with references as objects.
    pub(crate) published: &'a Value,
    /// What is served in its place.
    pub(crate) kept: Option<&'a Value>,
}

impl Refusal<'_> {
    /// What is closed because of it; `services` are those that are served.
    pub(crate) fn closes(&self, services: &Value) -> Vec<Closed> {
        match self.kind {
            Kind::Plugin => self.plugin().into_iter().collect(),
            Kind::Acl | Kind::ConsumerGroupMember => {
                let consumer = reference(self.published, "consumer");
                let kept = self.kept.and_then(|kept| reference(kept, "consumer"));
                let closed = consumer.filter(|_| kept != consumer).map(|id| Closed {
                    consumer: Some(id),
                    ..Closed::default()
                });
                closed.into_iter().collect()
            }
            Kind::Upstream => {
                let name = &self.published["name"];
                if name.is_null() || self.kept.is_some_and(|kept| kept["name"] == *name) {
                    return Vec::new();
                }
                let services = services.as_array().into_iter().flatten();
                let of_it = services.filter(|service| service["host"] == *name);
                let closed = |service: &Value| Closed {
                    service: id(&service["id"]),
                    ..Closed::default()
                };
                of_it.map(closed).collect()
            }
            _ => Vec::new(),
        }
    }

    fn plugin(&self) -> Option<Closed> {
        if self.published["enabled"] == false {
            return None;
        }
        let closed = scope(self.published);
        if closed.plugin.as_deref().is_some_and(observes) {
            return None;
        }
        // a version that did nothing, or did it elsewhere, guards nothing here
        let kept = self.kept.filter(|kept| kept["enabled"] != false);
        let guards = kept.map(scope).is_some_and(|mut kept| {
            let covered = |protocol| kept.protocols.contains(protocol);
            let covers = kept.protocols.is_empty()
                || !closed.protocols.is_empty() && closed.protocols.iter().all(covered);
            kept.protocols.clone_from(&closed.protocols);
            covers && kept == closed
        });
        (!guards).then_some(closed)
    }
}

/// Where a plugin applies.
fn scope(plugin: &Value) -> Closed {
    Closed {
        plugin: plugin["name"].as_str().map(str::to_owned),
        route: reference(plugin, "route"),
        service: reference(plugin, "service"),
        consumer: reference(plugin, "consumer"),
        consumer_group: reference(plugin, "consumer_group"),
        protocols: serde_json::from_value(plugin["protocols"].clone()).unwrap_or_default(),
    }
}

/// The entity that a field refers to. What is no id refers to nothing that exists.
fn reference(entity: &Value, field: &str) -> Option<Uuid> {
    match &entity[field] {
        Value::Null => None,
        Value::Object(object) => Some(object.get("id").and_then(id).unwrap_or_default()),
        value => Some(id(value).unwrap_or_default()),
    }
}

fn id(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

/// Answers 503.
pub(crate) struct Answers503;

impl Handler for Answers503 {
    fn access(&self, _: &mut Exchange, _: &Env<'_>) -> Flow {
        Flow::Respond(Reply::error(StatusCode::SERVICE_UNAVAILABLE, MESSAGE))
    }
}

/// Places of plugins in the order they run. Plugins that this build has are at their place in
/// the registry; what stands in for others gets a place behind it, and runs once the caller is
/// known and before anything that can answer in the place of the upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(AHashMap<Option<String>, usize>);

impl Places {
    /// The place of what stands in for a plugin.
    pub(crate) fn of(&mut self, plugin: Option<&str>) -> usize {
        let known = plugin.and_then(|name| ALL.iter().position(|known| known.name() == name));
        known.unwrap_or_else(|| {
            let next = ALL.len() + self.0.len();
            *self.0.entry(plugin.map(str::to_owned)).or_insert(next)
        })
    }

    /// All places in the order they run, with a number that tells the order and stays the same
    /// when there are more places.
    pub(crate) fn order(&self) -> impl Iterator<Item = (usize, u32)> + use<> {
        let known = ALL.partition_point(|plugin| plugin.priority() >= AUTHENTICATES);
        let others = ALL.len()..ALL.len() + self.0.len();
        let before = (0..known).chain(others).zip(0..);
        before.chain((known..ALL.len()).zip(AFTER_OTHERS..))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "00000000-0000-4000-8000-00000000000a";
    const B: &str = "00000000-0000-4000-8000-00000000000b";

    /// What is closed, as letters of scope with the plugin: `r` route A, `R` route B, `s`
    /// service A, `S` service B, `c` consumer A, `C` consumer B, `g` group A.
    #[track_caller]
    fn check(kind: Kind, published: Value, kept: Option<Value>, expected: &[&str]) {
        let services = json!([{"id": A, "host": "inner"}, {"id": B, "host": "inner"},
                              {"id": Uuid::from_u128(7), "host": "outer"}]);
        let refusal = Refusal {
            kind,
            published: &published,
            kept: kept.as_ref(),
        };
        let letter = |id: Option<Uuid>, a: char, b: char| match id {
            None => None,
            Some(id) if id.to_string() == A => Some(a),
            Some(id) if id.to_string() == B => Some(b),
            Some(_) => Some('?'),
        };
        let one = |closed: Closed| {
            let scope = [
                letter(closed.route, 'r', 'R'),
                letter(closed.service, 's', 'S'),
                letter(closed.consumer, 'c', 'C'),
                letter(closed.consumer_group, 'g', 'G'),
            ];
            let scope: String = scope.into_iter().flatten().collect();
            format!("{} {scope}", closed.plugin.unwrap_or_default())
                .trim()
                .to_owned()
        };
        let found: Vec<String> = refusal.closes(&services).into_iter().map(one).collect();
        assert_eq!(found, expected, "{published}, {kept:?}");
    }

    #[test]
    fn what_is_refused_opens_nothing() {
        let key_auth = |rest: Value| {
            let mut plugin = json!({"name": "key-auth", "enabled": true, "protocols": ["http"]});
            let rest = rest.as_object().unwrap().clone();
            plugin.as_object_mut().unwrap().extend(rest);
            plugin
        };
        let plugin = |published, kept, expected: &[&str]| {
            check(Kind::Plugin, published, kept, expected);
        };
        // in each scope; references are texts on v1 and objects on v2
        plugin(key_auth(json!({})), None, &["key-auth"]);
        plugin(key_auth(json!({"route": A})), None, &["key-auth r"]);
        plugin(key_auth(json!({"route": {"id": A}})), None, &["key-auth r"]);
        plugin(
            key_auth(json!({"service": {"id": B}, "consumer": {"id": A}})),
            None,
            &["key-auth Sc"],
        );
        plugin(
            key_auth(json!({"consumer_group": A, "route": null})),
            None,
            &["key-auth g"],
        );
        // a scope that cannot be read is not that of everybody
        plugin(key_auth(json!({"route": 7})), None, &["key-auth ?"]);
        // nobody knows what an unknown plugin guards
        plugin(
            json!({"name": "house-auth", "service": A}),
            None,
            &["house-auth s"],
        );
        plugin(json!({"name": 7}), None, &[""]);
        // the last good version stays
        let route_a = || key_auth(json!({"route": A, "config": {"key_names": ["x"]}}));
        plugin(route_a(), Some(route_a()), &[]);
        // but it guards only what it guarded
        plugin(
            key_auth(json!({"route": B})),
            Some(route_a()),
            &["key-auth R"],
        );
        plugin(
            route_a(),
            Some(key_auth(json!({"route": A, "enabled": false}))),
            &["key-auth r"],
        );
        plugin(
            route_a(),
            Some(key_auth(json!({"route": A, "protocols": ["grpc"]}))),
            &["key-auth r"],
        );
        // switched off, or only watching
        plugin(key_auth(json!({"enabled": false})), None, &[]);
        for name in ["http-log", "prometheus", "opentelemetry", "datadog"] {
            plugin(json!({"name": name, "enabled": true}), None, &[]);
        }

        let member = || json!({"group": "blocked", "consumer": {"id": A}});
        check(Kind::Acl, member(), None, &["c"]);
        check(Kind::Acl, member(), Some(member()), &[]);
        check(Kind::Acl, json!({"consumer": B}), Some(member()), &["C"]);
        check(Kind::ConsumerGroupMember, member(), None, &["c"]);

        check(Kind::Upstream, json!({"name": "inner"}), None, &["s", "S"]);
        check(
            Kind::Upstream,
            json!({"name": "inner"}),
            Some(json!({"name": "inner"})),
            &[],
        );
        check(
            Kind::Upstream,
            json!({"name": "inner"}),
            Some(json!({"name": "older"})),
            &["s", "S"],
        );
        check(Kind::Upstream, json!({}), None, &[]);

        // what hangs on these is refused with them, or lets nobody in
        for kind in Kind::ALL {
            let closes = [
                Kind::Plugin,
                Kind::Acl,
                Kind::ConsumerGroupMember,
                Kind::Upstream,
            ];
            if !closes.contains(&kind) {
                check(kind, json!({"id": A, "consumer": A}), None, &[]);
            }
        }
    }

    #[test]
    fn what_stands_in_for_an_unknown_plugin_runs_before_anything_that_answers() {
        let mut places = Places::default();
        let (unknown, none) = (places.of(Some("house-auth")), places.of(None));
        assert_eq!(places.of(Some("house-auth")), unknown);
        let order: Vec<usize> = places.order().map(|(place, _)| place).collect();
        let at = |place: usize| order.iter().position(|it| *it == place).unwrap();
        let known = |name: &str| at(place_of(name));
        for plugin in ["key-auth", "jwt", "basic-auth", "hmac-auth"] {
            assert!(known(plugin) < at(unknown).min(at(none)), "{plugin}");
        }
        for plugin in ["acl", "proxy-cache", "redirect", "request-termination"] {
            assert!(known(plugin) > at(unknown).max(at(none)), "{plugin}");
        }
        assert_eq!(order.len(), ALL.len() + 2);
    }

    fn place_of(name: &str) -> usize {
        Places::default().of(Some(name))
    }
}
