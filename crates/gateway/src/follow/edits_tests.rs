//! Edits lead to what the whole would be, whatever is refused.

mod logging;
mod property;
mod streams;
mod vaults;
mod wholes;

use std::collections::BTreeMap;

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
use crate::vaults::Vaults;

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

fn authority(n: usize) -> &'static str {
    static ALL: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let make = |_| {
        let ca = sallyport_runtime::certs::LocalCa::create("test", 1).unwrap();
        ca.pem().cert.clone()
    };
    &ALL.get_or_init(|| (0..4).map(make).collect())[n]
}

/// What is in the environment of these tests: a secret, one of A and one of B with a certificate
/// each, and some more.
fn secrets(more: &[(&str, &str)]) -> Vaults {
    let all = [
        ("SECRET", "open sesame, and wider"),
        ("A_SECRET", "the secret of A, and so on"),
        ("B_SECRET", "the secret of B, and so on"),
        ("A_CERT", &pair(0).cert),
        ("A_KEY", &pair(0).key),
        ("B_CERT", &pair(1).cert),
        ("B_KEY", &pair(1).key),
    ];
    let all = all.into_iter().chain(more.iter().copied());
    let all = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Vaults::new(all.collect(), String::new(), std::path::PathBuf::new())
}

/// What the APIs and log plugins show of one configuration, of the kinds that another keeps.
fn texts_of(it: &Configuration, other: &Configuration) -> Vec<Value> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| other.entities.keeps(*kind));
    let entries = kinds.flat_map(|kind| it.entities.all(kind));
    let text = |entry: &crate::entities::Entry| {
        let mut entity: Value = serde_json::from_str(entry.raw.get()).unwrap();
        // when it came is told where nothing else is known
        entity["created_at"].take();
        entity["updated_at"].take();
        entity
    };
    entries.map(text).collect()
}

type Change = (Kind, u128, Option<Value>);

/// A gateway that takes changes, beside one that makes everything anew each time.
struct Lab {
    balancers: Balancers,
    plugins: Enabled,
    source: Source,
    now: Configuration,
    rebuilds: usize,
    edits: usize,
}

impl Lab {
    fn new() -> Lab {
        Lab::keeping_all(true)
    }

