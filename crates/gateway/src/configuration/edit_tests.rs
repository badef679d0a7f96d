//! Edits of each kind lead to what the whole would be.

use sallyport_model::declarative::{Format, parse};
use sallyport_model::schema::{Mode, parse_entity_in};
use sallyport_plugins::schemas;
use serde_json::{Value, json};

use super::*;
use crate::balancer::Peers;
use crate::chain::Caller;

const TLS: [&str; 2] = ["one", "two"];

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 + n)
}

/// A certificate of this test, made once.
fn pair(n: usize) -> &'static (String, String) {
    static PAIRS: std::sync::OnceLock<Vec<(String, String)>> = std::sync::OnceLock::new();
    let make = |_: &&str| {
        let pair = sallyport_runtime::certs::self_signed_localhost(1).unwrap();
        (pair.cert, pair.key)
    };
    &PAIRS.get_or_init(|| TLS.iter().map(make).collect())[n]
}

/// An installation with some of everything.
fn table() -> Value {
    let (cert, key) = pair(0);
    json!({
        "_format_version": "3.0", "_transform": false,
        "certificates": [{"id": id(1), "cert": cert, "key": key}],
        "snis": [{"id": id(2), "name": "a.example", "certificate": id(1)}],
        "upstreams": [{"id": id(3), "name": "pool"}, {"id": id(4), "name": "spare"}],
        "targets": [{"id": id(5), "target": "127.0.0.1:1", "upstream": id(3)}],
        "services": [{"id": id(6), "host": "pool", "name": "balanced"},
                     {"id": id(7), "host": "machine.example", "name": "alone"},
                     {"id": id(8), "host": "127.0.0.1", "name": "tls", "protocol": "https",
                      "tls_verify": false}],
        "routes": [{"id": id(9), "paths": ["/balanced"], "service": id(6)},
                   {"id": id(10), "paths": ["/alone"], "service": id(7)},
                   {"id": id(11), "paths": ["/tls"], "service": id(8)}],
        "consumers": [{"id": id(12), "username": "alice"}, {"id": id(13), "username": "bob"}],
        "consumer_groups": [{"id": id(14), "name": "gold"}],
        "consumer_group_consumers": [{"id": id(15), "consumer": id(12),
                                      "consumer_group": id(14)}],
        "acls": [{"id": id(16), "consumer": id(12), "group": "team"}],
        "keyauth_credentials": [{"id": id(17), "consumer": id(12), "key": "k1"}],
        "basicauth_credentials": [{"id": id(18), "consumer": id(12), "username": "al",
                                   "password": "0".repeat(40)}],
        "plugins": [{"id": id(19), "name": "cors"},
                    {"id": id(20), "name": "key-auth", "route": id(9)},
                    {"id": id(21), "name": "rate-limiting", "service": id(7),
                     "config": {"minute": 5}},
                    {"id": id(22), "name": "rate-limiting", "consumer": id(12),
                     "config": {"minute": 6}}],
    })
}

struct Lab {
    balancers: Balancers,
    table: Value,
    now: Configuration,
}

impl Lab {
    fn new() -> Lab {
        let balancers = Balancers::new(Dns::default());
        let nothing = Configuration::empty(RouterFlavor::TraditionalCompatible).keeping_all(true);
        let table = table();
        let now = whole(&nothing, &table, &balancers);
        balancers.put_in_force(&now.balancers);
        Lab {
            balancers,
            table,
            now,
        }
    }

    /// Makes these changes, as one; they must not take a look at the whole.
    #[track_caller]
    fn edit(&mut self, changes: &[(Kind, u128, Option<Value>)]) {
        let edited = self.try_edit(changes).expect("it takes an edit only");
        let edited = edited.unwrap_or_else(|bad| panic!("{bad:?}"));
        let expected = whole(&self.now, &self.table, &self.balancers);
        assert_eq!(shown(&edited), shown(&expected), "{changes:?}");
        let texts = |it: &Configuration| {
            let mut document: Value = serde_json::from_str(&it.entities.document()).unwrap();
            let lists = document.as_object_mut().unwrap().values_mut();
            for entity in lists.filter_map(Value::as_array_mut).flatten() {
                // when it came is told where nothing else is known
                entity["created_at"].take();
                entity["updated_at"].take();
            }
            document
        };
        assert_eq!(texts(&edited), texts(&expected));
        self.now = edited;
        self.balancers.put_in_force(&self.now.balancers);
    }

