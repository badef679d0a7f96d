//! Edits lead to what the whole would be, whatever is refused.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sallyport_model::{Kind, RouterFlavor};
use sallyport_wire::config_sync::delta::{Delta, Deltas, SyncVersion};
use serde_json::{Value, json};
use uuid::Uuid;

use super::apply::serve_all;
use super::edits::{Before, edited};
use super::source::Source;
use crate::balancer::Balancers;
use crate::conf::Dns;
use crate::configuration::Configuration;
use crate::configuration::edit_tests::shown;
use crate::enabled::Enabled;

const FLAVOR: RouterFlavor = RouterFlavor::TraditionalCompatible;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 + n)
}

fn to(n: u128) -> Value {
    json!({"id": id(n)})
}

fn pair(n: usize) -> &'static sallyport_runtime::certs::PemPair {
    static PAIRS: std::sync::OnceLock<Vec<sallyport_runtime::certs::PemPair>> =
        std::sync::OnceLock::new();
    let make = |_| sallyport_runtime::certs::self_signed_localhost(1).unwrap();
    &PAIRS.get_or_init(|| (0..2).map(make).collect())[n]
}

type Change = (Kind, u128, Option<Value>);

/// A gateway that takes changes, beside one that makes everything anew each time.
struct Lab {
    balancers: Balancers,
    plugins: Enabled,
    source: Source,
    now: Configuration,
    rebuilds: usize,
}

impl Lab {
    fn new() -> Lab {
        Lab {
            balancers: Balancers::new(Dns::default()),
            plugins: Enabled::all(FLAVOR),
            source: Source::default(),
            now: Configuration::empty(FLAVOR).keeping_all(true),
            rebuilds: 0,
        }
    }

    /// Takes changes that came as one.
    #[track_caller]
    fn take(&mut self, changes: &[Change]) {
        let delta = |(kind, n, entity): &Change| Delta {
            table: kind.table().to_owned(),
            id: id(*n).to_string(),
            entity: entity.clone().map(|mut entity| {
                entity["id"] = json!(id(*n));
                entity
            }),
        };
        let list: Vec<Delta> = changes.iter().map(delta).collect();
        let version = SyncVersion::new(1, 1);
        let deltas = Deltas {
            version,
            list,
            full: false,
            from: None,
            hash: None,
        };
        let before = Before {
            source: &self.source,
            current: &self.now,
            balancers: &self.balancers,
            plugins: &self.plugins,
        };
        let edited = edited(before, &deltas, usize::MAX);
        let mut whole = self.source.clone();
        whole.take(version, &deltas.list, &[]);
        let current = (&self.now, &self.balancers);
        let made = serve_all(&mut whole, Some(&self.source), &self.plugins, current).unwrap();
        match edited {
            None => {
                self.rebuilds += 1;
                self.source = whole;
                self.now = made;
            }
            Some(edited) => {
                self.source
                    .take_edited(version, &deltas.list, edited.changes);
                let texts = |source: &Source| {
                    let told = source.refused();
                    let told = told.iter().map(|it| {
                        let place = (&*it.entity_type, &*it.entity_id, &*it.entity_name);
                        format!("{place:?} {} {} {}", it.field, it.kept, it.closed)
                    });
                    told.collect::<Vec<_>>()
                };
                assert_eq!(texts(&self.source), texts(&whole), "{changes:#?}");
                assert_eq!(
                    self.source.served_table(),
                    whole.served_table(),
                    "{changes:#?}"
                );
                assert_eq!(self.source.served_hash(), whole.served_hash());
                assert_eq!(shown(&edited.configuration), shown(&made), "{changes:#?}");
                let closed = |it: &Configuration| {
                    let mut closed: Vec<_> =
                        it.closed().iter().map(|it| format!("{it:?}")).collect();
                    closed.sort();
                    closed
                };
                assert_eq!(closed(&edited.configuration), closed(&made), "{changes:#?}");
                self.now = edited.configuration;
            }
        }
        self.balancers.put_in_force(&self.now.balancers);
    }

    /// Takes changes that take an edit only; what is refused then, as `kind number`, with `+` if
    /// something is kept and `!` if something is closed.
    #[track_caller]
    fn edit(&mut self, changes: &[Change]) -> Vec<String> {
        self.take(changes);
        assert_eq!(self.rebuilds, 0, "it was made anew for {changes:#?}");
        self.refused()
    }

    fn refused(&self) -> Vec<String> {
        let refused = self.source.refused();
        let one = |it: &sallyport_wire::config_sync::delta::Refused| {
            let id: Uuid = it.entity_id.parse().unwrap();
            let n = id.as_u128() & 0xffff;
            let mark = |is: bool, mark| if is { mark } else { "" };
            let marks = (mark(it.kept, "+"), mark(it.closed, "!"));
            format!("{} {n}{}{}", it.entity_type, marks.0, marks.1)
        };
        refused.iter().map(one).collect()
    }

