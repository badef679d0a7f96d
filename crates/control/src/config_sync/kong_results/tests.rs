//! What is followed is what is made anew, whatever changes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sallyport_model::{Kind, schema};
use sallyport_store::{Actor, ClusterType, Members, NewControlPlane, Put, Write};
use sallyport_wire::config_sync::edits::{Make, class};
use serde_json::{Value, json};

use super::*;

/// Those of Kong 3.10: with a router that knows expressions, and with one that does not.
fn classes() -> [usize; 2] {
    let of = |expressions| class("3.10.0".parse().unwrap(), Make::Kong { expressions });
    [of(true), of(false)]
}

fn actor() -> Actor {
    Actor("test".to_owned())
}

fn put(kind: Kind, body: Value) -> Put {
    let id = serde_json::from_value(body["id"].clone()).unwrap();
    Put::of(kind, id, body)
}

struct Lab {
    store: Store,
    cp: Uuid,
    /// Who holds the entities: the control plane itself, or members of a group.
    members: Vec<Uuid>,
    results: KongResults,
    _directory: tempfile::TempDir,
}

impl Lab {
    async fn new(members: usize) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let made = async |name: &str, cluster_type| {
            let name = name.to_owned();
            let new = NewControlPlane {
                name,
                cluster_type,
                ..NewControlPlane::default()
            };
            store.create_control_plane(&actor(), new).await.unwrap().id
        };
        let (cp, members) = match members {
            0 => {
                let cp = made("alone", ClusterType::ControlPlane).await;
                (cp, vec![cp])
            }
            many => {
                let cp = made("all", ClusterType::ControlPlaneGroup).await;
                let mut members = Vec::new();
                for n in 0..many {
                    members.push(made(&format!("m{n}"), ClusterType::ControlPlane).await);
                }
                let all = Members::Replace(members.clone());
                store.change_group(&actor(), cp, all).await.unwrap();
                (cp, members)
            }
        };
        Lab {
            results: KongResults::new(store.clone(), cp),
            store,
            cp,
            members,
            _directory: directory,
        }
    }

    /// As the publisher knows it, when it has seen all there is.
    async fn state(&self) -> State {
        if self.members == [self.cp] {
            return State::of(&self.store.snapshot(self.cp).await.unwrap(), 0);
        }
        State::of_group(&self.store.group_snapshot(self.cp).await.unwrap(), 0)
    }
}