    fn try_edit(
        &mut self,
        changes: &[(Kind, u128, Option<Value>)],
    ) -> Option<Result<Configuration, Vec<Unservable>>> {
        let mut edits = Edits::default();
        for (kind, n, entity) in changes {
            let list = &mut self.table[kind.table()];
            if list.is_null() {
                *list = json!([]);
            }
            let list = list.as_array_mut().unwrap();
            list.retain(|it| it["id"] != id(*n).to_string());
            let Some(entity) = entity else {
                edits.remove(*kind, id(*n));
                continue;
            };
            let mut entity = entity.clone();
            entity["id"] = json!(id(*n));
            list.push(entity.clone());
            list.sort_by_key(|it| it["id"].as_str().map(str::to_owned));
            let parsed = parse_entity_in(*kind, entity, Mode::Payload, schemas()).unwrap();
            if !edits.put(*kind, id(*n), &parsed) {
                return None;
            }
        }
        self.now.edited(&edits, ConfigHash::ZERO, &self.balancers)
    }
}

fn whole(before: &Configuration, table: &Value, balancers: &Balancers) -> Configuration {
    let declared = parse(table.clone(), Format::Payload, schemas()).unwrap();
    let made = before.next_with(&declared, ConfigHash::ZERO, balancers, &[]);
    made.unwrap_or_else(|bad| panic!("{bad:?}"))
}

/// What requests and handshakes find.
pub(crate) fn shown(it: &Configuration) -> Vec<String> {
    let mut shown = Vec::new();
    let mut services: Vec<_> = it.services.iter().map(|(_, service)| service).collect();
    services.sort_by_key(|service| service.id);
    for service in services {
        let tls = service
            .tls
            .as_ref()
            .map(|tls| it.upstream_tls.content(tls.id));
        let peers = match &service.peers {
            Peers::Many(balancer) => balancer.name.to_string(),
            Peers::One(_) => "itself".to_owned(),
        };
        let mut routes = it.routes_of.get(&service.id).cloned().unwrap_or_default();
        Arc::make_mut(&mut routes).sort_unstable();
        let (id, upstream, path) = (service.id, &service.upstream, &service.path);
        shown.push(format!(
            "service {id} {upstream} {path} {tls:?} {peers} {routes:?}"
        ));
    }
    let mut routes: Vec<_> = it.routes.iter().flatten().collect();
    routes.sort_by_key(|route| route.id);
    for route in routes {
        let callers = ["alice", "bob"].map(|name| it.identities.consumer(name));
        let callers = callers.into_iter().flatten().map(|consumer| Caller {
            id: consumer.id,
            groups: consumer.consumer_groups(),
        });
        for caller in std::iter::once(None).chain(callers.map(Some)) {
            let steps = route.chain.with(&it.global_chain);
            let picked = steps.filter_map(|step| step.pick(caller));
            let names: Vec<_> = picked.map(|index| it.handlers.shown(index)).collect();
            let caller = caller.map(|it| it.id);
            let service = route.service.as_ref().map(|service| {
                let served = it.services.get(&service.id).unwrap();
                (service.id, Arc::ptr_eq(service, served))
            });
            shown.push(format!(
                "route {} {service:?} {caller:?} {names:?}",
                route.id
            ));
        }
    }
    for route in it.streams.all() {
        let service = route.service.as_ref().map(|service| {
            let served = it.services.get(&service.id).unwrap();
            (service.id, Arc::ptr_eq(service, served))
        });
        let steps = route.chain.with(&it.global_streams);
        let picked = steps.filter_map(|step| step.pick(None));
        let names: Vec<_> = picked.map(|index| it.handlers.shown(index)).collect();
        let (id, passes_through) = (route.id, route.passes_through);
        shown.push(format!(
            "stream {id} {passes_through} {service:?} {names:?}"
        ));
    }
    let mut balancers: Vec<_> = it.balancers.iter().map(|(_, it)| it).collect();
    balancers.sort_by_key(|balancer| balancer.id);
    for balancer in balancers {
        let targets: Vec<_> = balancer.targets.iter().map(|it| &it.text).collect();
        shown.push(format!("upstream {} {targets:?}", balancer.name));
    }
    for name in ["alice", "bob", "carol"] {
        let consumer = it.identities.consumer(name);
        let groups = consumer.map(|it| (it.groups().to_vec(), it.consumer_groups().to_vec()));
        shown.push(format!("consumer {name} {groups:?}"));
    }
    for key in ["k1", "k2"] {
        let owner = it.identities.key(key.as_bytes(), 0);
        shown.push(format!("key {key} {:?}", owner.map(|it| it.consumer.id)));
    }
    for name in ["a.example", "b.example", "c.example"] {
        let keys = it.named.find(Some(name)).map(|keys| keys.leaf());
        shown.push(format!("name {name} {keys:?}"));
    }
    let mut certificates: Vec<_> = it.loaded.iter().map(|(id, _)| id).collect();
    certificates.sort_unstable();
    shown.push(format!("certificates {certificates:?}"));
    shown
}

