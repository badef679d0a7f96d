//! A router that is made from the one before: what it costs, and that it decides the same.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

fn by_host(n: usize) -> Vec<Route> {
    let fields =
        |n| json!({"hosts": [format!("h{n}.example.com")], "paths": [format!("/p{}", n % 7)]});
    list(&(0..n).map(fields).collect::<Vec<_>>())
}

fn by_path(n: usize) -> Vec<Route> {
    list(
        &(0..n)
            .map(|n| json!({"paths": [format!("/p{n}/")]}))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn a_change_of_one_route_is_the_work_of_one_route() {
    for make in [by_host, by_path] {
        for n in [1_000, 20_000] {
            let mut routes = make(n);
            let (router, work) = Router::new(COMPATIBLE).updated(&routes).unwrap();
            assert_eq!((work.compiled, work.lists), (n, n));
            let (_, work) = router.updated(&routes).unwrap();
            assert_eq!(work, Work::default(), "nothing changed, nothing is done");

            routes[n / 2].paths = Some(vec!["/changed".to_owned()]);
            let (changed, work) = router.updated(&routes).unwrap();
            let expected = Work {
                compiled: 1,
                removed: 0,
                hosts: 1,
                lists: 2,
            };
            assert_eq!(work, expected, "out of one list, into another");
            assert_eq!(changed.slot(routes[7].id), router.slot(routes[7].id));

            let gone = routes.remove(3);
            let (shorter, work) = changed.updated(&routes).unwrap();
            assert_eq!(
                work,
                Work {
                    compiled: 0,
                    removed: 1,
                    hosts: 1,
                    lists: 1
                }
            );
            assert_eq!(shorter.slot(gone.id), None);

            routes.push(route(u128::MAX, &json!({"hosts": ["new.com"]})));
            let (longer, work) = shorter.updated(&routes).unwrap();
            assert_eq!(
                work,
                Work {
                    compiled: 1,
                    removed: 0,
                    hosts: 1,
                    lists: 1
                }
            );
            assert_eq!(longer.slots(), n, "the free slot is taken again");
        }
    }
}

#[test]
fn a_change_shares_all_tables_but_the_touched_shards() {
    let mut routes = by_host(20_000);
    let (router, _) = Router::new(COMPATIBLE).updated(&routes).unwrap();
    routes[5].strip_path = false;
    let (changed, _) = router.updated(&routes).unwrap();
    assert_eq!(changed.exact_hosts.shards_apart(&router.exact_hosts), 1);
    assert!(Arc::ptr_eq(&changed.any_host, &router.any_host));
}

#[test]
fn what_cannot_be_used_leaves_the_router_as_it_was() {
    let mut routes = by_host(10);
    let (router, _) = Router::new(COMPATIBLE).updated(&routes).unwrap();
    routes[4].paths = Some(vec!["~/(".to_owned()]);
    assert_eq!(router.updated(&routes).unwrap_err()[0].0, 4);
    get("GET h4.example.com/p4").ask(|query| {
        assert_eq!(
            router.find(query).map(|found| found.slot),
            router.slot(routes[4].id)
        );
    });
}

/// Fields of a route for few hosts and paths, so that many meet.
fn fields() -> impl Strategy<Value = Value> {
    (
        proptest::option::of(subsequence(
            vec!["/", "/a", "/a/b", "/ab", "~/a/\\w", "~/.*b", "~/a(b|/)"],
            1..3,
        )),
        proptest::option::of(subsequence(vec!["x.com", "*.com", "x.*", "y.x.com"], 1..3)),
        proptest::option::of(subsequence(vec!["GET", "POST"], 1..2)),
        0..3i64,
        proptest::option::of(select(vec![
            "http.path == \"/a\"",
            "http.host =^ \".com\" && http.path ^= \"/a\"",
            "http.host == \"x.com\" || http.host == \"z\"",
            "http.path ~ \"^/a/b\" && !(http.method == \"GET\")",
            "http.path ~ \"b\"",
        ])),
    )
        .prop_map(
            |(paths, hosts, methods, regex_priority, expression)| match expression {
                Some(text) => json!({"expression": text, "priority": regex_priority}),
                None => json!({"paths": paths, "hosts": hosts, "methods": methods,
                           "regex_priority": regex_priority}),
            },
        )
}

proptest! {
    #[test]
    fn it_decides_as_a_fresh_one(
        flavor in select(ALL.to_vec()),
        rounds in proptest::collection::vec(
            proptest::collection::btree_map(1u128..12, fields(), 0..10), 1..6),
    ) {
        let mut router = Router::new(flavor);
        for round in rounds {
            let routes: Vec<_> = round.iter().map(|(n, fields)| route(*n, fields)).collect();
            router = router.updated(&routes).unwrap().0;
            let fresh = Router::new(flavor).updated(&routes).unwrap().0;
            for host in ["x.com", "y.x.com", "x.org", "z"] {
                for path in ["/", "/a", "/a/b/c", "/abc", "/zb"] {
                    for method in ["GET", "POST", "PUT"] {
                        let line = format!("{method} {host}{path}");
                        get(&line).ask(|query| {
                            let (old, new) = (router.find(query), fresh.find(query));
                            let id = |router: &Router, found: &Match<'_>| {
                                let slot = |route: &&Route| router.slot(route.id) == Some(found.slot);
                                routes.iter().find(slot).map(|route| (route.id, found.matched))
                            };
                            assert_eq!(
                                old.map(|found| id(&router, &found)),
                                new.map(|found| id(&fresh, &found)),
                                "{line}"
                            );
                        });
                    }
                }
            }
        }
    }
}