    /// The plugins that run on a route for nobody in particular.
    fn runs(&self, route: u128) -> Vec<String> {
        let start = format!("route {} ", id(route));
        let lines = shown(&self.now);
        let line = lines
            .iter()
            .find(|it| it.starts_with(&start) && it.contains(" None ["));
        let line = line.unwrap_or_else(|| panic!("no route {route} in {lines:#?}"));
        let steps = line.split_once(" None [").unwrap().1;
        let names = steps
            .split('"')
            .filter(|it| !it.starts_with(", ") && it.contains(' '));
        names
            .map(|it| it.split(' ').next().unwrap().to_owned())
            .collect()
    }
}

fn service(n: u128) -> Change {
    (
        Kind::Service,
        n,
        Some(json!({"host": "127.0.0.1", "name": format!("s{n}")})),
    )
}

fn route(n: u128, service: u128) -> Change {
    let route =
        json!({"paths": [format!("/{n}")], "name": format!("r{n}"), "service": to(service)});
    (Kind::Route, n, Some(route))
}

fn plugin(n: u128, name: &str, scope: Value) -> Change {
    let mut plugin = json!({"name": name});
    plugin
        .as_object_mut()
        .unwrap()
        .extend(scope.as_object().unwrap().clone());
    (Kind::Plugin, n, Some(plugin))
}

/// What no gateway can serve.
fn bad((kind, n, entity): Change) -> Change {
    let mut entity = entity.unwrap();
    let (field, value) = match kind {
        Kind::Service => ("port", json!(70000)),
        Kind::Route => ("paths", json!(["~/("])),
        Kind::Upstream => ("slots", json!(1)),
        Kind::Certificate => ("cert", json!("no certificate")),
        _ => ("config", json!({"surely_unknown": 1})),
    };
    entity[field] = value;
    (kind, n, Some(entity))
}

#[test]
fn a_bad_object_does_not_make_other_changes_dear() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    lab.take(&[service(1), route(2, 1), service(3), route(4, 3)]);
    lab.rebuilds = 0;
    // a bad plugin closes its route, and stays bad while others change
    let auth = plugin(5, "key-auth", json!({"route": to(2)}));
    assert_eq!(lab.edit(&[bad(auth.clone())]), ["plugins 5!"]);
    assert_eq!(lab.runs(2), ["closed"]);
    assert_eq!(lab.runs(4), none);
    assert_eq!(lab.edit(&[route(6, 1)]), ["plugins 5!"]);
    // a route that cannot be made goes on as it was, one that is new is left out
    assert_eq!(lab.edit(&[bad(route(4, 3))]), ["routes 4+", "plugins 5!"]);
    assert_eq!(lab.edit(&[bad(route(7, 3))]).len(), 3);
    assert_eq!(lab.edit(&[service(3)]).len(), 3);
    // it gets worse, and it is mended
    let worse = plugin(5, "house-auth", json!({"route": to(2), "config": {"x": 1}}));
    assert_eq!(lab.edit(&[worse]).len(), 3);
    assert_eq!(lab.runs(2), ["closed"]);
    assert_eq!(lab.edit(&[auth]), ["routes 4+", "routes 7"]);
    assert_eq!(lab.runs(2), ["key-auth"]);
    // now that there is a good version of it, it stays
    let again = bad(plugin(5, "key-auth", json!({"route": to(2)})));
    assert_eq!(lab.edit(&[again]).len(), 3);
    assert_eq!(lab.runs(2), ["key-auth"]);
    // but it guards nothing else
    let moved = bad(plugin(5, "key-auth", json!({"route": to(6)})));
    assert_eq!(lab.edit(&[moved]), ["routes 4+", "routes 7", "plugins 5+!"]);
    assert_eq!(lab.runs(2), ["key-auth"]);
    assert_eq!(lab.runs(6), ["closed"]);
    assert_eq!(
        lab.edit(&[(Kind::Plugin, 5, None), (Kind::Route, 7, None)]),
        ["routes 4+"]
    );
    assert_eq!(lab.runs(6), none);
    assert_eq!(lab.edit(&[route(4, 3)]), none);
    assert!(lab.source.refusals().is_empty());
}