#[test]
fn each_kind_is_edited_without_a_look_at_the_rest() {
    let mut lab = Lab::new();
    let some = |entity: Value| Some(entity);
    use Kind as K;
    let foreign = |n: u128| json!({"id": id(n)});
    // new, other, gone; in the order of a day's work
    for changes in [
        vec![(K::Consumer, 30, some(json!({"username": "carol"})))],
        vec![(
            K::KeyAuth,
            31,
            some(json!({"consumer": foreign(30), "key": "k2"})),
        )],
        vec![(
            K::Consumer,
            12,
            some(json!({"username": "alice", "custom_id": "7"})),
        )],
        vec![(
            K::Acl,
            32,
            some(json!({"consumer": foreign(13), "group": "guests"})),
        )],
        vec![(K::Acl, 16, None)],
        vec![(K::ConsumerGroup, 33, some(json!({"name": "silver"})))],
        vec![(
            K::ConsumerGroupMember,
            34,
            some(json!({"consumer": foreign(13), "consumer_group": foreign(33)})),
        )],
        vec![(
            K::Plugin,
            35,
            some(
                json!({"name": "rate-limiting", "consumer_group": foreign(33),
                        "config": {"minute": 2}}),
            ),
        )],
        vec![(K::Plugin, 20, None)],
        vec![(
            K::Plugin,
            36,
            some(json!({"name": "key-auth", "service": foreign(6)})),
        )],
        vec![(
            K::Plugin,
            36,
            some(json!({"name": "key-auth", "route": foreign(10)})),
        )],
        vec![(K::Plugin, 37, some(json!({"name": "correlation-id"})))],
        vec![(
            K::Plugin,
            21,
            some(
                json!({"name": "rate-limiting", "service": foreign(7), "enabled": false,
                        "config": {"minute": 5}}),
            ),
        )],
        vec![(K::Plugin, 22, None)],
        vec![(
            K::Target,
            38,
            some(json!({"target": "127.0.0.1:2", "upstream": foreign(3)})),
        )],
        vec![(
            K::Target,
            5,
            some(json!({"target": "127.0.0.1:9", "upstream": foreign(4)})),
        )],
        vec![(K::Target, 38, None)],
        vec![(K::Upstream, 3, some(json!({"name": "pool", "slots": 100})))],
        vec![
            (K::Upstream, 39, some(json!({"name": "fresh"}))),
            (
                K::Target,
                40,
                some(json!({"target": "127.0.0.1:3", "upstream": foreign(39)})),
            ),
            (K::Service, 41, some(json!({"host": "fresh"}))),
            (
                K::Route,
                42,
                some(json!({"paths": ["/fresh"], "service": foreign(41)})),
            ),
        ],
        vec![(
            K::Service,
            7,
            some(json!({"host": "spare", "name": "alone"})),
        )],
        vec![(
            K::Service,
            8,
            some(
                json!({"host": "127.0.0.1", "name": "tls", "protocol": "https",
                        "tls_verify": false, "path": "/base"}),
            ),
        )],
        vec![(
            K::Sni,
            43,
            some(json!({"name": "b.example", "certificate": foreign(1)})),
        )],
        vec![(
            K::Certificate,
            1,
            some(json!({"cert": pair(1).0, "key": pair(1).1})),
        )],
        vec![
            (
                K::Certificate,
                44,
                some(json!({"cert": pair(0).0, "key": pair(0).1})),
            ),
            (
                K::Sni,
                2,
                some(json!({"name": "c.example", "certificate": foreign(44)})),
            ),
        ],
        vec![(K::Sni, 43, None), (K::Certificate, 1, None)],
        // and all of it goes, with what hangs on it
        vec![
            (K::Consumer, 12, None),
            (K::ConsumerGroupMember, 15, None),
            (K::KeyAuth, 17, None),
            (K::BasicAuth, 18, None),
        ],
        vec![
            (K::Route, 10, None),
            (K::Plugin, 36, None),
            (K::Service, 7, None),
            (K::Plugin, 21, None),
        ],
        vec![(K::Upstream, 4, None), (K::Target, 5, None)],
        vec![(K::KeySet, 45, some(json!({"name": "keys"})))],
    ] {
        lab.edit(&changes);
    }
}

