//! What a payload brings, a writer completes, and indexes say.

use super::*;

#[test]
fn payloads_may_bring_times_and_ttl() {
    let parse = |kind, body| parse_entity_in(kind, body, Mode::Payload, &TwoPlugins::new());
    let body = json!({"consumer": ID, "key": "k", "updated_at": 5, "ttl": null, "later": null});
    assert_eq!(
        parse(Kind::KeyAuth, body).unwrap()["consumer"],
        json!({"id": ID})
    );
    assert!(parse(Kind::Service, json!({"host": "a", "ttl": 5})).is_ok());
    assert!(parse(Kind::Service, json!({"host": "a", "later": 5})).is_err());
}

#[test]
fn a_writer_completes_what_was_not_given() {
    let id = Uuid::from_u128(7);
    let fill = Fill {
        id,
        created_at: 1,
        updated_at: 2,
        random_keys: ["secret", "other"],
    };
    let mut key = parse(Kind::KeyAuth, smallest(Kind::KeyAuth)).unwrap();
    fill.apply(Kind::KeyAuth, &mut key);
    assert_eq!(key["id"], id.to_string());
    assert_eq!(key["key"], "secret");
    assert_eq!(key["created_at"], 1);
    assert_eq!(key.get("updated_at"), None);
    let mut jwt = parse(Kind::Jwt, smallest(Kind::Jwt)).unwrap();
    fill.apply(Kind::Jwt, &mut jwt);
    assert_eq!(
        (&jwt["key"], &jwt["secret"]),
        (&json!("secret"), &json!("other"))
    );
    let mut given = parse(Kind::Jwt, with(Kind::Jwt, "key", json!("issuer"))).unwrap();
    fill.apply(Kind::Jwt, &mut given);
    assert_eq!(
        (&given["key"], &given["secret"]),
        (&json!("issuer"), &json!("other"))
    );
    let mut service = parse(
        Kind::Service,
        json!({"id": ID, "host": "a", "created_at": 9}),
    )
    .unwrap();
    fill.apply(Kind::Service, &mut service);
    assert_eq!(
        (
            &service["id"],
            &service["created_at"],
            &service["updated_at"]
        ),
        (&json!(ID), &json!(1), &json!(2))
    );
}

#[test]
fn indexes_say_what_is_unique_and_what_refers_to_what() {
    let id: Uuid = ID.parse().unwrap();
    let route = parse(
        Kind::Route,
        json!({"name": "r", "paths": ["/"], "service": {"id": ID}, "tags": ["t"]}),
    );
    assert_eq!(
        index(Kind::Route, &route.unwrap()),
        Index {
            unique: vec![("name", "r".to_owned())],
            foreign: vec![("service", Kind::Service, id, OnDelete::Restrict)],
            tags: vec!["t".to_owned()],
        }
    );
    let target = parse(Kind::Target, smallest(Kind::Target)).unwrap();
    let found = index(Kind::Target, &target);
    assert_eq!(found.unique, [("upstream, target", format!("{ID}|a:8000"))]);
    assert_eq!(found.unique, [unique_target(id, "a").unwrap()]);
    assert_eq!(
        found.foreign,
        [("upstream", Kind::Upstream, id, OnDelete::Cascade)]
    );
    let plugin = json!({
        "name": "rate-limiting", "config": {"second": 1}, "service": {"id": OTHER},
        "consumer": {"id": ID},
    });
    let plugin = parse(Kind::Plugin, plugin).unwrap();
    assert_eq!(
        index(Kind::Plugin, &plugin).unique,
        [(
            "name, route, service, consumer",
            format!("rate-limiting||{OTHER}|{ID}"),
        )]
    );
    let consumer = parse(Kind::Consumer, json!({"username": "a", "custom_id": "1"})).unwrap();
    assert_eq!(
        index(Kind::Consumer, &consumer).unique,
        [("username", "a".to_owned()), ("custom_id", "1".to_owned()),]
    );
}