#[test]
fn what_hangs_on_a_bad_object_comes_back_with_it() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    lab.take(&[service(1), route(2, 1)]);
    lab.rebuilds = 0;
    let cors = |n| plugin(n, "cors", json!({"route": to(4)}));
    let refused = lab.edit(&[bad(service(3)), route(4, 3), route(5, 3), cors(6)]);
    assert_eq!(
        refused,
        ["services 3", "routes 4", "routes 5", "plugins 6!"]
    );
    assert_eq!(lab.edit(&[route(7, 1)]).len(), 4);
    assert_eq!(lab.edit(&[route(8, 3)]).len(), 5);
    assert_eq!(lab.edit(&[(Kind::Route, 5, None)]).len(), 4);
    assert_eq!(lab.edit(&[service(3)]), none);
    assert_eq!(lab.runs(4), ["cors"]);
    assert_eq!(lab.runs(8), none);
}

#[test]
fn each_kind_that_guards_closes_what_it_guarded() {
    let mut lab = Lab::new();
    let upstream = |n: u128, name: &str| (Kind::Upstream, n, Some(json!({"name": name})));
    let at = |n: u128, host: &str| (Kind::Service, n, Some(json!({"host": host})));
    lab.take(&[
        service(1),
        route(2, 1),
        upstream(20, "pool"),
        at(21, "pool"),
        route(22, 21),
        (Kind::Consumer, 30, Some(json!({"username": "alice"}))),
        (Kind::ConsumerGroup, 31, Some(json!({"name": "gold"}))),
        (
            Kind::Certificate,
            40,
            Some(json!({"cert": pair(0).cert, "key": pair(0).key})),
        ),
    ]);
    lab.rebuilds = 0;
    // a kept upstream under its name closes nothing, a new one does
    assert_eq!(lab.edit(&[bad(upstream(20, "pool"))]), ["upstreams 20+"]);
    assert_eq!(
        lab.edit(&[bad(upstream(23, "fresh"))]),
        ["upstreams 20+", "upstreams 23"]
    );
    let refused = lab.edit(&[at(24, "fresh"), route(25, 24)]);
    assert_eq!(refused, ["upstreams 20+", "upstreams 23!"]);
    assert_eq!(lab.runs(25), ["closed"]);
    assert_eq!(
        lab.edit(&[at(24, "elsewhere")]),
        ["upstreams 20+", "upstreams 23"]
    );
    assert!(lab.runs(25).is_empty());
    assert_eq!(lab.edit(&[at(24, "fresh")])[1], "upstreams 23!");
    // services that meant a host mean it from now on
    lab.take(&[upstream(23, "fresh"), upstream(20, "pool")]);
    lab.rebuilds = 0;
    assert!(lab.refused().is_empty());
    // a group rule, a certificate
    let acl = (Kind::Acl, 32, Some(json!({"consumer": to(30), "group": 7})));
    assert_eq!(lab.edit(&[acl]), ["acls 32!"]);
    let certificate = json!({"cert": "none", "key": "none"});
    let refused = lab.edit(&[(Kind::Certificate, 40, Some(certificate))]);
    assert_eq!(refused, ["certificates 40+", "acls 32!"]);
    let acl = (
        Kind::Acl,
        32,
        Some(json!({"consumer": to(30), "group": "team"})),
    );
    assert_eq!(lab.edit(&[acl]), ["certificates 40+"]);
    let certificate = json!({"cert": pair(1).cert, "key": pair(1).key});
    assert_eq!(
        lab.edit(&[(Kind::Certificate, 40, Some(certificate))])
            .len(),
        0
    );
}

/// Entities that may be there: a kind, how many of it, and how they look in each variant.
const KINDS: [(Kind, u128); 11] = [
    (Kind::Service, 3),
    (Kind::Route, 4),
    (Kind::Consumer, 2),
    (Kind::ConsumerGroup, 2),
    (Kind::Upstream, 2),
    (Kind::Target, 3),
    (Kind::Certificate, 2),
    (Kind::Sni, 2),
    (Kind::Acl, 2),
    (Kind::KeyAuth, 2),
    (Kind::Plugin, 5),
];

/// Numbers of entities: the hundreds are the place of the kind in `KINDS`.
fn number(kind: Kind, n: u128) -> u128 {
    let at = KINDS.iter().position(|(own, _)| *own == kind).unwrap();
    at as u128 * 100 + n
}