#[test]
fn what_depends_on_more_takes_a_look_at_the_whole() {
    for change in [
        (
            Kind::Service,
            7,
            json!({"host": "127.0.0.1", "enabled": false}),
        ),
        // what nobody has checked: two with one key, of nobody, on nothing
        (
            Kind::KeyAuth,
            54,
            json!({"consumer": {"id": id(13)}, "key": "k1"}),
        ),
        (
            Kind::KeyAuth,
            54,
            json!({"consumer": {"id": id(99)}, "key": "k9"}),
        ),
        (
            Kind::Plugin,
            55,
            json!({"name": "key-auth", "route": {"id": id(99)}}),
        ),
        (
            Kind::Plugin,
            55,
            json!({"name": "key-auth", "route": {"id": id(9)}}),
        ),
        (
            Kind::Plugin,
            55,
            json!({"name": "rate-limiting", "consumer": {"id": id(99)}, "config": {"minute": 1}}),
        ),
        (
            Kind::Sni,
            56,
            json!({"name": "a.example", "certificate": {"id": id(1)}}),
        ),
        (
            Kind::Target,
            57,
            json!({"target": "127.0.0.1:2", "upstream": {"id": id(99)}}),
        ),
        (Kind::Upstream, 58, json!({"name": "machine.example"})),
        (Kind::Upstream, 3, json!({"name": "other"})),
        (
            Kind::Route,
            59,
            json!({"paths": ["/x"], "service": {"id": id(99)}}),
        ),
    ] {
        let (kind, n, entity) = change;
        let text = format!("{kind} {entity}");
        let tried = Lab::new().try_edit(&[(kind, n, Some(entity))]);
        assert!(tried.is_none(), "{text}");
    }
    for gone in [
        (Kind::Service, 7),
        (Kind::Upstream, 3),
        (Kind::Certificate, 1),
        (Kind::Consumer, 12),
        (Kind::ConsumerGroup, 14),
    ] {
        let tried = Lab::new().try_edit(&[(gone.0, gone.1, None)]);
        assert!(tried.is_none(), "{gone:?}: something hangs on it");
    }
}
