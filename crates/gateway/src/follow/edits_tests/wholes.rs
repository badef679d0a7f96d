//! Where an edit would go wrong, and the whole is looked at instead.

use super::*;

impl Lab {
    /// With a service and a route to it, 1 and 2, and one that is to be kept as it was, 3 and 4.
    fn with_two() -> Lab {
        let mut lab = Lab::new();
        lab.take(&[service(1), route(2, 1), service(3), route(4, 3)]);
        lab.rebuilds = 0;
        lab
    }

    /// Takes changes for which everything is made anew; what is refused then.
    #[track_caller]
    fn whole(&mut self, changes: &[Change]) -> Vec<String> {
        let before = self.rebuilds;
        self.take(changes);
        assert_eq!(
            self.rebuilds,
            before + 1,
            "an edit is not enough: {changes:#?}"
        );
        self.refused()
    }

    /// Takes changes for which an edit is enough.
    #[track_caller]
    fn edits(&mut self, changes: &[Change]) -> Vec<String> {
        let before = self.rebuilds;
        self.take(changes);
        assert_eq!(self.rebuilds, before, "an edit is enough: {changes:#?}");
        self.refused()
    }
}

fn off((kind, n, entity): Change) -> Change {
    let mut entity = entity.unwrap();
    entity["enabled"] = json!(false);
    (kind, n, Some(entity))
}

fn consumer(n: u128, username: Value) -> Change {
    (Kind::Consumer, n, Some(json!({"username": username})))
}

#[test]
fn what_is_refused_for_reasons_that_nobody_knows_is_looked_at_with_every_change() {
    let mut lab = Lab::with_two();
    let none: [&str; 0] = [];
    lab.whole(&[consumer(30, json!("alice")), consumer(31, json!("alice"))]);
    assert_eq!(lab.refused().len(), 1);
    assert_eq!(lab.whole(&[route(5, 1)]).len(), 1);
    // the other one goes, and this one comes in its place
    let (gone, stays) = match lab.refused()[0].as_str() {
        "consumers 30" => (31, "consumers 30"),
        _ => (30, "consumers 31"),
    };
    assert_eq!(lab.refused(), [stays]);
    assert_eq!(lab.whole(&[(Kind::Consumer, gone, None)]), none);
    // from then on changes cost what they cost
    assert_eq!(lab.edits(&[route(6, 1)]), none);
    assert_eq!(lab.edits(&[consumer(32, json!("bob"))]), none);
}

#[test]
fn what_is_kept_needs_what_it_refers_to() {
    // in the change that makes it bad
    for more in [(Kind::Service, 3, None), off(service(3))] {
        let mut lab = Lab::with_two();
        let moved = bad(route(4, 1));
        lab.whole(&[moved, more]);
    }
    // and later
    let mut lab = Lab::with_two();
    assert_eq!(lab.edits(&[bad(route(4, 1))]), ["routes 4+"]);
    assert_eq!(lab.edits(&[route(5, 1)]), ["routes 4+"]);
    assert_eq!(lab.whole(&[(Kind::Service, 3, None)]), ["routes 4"]);
    assert!(!lab.now.has_route(id(4)));
}

#[test]
fn what_is_kept_keeps_its_name() {
    for together in [true, false] {
        let mut lab = Lab::with_two();
        lab.take(&[consumer(30, json!("alice"))]);
        lab.rebuilds = 0;
        let worse = consumer(30, json!(7));
        let other = consumer(31, json!("alice"));
        if together {
            lab.whole(&[worse, other]);
        } else {
            assert_eq!(lab.edits(&[worse]), ["consumers 30+"]);
            // others do not matter
            assert_eq!(lab.edits(&[consumer(32, json!("bob"))]), ["consumers 30+"]);
            lab.whole(&[other]);
        }
    }
}

#[test]
fn what_was_good_as_it_is_and_is_bad_now_is_not_kept() {
    let mut lab = Lab::with_two();
    let none: [&str; 0] = [];
    let config = json!({"secret": "{vault://env/secret}"});
    let session = plugin(6, "session", json!({"route": to(2), "config": config}));
    assert_eq!(lab.edits(std::slice::from_ref(&session)), none);
    let now = std::mem::replace(&mut lab.now, Configuration::empty(FLAVOR));
    let vaults = Vaults::new(BTreeMap::new(), String::new(), std::path::PathBuf::new());
    lab.now = now.with_vaults(vaults);
    // the secret is gone, and the plugin comes once more as it was
    assert_eq!(lab.edits(&[session]), ["plugins 6!"]);
    assert_eq!(lab.runs(2), ["closed"]);
}

#[test]
fn what_is_kept_follows_what_it_shows() {
    let mut lab = Lab::with_two();
    let certificate = |at: usize| {
        let pair = pair(at);
        let certificate = json!({"cert": pair.cert, "key": pair.key});
        (Kind::Certificate, 40, Some(certificate))
    };
    let shows = json!({"host": "127.0.0.1", "protocol": "https", "client_certificate": to(40)});
    let shows = (Kind::Service, 7, Some(shows));
    lab.take(&[certificate(0), shows.clone()]);
    lab.rebuilds = 0;
    assert_eq!(lab.edits(&[bad(shows)]), ["services 7+"]);
    assert_eq!(lab.whole(&[certificate(1)]), ["services 7+"]);
}

/// What costs nothing but the change itself, whatever is bad alone.
#[test]
fn what_is_bad_by_itself_does_not_make_other_changes_dear() {
    let mut lab = Lab::with_two();
    let certificate = json!({"cert": pair(0).cert, "key": pair(1).key});
    let regex = |n| {
        let route =
            json!({"paths": ["~/(?P<a>x)(?P<a>y)"], "name": format!("r{n}"), "service": to(1)});
        (Kind::Route, n, Some(route))
    };
    let expected = ["certificates 41", "routes 4+"];
    let refused = lab.edits(&[(Kind::Certificate, 41, Some(certificate)), regex(4)]);
    assert_eq!(refused, expected);
    assert_eq!(lab.edits(&[route(5, 1)]), expected);
}

#[test]
fn an_edit_looks_at_no_more_than_it_may() {
    let mut lab = Lab::with_two();
    let cors = |n: u128| plugin(n, "cors", json!({"route": to(4)}));
    assert_eq!(
        lab.edits(&[bad(service(8)), route(9, 8), route(10, 8)])
            .len(),
        3
    );
    let looked = |lab: &Lab, changes: &[Change], items_max: usize| {
        let list = changes.iter().map(|(kind, n, entity)| Delta {
            table: kind.table().to_owned(),
            id: id(*n).to_string(),
            entity: entity.clone().map(|mut entity| {
                entity["id"] = json!(id(*n));
                entity
            }),
        });
        let deltas = Deltas {
            version: SyncVersion::new(1, 1),
            list: list.collect(),
            full: false,
            from: None,
            hash: None,
        };
        let before = Before {
            source: &lab.source,
            current: &lab.now,
            balancers: &lab.balancers,
            plugins: &lab.plugins,
        };
        edited(before, &deltas, items_max).is_some()
    };
    // by itself, with those that waited for it, with those that hang on it
    for (changes, items) in [
        (vec![route(2, 1), cors(11)], 2),
        (vec![service(8)], 3),
        (vec![off(service(3))], 2),
    ] {
        assert!(looked(&lab, &changes, items), "{changes:?}");
        assert!(!looked(&lab, &changes, items - 1), "{changes:?}");
    }
}