fn entity(kind: Kind, n: u128, variant: u8) -> Value {
    let of = |kind: Kind, count: u128| to(number(kind, (n + u128::from(variant)) % count));
    let is_bad = variant >= 6;
    let plugins = [
        "key-auth",
        "cors",
        "house-auth",
        "rate-limiting",
        "correlation-id",
    ];
    match kind {
        Kind::Service => {
            let host = ["127.0.0.1", "u0", "u1"][usize::from(variant % 3)];
            json!({"host": host, "name": format!("s{n}"), "port": if is_bad { 70_000 } else { 80 }})
        }
        Kind::Route => {
            let path = if is_bad {
                "~/(".to_owned()
            } else {
                format!("/{n}{variant}")
            };
            json!({"name": format!("r{n}"), "paths": [path], "service": of(Kind::Service, 3)})
        }
        Kind::Consumer => match is_bad {
            true => json!({"username": 7}),
            false => json!({"username": format!("c{n}"), "custom_id": format!("{n}{variant}")}),
        },
        Kind::ConsumerGroup => {
            json!({"name": if is_bad { json!(7) } else { json!(format!("g{n}")) }})
        }
        Kind::Upstream => {
            json!({"name": format!("u{n}"), "slots": if is_bad { 1 } else { 10 + u32::from(variant) }})
        }
        Kind::Target => {
            let host = if is_bad {
                "bad host".to_owned()
            } else {
                format!("127.0.0.1:{}", 80 + n)
            };
            json!({"target": host, "weight": variant, "upstream": of(Kind::Upstream, 2)})
        }
        Kind::Certificate => {
            let cert = if is_bad {
                "bad"
            } else {
                &*pair(usize::from(variant % 2)).cert
            };
            json!({"cert": cert, "key": pair(usize::from(variant % 2)).key})
        }
        Kind::Sni => {
            let name = if is_bad {
                json!("*a*")
            } else {
                json!(format!("{n}.example"))
            };
            json!({"name": name, "certificate": of(Kind::Certificate, 2)})
        }
        Kind::Acl => {
            let group = if is_bad {
                json!(1)
            } else {
                json!(format!("a{n}"))
            };
            json!({"group": group, "consumer": of(Kind::Consumer, 2)})
        }
        Kind::KeyAuth => {
            let key = if is_bad {
                json!(1)
            } else {
                json!(format!("k{n}"))
            };
            json!({"key": key, "consumer": of(Kind::Consumer, 2)})
        }
        _ => {
            let mut plugin = json!({"name": plugins[n as usize]});
            match variant % 4 {
                0 => plugin["route"] = of(Kind::Route, 4),
                1 => plugin["service"] = of(Kind::Service, 3),
                2 if matches!(n, 2 | 3) => plugin["consumer"] = of(Kind::Consumer, 2),
                _ => {}
            }
            if n == 3 {
                plugin["config"] = json!({"minute": variant + 1});
            }
            if is_bad {
                plugin["config"] = json!({"surely_unknown": 1});
            }
            if variant == 5 {
                plugin["enabled"] = json!(false);
            }
            plugin
        }
    }
}

type Model = BTreeMap<(usize, u128), u8>;

/// Takes out what refers to something that is not there, as control planes do.
fn cascade(model: &mut Model) {
    loop {
        let hangs = |((kind, n), variant): (&(usize, u128), &u8)| {
            let (kind, n) = (KINDS[*kind].0, *n);
            let references = super::refusals::references(kind, &entity(kind, n, *variant));
            let is_there = |(kind, to): (Kind, Uuid)| {
                let at = KINDS.iter().position(|(own, _)| *own == kind).unwrap();
                model.contains_key(&(at, (to.as_u128() & 0xffff) - at as u128 * 100))
            };
            references.unwrap().iter().any(|it| !is_there(it.to))
        };
        let found = model
            .iter()
            .find(|entry| hangs(*entry))
            .map(|(key, _)| *key);
        match found {
            Some(key) => _ = model.remove(&key),
            None => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn edits_lead_to_what_the_whole_would_be(
        rounds in proptest::collection::vec(proptest::collection::vec(
            (0..KINDS.len(), 0u128..5, proptest::option::weighted(0.85, 0u8..8)), 1..5), 1..14)
    ) {
        let mut model = Model::new();
        for (at, (_, count)) in KINDS.iter().enumerate() {
            model.extend((0..*count).map(|n| ((at, n), (n % 3) as u8)));
        }
        cascade(&mut model);
        let mut lab = Lab::new();
        let change = |key: &(usize, u128), variant: Option<u8>| {
            let (kind, n) = (KINDS[key.0].0, key.1);
            (kind, number(kind, n), variant.map(|variant| entity(kind, n, variant)))
        };
        let first: Vec<Change> = model.iter().map(|(key, it)| change(key, Some(*it))).collect();
        lab.take(&first);
        for round in rounds {
            let mut next = model.clone();
            for (kind, n, variant) in round {
                let n = n % KINDS[kind].1;
                match variant {
                    Some(variant) => _ = next.insert((kind, n), variant),
                    None => _ = next.remove(&(kind, n)),
                }
            }
            cascade(&mut next);
            let gone = model.keys().filter(|key| !next.contains_key(key));
            let mut changes: Vec<Change> = gone.map(|key| change(key, None)).collect();
            let new = next.iter().filter(|(key, variant)| model.get(key) != Some(variant));
            changes.extend(new.map(|(key, variant)| change(key, Some(*variant))));
            if !changes.is_empty() {
                lab.take(&changes);
            }
            model = next;
        }
    }
}
