use serde_json::json;
use uuid::Uuid;

use super::*;

/// Kong's, with a router that knows expressions.
const CLASS: usize = 11;

fn id(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

fn view(services: &[(u128, &str)], routes: &[(u128, &str, u128)]) -> KongView {
    let service = |&(n, name): &(u128, &str)| json!({"id": id(n), "name": name, "host": "h"});
    let route = |&(n, name, at): &(u128, &str, u128)| json!({"id": id(n), "name": name, "paths": ["/"], "service": {"id": id(at)}});
    let entities = Entities::from([
        (Kind::Service, services.iter().map(service).collect()),
        (Kind::Route, routes.iter().map(route).collect()),
    ]);
    KongView::of(CLASS, entities)
}

/// Ids of what is told, with whether it is there; `None` where everything has to be.
fn told(before: &KongView, now: &KongView) -> Option<Vec<(String, bool)>> {
    let list = now.since(&before.index())?;
    let one = |delta: &Delta| (delta.id.clone(), delta.entity.is_some());
    let mut list: Vec<_> = list.iter().map(one).collect();
    list.sort();
    Some(list)
}

#[test]
fn what_is_other_than_before_is_told_with_references_as_objects() {
    let before = view(&[(1, "a"), (2, "b")], &[(7, "r", 1)]);
    let now = view(&[(1, "a"), (3, "c")], &[(7, "r", 3)]);
    let expected = vec![(id(2), false), (id(3), true), (id(7), true)];
    assert_eq!(told(&before, &now), Some(expected));
    assert_eq!(told(&now, &now), Some(vec![]));
    let all = now.everything();
    assert_eq!(all.len(), 3);
    let route = all.iter().find(|it| it.table == "routes").unwrap();
    assert_eq!(
        route.entity.as_ref().unwrap()["service"],
        json!({"id": id(3)})
    );
}

#[test]
fn where_a_name_goes_from_one_to_another_everything_is_told() {
    let before = view(&[(1, "a"), (2, "b")], &[]);
    for (services, full) in [
        (&[(1, "b"), (2, "a")][..], true),
        (&[(1, "c"), (2, "a")], true),
        (&[(1, "c"), (2, "b"), (3, "a")], true),
        (&[(1, "c"), (2, "d")], false),
        // whose name goes with it leaves it to the next
        (&[(2, "b"), (3, "a")], false),
    ] {
        let now = view(services, &[]);
        assert_eq!(told(&before, &now).is_none(), full, "{services:?}");
    }
}

#[test]
fn a_part_is_as_it_was_at_the_revision_that_is_asked_for() {
    let body = |name: &str| json!({"id": id(1), "name": name});
    let row = |revision, before: Option<&str>, after: Option<&str>| Change {
        revision,
        actor: String::new(),
        at_ms: 0,
        operation: String::new(),
        kind: "services".to_owned(),
        id: id(1),
        before: before.map(body),
        after: after.map(body),
    };
    let around = Around {
        revision: 9,
        changes: vec![
            row(3, None, Some("a")),
            row(5, Some("a"), Some("b")),
            row(7, Some("b"), None),
            row(9, None, Some("c")),
        ],
        others: vec![(Kind::Consumer, json!({"id": id(2), "username": "u"}))],
    };
    for (revision, name) in [
        (2, None),
        (3, Some("a")),
        (4, Some("a")),
        (6, Some("b")),
        (7, None),
        (8, None),
        (9, Some("c")),
    ] {
        let part = part(&around, revision);
        let services = part.get(&Kind::Service).map_or(&[][..], Vec::as_slice);
        let names: Vec<_> = services.iter().map(|it| it["name"].as_str()).collect();
        assert_eq!(names, Vec::from_iter(name.map(Some)), "{revision}");
        assert_eq!(part[&Kind::Consumer].len(), 1);
    }
}