    /// With the Admin API, or without it.
    fn keeping_all(keeps_all: bool) -> Lab {
        Lab {
            balancers: Balancers::new(Dns::default()),
            plugins: Enabled::all(FLAVOR),
            source: Source::default(),
            now: Configuration::empty(FLAVOR)
                .keeping_all(keeps_all)
                .with_vaults(secrets(&[])),
            rebuilds: 0,
            edits: 0,
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
                self.edits += 1;
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
                let (found, expected) = (shown(&edited.configuration), shown(&made));
                let mut pairs = found.iter().zip(&expected);
                let other = pairs.find(|(found, expected)| found != expected);
                assert_eq!(other, None, "{changes:?}");
                assert_eq!(found.len(), expected.len());
                assert_eq!(
                    texts_of(&edited.configuration, &made),
                    texts_of(&made, &made)
                );
                // one that is switched off needs no closing
                let is_on = |it: &Configuration, service: Option<Uuid>| {
                    service.is_none_or(|id| it.has_service(id))
                };
                let closed = |it: &Configuration| {
                    let closed = it.closed().into_iter();
                    let closed = closed.filter(|closed| is_on(it, closed.service));
                    let mut closed: Vec<_> = closed.map(|it| format!("{it:?}")).collect();
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
    let refused = lab.edit(&[upstream(23, "fresh"), upstream(20, "pool")]);
    assert!(refused.is_empty(), "{refused:?}");
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

#[test]
fn what_is_switched_off_comes_back_with_what_hangs_on_it() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    let switched = |on: bool| {
        let service = json!({"host": "127.0.0.1", "name": "s1", "enabled": on});
        (Kind::Service, 1, Some(service))
    };
    lab.take(&[
        service(1),
        route(2, 1),
        service(3),
        route(4, 3),
        plugin(5, "cors", json!({"route": to(2)})),
        plugin(6, "correlation-id", json!({"service": to(1)})),
    ]);
    lab.rebuilds = 0;
    assert_eq!(lab.runs(2), ["correlation-id", "cors"]);
    assert_eq!(lab.edit(&[switched(false)]), none);
    assert!(!lab.now.has_route(id(2)));
    // what is changed meanwhile comes back as it is then
    let auth = plugin(7, "key-auth", json!({"route": to(8)}));
    assert_eq!(lab.edit(&[route(8, 1), auth]), none);
    assert_eq!(lab.edit(&[(Kind::Plugin, 5, None)]), none);
    assert!(!lab.now.has_route(id(8)));
    assert_eq!(lab.edit(&[switched(true)]), none);
    assert_eq!(lab.runs(2), ["correlation-id"]);
    assert_eq!(lab.runs(8), ["correlation-id", "key-auth"]);
    // a route that moves to a service that is off is off, with its plugins
    assert_eq!(lab.edit(&[switched(false)]), none);
    assert_eq!(lab.edit(&[route(8, 3)]), none);
    assert_eq!(lab.runs(8), ["key-auth"]);
    assert_eq!(lab.edit(&[route(8, 1)]), none);
    assert!(!lab.now.has_route(id(8)));
    assert_eq!(lab.edit(&[route(8, 1), switched(true)]), none);
    assert_eq!(lab.runs(8), ["correlation-id", "key-auth"]);
}

#[test]
fn who_is_believed_and_what_is_shown_follows_its_certificate() {
    let mut lab = Lab::new();
    let certificate = |at: usize| {
        let pair = pair(at);
        (
            Kind::Certificate,
            1,
            Some(json!({"cert": pair.cert, "key": pair.key})),
        )
    };
    let ca = |at: usize| (Kind::CaCertificate, 2, Some(json!({"cert": authority(at)})));
    let upstream = |name: &str| {
        let upstream = json!({"name": name, "client_certificate": to(1)});
        (Kind::Upstream, 3, Some(upstream))
    };
    let service = |n, host: &str, more: Value| {
        let mut service = json!({"host": host, "protocol": "https"});
        service
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        (Kind::Service, n, Some(service))
    };
    let shown_by = |lab: &Lab| -> Vec<String> {
        let services = shown(&lab.now).into_iter();
        services.filter(|it| it.starts_with("service ")).collect()
    };
    lab.edit(&[certificate(0), ca(0), upstream("pool")]);
    lab.edit(&[
        service(4, "pool", json!({})),
        service(5, "127.0.0.1", json!({"client_certificate": to(1)})),
        service(
            6,
            "127.0.0.1",
            json!({"tls_verify": true, "ca_certificates": [id(2)]}),
        ),
    ]);
    let mut before = shown_by(&lab);
    for (change, others) in [
        (certificate(1), [true, true, false]),
        (ca(1), [false, false, true]),
        (upstream("other"), [true, false, false]),
        (upstream("pool"), [true, false, false]),
        ((Kind::CaCertificate, 2, None), [false, false, true]),
    ] {
        lab.edit(std::slice::from_ref(&change));
        let now = shown_by(&lab);
        let other: Vec<bool> = now
            .iter()
            .zip(&before)
            .map(|(now, old)| now != old)
            .collect();
        assert_eq!(other, others, "{change:?}");
        before = now;
    }
    // two that take each other's name
    lab.edit(&[(Kind::Upstream, 7, Some(json!({"name": "second"})))]);
    let swapped = [
        (Kind::Upstream, 7, Some(json!({"name": "pool"}))),
        (Kind::Upstream, 3, Some(json!({"name": "second"}))),
    ];
    lab.edit(&swapped);
    let gone = [(Kind::Upstream, 7, None), (Kind::Certificate, 1, None)];
    lab.edit(&[service(5, "127.0.0.1", json!({}))]);
    lab.edit(&gone);
}