/// A data plane of Kong, which takes one delta after the other.
#[derive(Clone, Default)]
struct Node {
    version: Option<u64>,
    entities: BTreeMap<(String, String), Value>,
    /// By unique value, which entity is found.
    found: BTreeMap<(String, &'static str, String), String>,
}

impl Node {
    /// Takes an answer; whether it was everything.
    fn take(&mut self, answer: &KongAnswer) -> bool {
        let told: Value = serde_json::from_str(answer.result.get()).unwrap();
        let told = &told["default"];
        let full = told["full_sync"].as_bool().unwrap();
        if full {
            *self = Node::default();
        }
        for delta in told["deltas"].as_array().unwrap() {
            let table = delta["type"].as_str().unwrap();
            let Some(kind) = Kind::from_table(table) else {
                continue;
            };
            let entity = &delta["entity"];
            let id = if entity.is_null() {
                &delta["pk"]
            } else {
                entity
            };
            let key = (table.to_owned(), id["id"].as_str().unwrap().to_owned());
            let unique = |entity: &Value| {
                let unique = schema::index(kind, entity).unique.into_iter();
                unique.map(|(field, value)| (table.to_owned(), field, value))
            };
            if let Some(old) = self.entities.remove(&key) {
                for name in unique(&old) {
                    self.found.remove(&name);
                }
            }
            if !entity.is_null() {
                self.found
                    .extend(unique(entity).map(|name| (name, key.1.clone())));
                self.entities.insert(key, entity.clone());
            }
        }
        self.version = Some(answer.revision);
        assert_eq!(full, answer.is_full);
        full
    }
}

/// Entities of everything that Kong's data planes may not be sent, and of what hangs on it.
async fn edit(lab: &Lab, mut roll: impl FnMut(u64) -> u64) {
    let at = roll(lab.members.len() as u64);
    let member = lab.members[usize::try_from(at).unwrap()];
    let strays = lab.members.len() > 1 && roll(40) == 0;
    let place = if strays { 0 } else { at + 1 };
    let id = |kind: Kind, n: u64| {
        let kind = Kind::ALL.iter().position(|it| *it == kind).unwrap() as u128;
        json!(Uuid::from_u128(
            u128::from(place) << 64 | kind << 32 | u128::from(n)
        ))
    };
    let kinds = [
        Kind::Service,
        Kind::Service,
        Kind::Route,
        Kind::Route,
        Kind::Route,
        Kind::Plugin,
        Kind::Plugin,
        Kind::Plugin,
        Kind::Consumer,
        Kind::KeyAuth,
        Kind::ConsumerGroup,
        Kind::ConsumerGroupMember,
        Kind::Vault,
        Kind::Certificate,
        Kind::Sni,
        Kind::Upstream,
        Kind::Target,
    ];
    let kind = kinds[usize::try_from(roll(kinds.len() as u64)).unwrap()];
    let own = id(kind, roll(5));
    if roll(6) == 0 {
        let own = serde_json::from_value(own).unwrap();
        // what is not there, and what others need
        _ = lab.store.delete(member, &actor(), kind, own).await;
        return;
    }
    let name = format!("n{place}-{}", roll(7));
    let mut maybe = |kind: Kind| match roll(2) {
        0 => Value::Null,
        _ => json!({"id": id(kind, roll(5))}),
    };
    let mut body = match kind {
        Kind::Service => json!({"name": name, "host": name, "protocol": "http"}),
        Kind::Route => json!({"name": name, "service": maybe(Kind::Service), "paths": ["/"]}),
        Kind::Plugin => json!({
            "name": "key-auth", "config": {}, "instance_name": name,
            "service": maybe(Kind::Service), "route": maybe(Kind::Route),
            "consumer_group": Value::Null,
        }),
        Kind::Consumer => json!({"username": name}),
        Kind::KeyAuth => json!({"key": name, "consumer": {"id": id(Kind::Consumer, 1)}}),
        Kind::ConsumerGroup => json!({"name": name}),
        Kind::ConsumerGroupMember => json!({
            "consumer": {"id": id(Kind::Consumer, 1)},
            "consumer_group": {"id": id(Kind::ConsumerGroup, 1)},
        }),
        Kind::Vault => json!({"prefix": name, "name": "env", "config": {"prefix": name}}),
        Kind::Certificate => json!({"cert": name, "key": name}),
        Kind::Sni => json!({"name": name, "certificate": {"id": id(Kind::Certificate, 1)}}),
        Kind::Upstream => json!({"name": name}),
        _ => json!({"target": format!("{name}:80"), "upstream": {"id": id(Kind::Upstream, 1)}}),
    };
    body["id"] = own;
    body["created_at"] = json!(1);
    match (kind, roll(3)) {
        (Kind::Service | Kind::Plugin, 0) => body["enabled"] = json!(false),
        (Kind::Service | Kind::Plugin, _) => body["enabled"] = json!(true),
        (Kind::Route, 0) => {
            body["expression"] = json!("http.path == \"/\"");
            body["priority"] = json!(1);
        }
        (Kind::KeyAuth, 0) => body["ttl"] = json!(60),
        (Kind::Vault, 0) => body["name"] = json!("file"),
        _ => {}
    }
    if kind == Kind::Plugin && roll(6) == 0 {
        body["consumer_group"] = json!({"id": id(Kind::ConsumerGroup, 1)});
    }
    // names that are taken, references to what is not there: such are refused
    _ = match roll(4) {
        // two at once, so that names may be exchanged within one version
        0 => {
            let mut twin = body.clone();
            twin["id"] = id(kind, roll(5));
            let name = format!("n{place}-{}", roll(7));
            for field in ["name", "username", "prefix", "key"] {
                if twin[field].is_string() && kind != Kind::Plugin && kind != Kind::Vault {
                    twin[field] = json!(name);
                }
            }
            let writes = [body, twin].map(|body| Write::Put(put(kind, body)));
            let made = lab.store.apply(member, &actor(), None, writes.into()).await;
            made.map(|_| ())
        }
        _ => {
            let put = lab.store.put(member, &actor(), put(kind, body)).await;
            put.map(|_| ())
        }
    };
}

/// What came of a run.
#[derive(Debug, Default)]
struct Seen {
    behind: usize,
    followed: usize,
    with_more: usize,
    full: usize,
}

async fn follow_at_random(members: usize, seed: u64) -> Seen {
    let lab = Lab::new(members).await;
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut nodes: Vec<(usize, Node)> = Vec::new();
    let mut seen = Seen::default();
    for _ in 0..60 {
        let early = lab.state().await;
        for _ in 0..=roll(3) {
            edit(&lab, &mut roll).await;
        }
        if nodes.len() < 6 && roll(3) == 0 {
            let class = classes()[usize::try_from(roll(2)).unwrap()];
            nodes.push((class, Node::default()));
        }
        let state = match roll(3) {
            // the publisher has not seen the newest changes yet
            0 => early,
            _ => lab.state().await,
        };
        for (class, node) in &mut nodes {
            // sometimes one is away
            if roll(3) == 0 {
                continue;
            }
            let before = node.clone();
            let asked = lab.results.get(*class, node.version, &state).await;
            let answer = asked.unwrap();
            let full = node.take(&answer);
            // the same out of everything, by one who keeps nothing
            let anew = KongResults::new(lab.store.clone(), lab.cp);
            let whole = anew.get(*class, None, &lab.state().await).await.unwrap();
            let mut other = Node::default();
            assert!(other.take(&whole));
            let what = format!("seed {seed} class {class} from {:?}", before.version);
            assert!(answer.revision >= state.revision, "{what}");
            if answer.revision < whole.revision {
                // made for another one before; it will ask again
                seen.behind += 1;
                continue;
            }
            assert_eq!(answer.hash, whole.hash, "{what}");
            assert_eq!(answer.noted, whole.noted, "{what}");
            assert_eq!(node.entities, other.entities, "{what}");
            assert_eq!(node.found, other.found, "{what}");
            if full {
                // a control plane's own log tells all, unless names are exchanged
                let exchanged = other.found.iter().any(|(name, id)| {
                    let then = before.found.get(name).filter(|then| *then != id);
                    then.is_some_and(|then| {
                        other.entities.contains_key(&(name.0.clone(), then.clone()))
                    })
                });
                assert!(
                    before.version.is_none() || members > 0 || exchanged,
                    "{what}"
                );
                seen.full += 1;
            } else {
                let told: Value = serde_json::from_str(answer.result.get()).unwrap();
                let list = told["default"]["deltas"].as_array().unwrap().clone();
                let ids: BTreeSet<String> = list
                    .iter()
                    .map(|it| format!("{} {} {}", it["type"], it["pk"], it["entity"]["id"]))
                    .collect();
                assert_eq!(ids.len(), list.len(), "{what}: each once");
                seen.followed += 1;
                seen.with_more += usize::from(list.len() > 4);
            }
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn what_is_followed_is_what_is_made_anew(seed in any::<u64>(), members in 0_usize..3) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let seen = runtime.block_on(follow_at_random(members, seed));
        prop_assert!(seen.followed > 20, "{seen:?}");
    }
}

/// A control plane with so many routes of one service, each with a plugin, and others.
async fn with_routes(many: u128) -> Lab {
    let lab = Lab::new(0).await;
    let id = Uuid::from_u128;
    let mut writes = Vec::new();
    for n in 0..many {
        let service = json!({"id": id(n), "name": format!("s{n}"), "host": "h", "enabled": true});
        let on = if n < 3 { 0 } else { n };
        let route = json!({"id": id(10_000 + n), "name": format!("r{n}"), "paths": ["/"],
            "service": {"id": id(on)}});
        let plugin = json!({"id": id(20_000 + n), "name": "key-auth", "enabled": true,
            "config": {}, "route": {"id": id(10_000 + n)}});
        for (kind, body) in [
            (Kind::Service, service),
            (Kind::Route, route),
            (Kind::Plugin, plugin),
        ] {
            writes.push(Write::Put(put(kind, body)));
        }
    }
    lab.store
        .apply(lab.cp, &actor(), None, writes)
        .await
        .unwrap();
    lab
}

#[tokio::test]
async fn what_is_looked_at_is_in_proportion_to_the_change() {
    let id = Uuid::from_u128;
    let mut counted = Vec::new();
    for many in [10, 1_000] {
        let lab = with_routes(many).await;
        let [_, class] = classes();
        let mut node = Node::default();
        let mut looked_at = Vec::new();
        for (kind, body) in [
            // nothing: the first gets everything
            (
                Kind::Service,
                json!({"id": id(5), "name": "s5", "host": "h", "enabled": true}),
            ),
            (
                Kind::Service,
                json!({"id": id(5), "name": "s5", "host": "other", "enabled": true}),
            ),
            (
                Kind::Route,
                json!({"id": id(10_006), "name": "new", "paths": ["/"],
                "service": {"id": id(6)}}),
            ),
            (Kind::Consumer, json!({"id": id(1), "username": "u"})),
            // with it go three routes and their plugins
            (
                Kind::Service,
                json!({"id": id(0), "name": "s0", "host": "h", "enabled": false}),
            ),
            // with it goes its plugin
            (
                Kind::Route,
                json!({"id": id(10_007), "name": "r7", "expression": "http.host == \"a\"",
                "service": {"id": id(7)}}),
            ),
        ] {
            let mut body = body;
            body["created_at"] = json!(1);
            lab.store
                .put(lab.cp, &actor(), put(kind, body))
                .await
                .unwrap();
            let before = lab.results.looked_at();
            let state = lab.state().await;
            let answer = lab.results.get(class, node.version, &state).await.unwrap();
            // and it is made once, however many ask
            let again = lab.results.get(class, node.version, &state).await.unwrap();
            assert!(Arc::ptr_eq(&answer, &again));
            let full = node.take(&answer);
            assert_eq!(full, before == 0);
            looked_at.push(lab.results.looked_at() - before);
        }
        let gone = node.entities.len();
        assert_eq!(gone as u128, 3 * many + 1 - 7 - 2);
        let all = looked_at.remove(0);
        assert_eq!(all as u128, 3 * many);
        counted.push(looked_at);
    }
    // a service; a route and its service; a consumer; a service with three routes and their
    // plugins; a route with its plugin and its service
    assert_eq!(counted, [[1, 2, 1, 7, 3], [1, 2, 1, 7, 3]]);
}

#[tokio::test]
async fn where_nothing_is_known_of_a_class_all_is_read_once() {
    let lab = with_routes(10).await;
    let [class, other] = classes();
    let first = lab.state().await;
    let service = json!({"id": Uuid::from_u128(5), "name": "s5", "host": "i", "enabled": true});
    let service = put(Kind::Service, service);
    lab.store.put(lab.cp, &actor(), service).await.unwrap();
    let state = lab.state().await;
    // after a restart of the control plane, say
    let mut node = Node {
        version: Some(first.revision),
        ..Node::default()
    };
    for (class, looked_at) in [(class, 30 + 1), (other, 30 + 1)] {
        let before = lab.results.looked_at();
        let answer = lab.results.get(class, node.version, &state).await.unwrap();
        assert!(!node.clone().take(&answer), "changes only");
        assert_eq!(lab.results.looked_at() - before, looked_at);
    }
    // one that names what is not there yet gets everything
    node.version = Some(state.revision + 7);
    let answer = lab.results.get(class, node.version, &state).await.unwrap();
    assert!(node.take(&answer));
    assert_eq!(node.entities.len(), 30);
    // kept are a few answers to the newest revision
    for from in 0..20 {
        lab.results.get(class, Some(from), &state).await.unwrap();
    }
    assert!(lab.results.kept().answers.len() <= ANSWERS_MAX);
    assert!(lab.results.kept().indices.is_empty());
}
