use http::StatusCode;
use http_body_util::BodyExt;
use proptest::prelude::*;
use sallyport_model::Kind;
use sallyport_model::declarative::{Format, parse, parse_text};
use serde_json::{Value, json};

use super::config::{document, refused};
use super::health::SetHealth;
use super::place::Place;
use super::{entities, refused as refused_write};
use crate::api::arguments;
use crate::conf::Conf;
use crate::enabled::Enabled;
use crate::entities::Entities;

fn plugins() -> Enabled {
    let (conf, _) = Conf::load(Some("database = off"), [], &["key-auth", "rate-limiting"]).unwrap();
    Enabled::new(&conf)
}

fn id(n: u16) -> String {
    format!("00000000-0000-4000-8000-00000000{n:04}")
}

/// Services `s0`…`s4` with a route each, one consumer with a key, one upstream with two targets.
fn all() -> Entities {
    let services: Vec<Value> = (0..5)
        .map(|n| {
            let tags = match n {
                0 => json!(["a"]),
                1 => json!(["a", "b"]),
                2 => json!(["b"]),
                _ => Value::Null,
            };
            let routes = json!([{"id": id(100 + n), "name": format!("r{n}"), "paths": ["/"]}]);
            json!({"id": id(n), "name": format!("s{n}"), "host": "h", "tags": tags, "routes": routes})
        })
        .collect();
    let table = json!({
        "_format_version": "3.0",
        "services": services,
        "consumers": [{"id": id(200), "username": "al ice", "custom_id": "7",
                       "keyauth_credentials": [{"id": id(201), "key": "k"}]}],
        "upstreams": [{"id": id(300), "name": "u", "targets": [
            {"id": id(301), "target": "10.0.0.1:80"}, {"id": id(302), "target": "10.0.0.2:80"}]}],
        "plugins": [{"id": id(400), "name": "key-auth", "service": "s0"}],
    });
    let declared = parse(table, Format::File, &plugins()).unwrap();
    Entities::new(&declared.value, &Kind::ALL, 1_700_000_000)
}

/// What a `GET` of this path and query answers.
fn get(path: &str) -> Result<Value, StatusCode> {
    let all = all();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = arguments(Some(query));
    let found = match Place::parse(path) {
        Place::Collection(kind) => entities::list(&all, kind, None, &query),
        Place::One(kind, key) => entities::one(&all, kind, &key),
        Place::Below {
            parent,
            key,
            child,
            field,
            path,
        } => entities::list_below(&all, (parent, &key), child, field, &path, &query),
        Place::OneBelow {
            parent,
            key,
            child,
            field,
            child_key,
        } => entities::one_below(&all, (parent, &key), child, field, &child_key),
        Place::Foreign { kind, key, field } => entities::foreign(&all, kind, &key, field),
        Place::Tags(tag) => entities::tags(&all, tag.as_deref(), &query),
        other => panic!("{other:?}"),
    };
    found.map_err(|error| error.answer().status())
}

/// Names (or ids) of what a list holds.
#[track_caller]
fn check(path: &str, expected: &[&str]) {
    let list = get(path).unwrap();
    let data = list["data"].as_array().unwrap().iter();
    let names: Vec<&str> = data
        .map(|entity| {
            let name = ["name", "username", "target", "tag"]
                .iter()
                .find_map(|field| entity[field].as_str());
            name.unwrap_or_else(|| entity["id"].as_str().unwrap())
        })
        .collect();
    assert_eq!(names, expected, "{path}");
}

#[track_caller]
fn check_refused(path: &str, status: u16) {
    assert_eq!(get(path).unwrap_err(), status, "{path}");
}

#[test]
fn lists_are_read() {
    check("/services", &["s0", "s1", "s2", "s3", "s4"]);
    check("/services/", &["s0", "s1", "s2", "s3", "s4"]);
    check("/services?tags=a", &["s0", "s1"]);
    check("/services?tags=a,b", &["s1"]);
    check("/services?tags=a/b", &["s0", "s1", "s2"]);
    check("/services/s1/routes", &["r1"]);
    check(&format!("/services/{}/routes", id(1)), &["r1"]);
    check("/services/s0/plugins", &["key-auth"]);
    check("/services/s1/plugins", &[]);
    check("/consumers?custom_id=7", &["al ice"]);
    check("/consumers?custom_id=8", &[]);
    check("/consumers/al%20ice/key-auth", &[&id(201)]);
    check("/key-auths", &[&id(201)]);
    check("/upstreams/u/targets", &["10.0.0.1:80", "10.0.0.2:80"]);
    check("/upstreams/u/targets/all", &["10.0.0.1:80", "10.0.0.2:80"]);
    check("/tags", &["a", "a", "b", "b"]);
    check("/tags/b", &["b", "b"]);
    check_refused("/services/nobody/routes", 404);
    check_refused("/services?size=0", 400);
    check_refused("/services?size=1001", 400);
    check_refused("/services?offset=x", 400);
    check_refused("/services?tags=a,b/c", 400);
    check_refused("/services?tags=a,,b", 400);
}

#[test]
fn pages_follow_each_other() {
    for (path, expected) in [
        ("/services?size=2", vec!["s0", "s1", "s2", "s3", "s4"]),
        ("/services?size=1&tags=a/b", vec!["s0", "s1", "s2"]),
        (
            "/upstreams/u/targets?size=1",
            vec!["10.0.0.1:80", "10.0.0.2:80"],
        ),
        ("/tags?size=3", vec!["a", "a", "b", "b"]),
        ("/services?size=5", vec!["s0", "s1", "s2", "s3", "s4"]),
    ] {
        let mut path = path.to_owned();
        let mut seen = Vec::new();
        loop {
            let page = get(&path).unwrap();
            for entity in page["data"].as_array().unwrap() {
                let name = ["name", "target", "tag"]
                    .iter()
                    .find_map(|field| entity[field].as_str());
                seen.push(name.unwrap().to_owned());
            }
            assert_eq!(page["offset"].is_null(), page["next"].is_null());
            match page["next"].as_str() {
                Some(next) => path = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn single_entities_are_read_whole() {
    let service = get("/services/s1").unwrap();
    assert_eq!(service["id"], id(1));
    assert_eq!(service["port"], 80);
    assert_eq!(service["path"], Value::Null);
    assert_eq!(service["created_at"], 1_700_000_000);
    assert_eq!(get(&format!("/services/{}", id(1))).unwrap(), service);
    assert_eq!(get("/routes/r1/service").unwrap(), service);
    assert_eq!(
        get("/services/s1/routes/r1").unwrap()["service"],
        json!({"id": id(1)})
    );
    assert_eq!(get("/consumers/al%20ice").unwrap()["custom_id"], "7");
    let target = get("/upstreams/u/targets/10.0.0.2:80").unwrap();
    assert_eq!(target["id"], id(302));
    check_refused("/services/s1/routes/r2", 404);
    check_refused("/services/s9", 404);
    check_refused(&format!("/services/{}", id(9)), 404);
    check_refused(&format!("/plugins/{}/route", id(400)), 404);
}

async fn body(answer: super::Answer) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[test]
fn targets_are_named_with_and_without_an_address() {
    let check = |path: &str, target: &str, address: Option<&str>, healthy: bool| {
        let expected = Place::SetHealth(SetHealth {
            upstream: "u".to_owned(),
            target: target.to_owned(),
            address: address.map(str::to_owned),
            healthy,
        });
        assert_eq!(Place::parse(path), expected);
    };
    check("/upstreams/u/targets/a:80/healthy", "a:80", None, true);
    check(
        "/upstreams/u/targets/a%3A80/10.0.0.1:80/unhealthy",
        "a:80",
        Some("10.0.0.1:80"),
        false,
    );
}

#[tokio::test]
async fn writes_are_refused_as_kong_does() {
    let refuse = |method, path: &str| refused_write(&method, &Place::parse(path));
    let (status, answer) = body(refuse(http::Method::POST, "/services")).await;
    let text = "cannot create 'services' entities when not using a database";
    assert_eq!(
        (status, answer),
        (
            405,
            json!({"code": 12, "name": "operation unsupported", "message": text})
        )
    );
    for (method, path, part) in [
        (http::Method::PUT, "/routes/r", "create or update 'routes'"),
        (http::Method::PATCH, "/consumers/c", "update 'consumers'"),
        (
            http::Method::DELETE,
            "/upstreams/u/targets/t",
            "remove 'targets'",
        ),
    ] {
        let (status, answer) = body(refuse(method, path)).await;
        assert_eq!(status, 405);
        assert!(answer["message"].as_str().unwrap().contains(part));
    }
    assert_eq!(refuse(http::Method::POST, "/nothing").status(), 404);
    assert_eq!(refuse(http::Method::POST, "/status").status(), 405);
}

#[tokio::test]
async fn problems_of_a_document_are_told_nested_or_flat() {
    let text = json!({
        "_format_version": "3.0",
        "services": [
            {"name": "ok", "host": "h"},
            {"name": "bad", "host": "h", "port": 99_999, "routes": [{"name": "r", "paths": ["x"]}]},
        ],
    })
    .to_string();
    let problems = parse_text(&text, Format::File, &plugins()).unwrap_err();
    let (status, nested) = body(refused(&problems, false)).await;
    assert_eq!((status, &nested["code"]), (400, &json!(14)));
    assert_eq!(nested["name"], "invalid declarative configuration");
    assert!(nested["fields"]["services"][0].is_null());
    assert!(
        nested["fields"]["services"][1]["port"].is_string(),
        "{nested:#}"
    );
    assert!(nested["fields"]["services"][1]["routes"][0]["paths"][0].is_string());
    assert!(nested.get("flattened_errors").is_none());
    let (_, flat) = body(refused(&problems, true)).await;
    assert_eq!(flat["fields"], json!({}));
    let errors = flat["flattened_errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{flat:#}");
    assert_eq!(errors[0]["entity_type"], "service");
    assert_eq!(errors[0]["entity_name"], "bad");
    assert_eq!(errors[0]["errors"][0]["field"], "port");
    assert_eq!(errors[0]["errors"][0]["type"], "field");
}

#[test]
fn a_document_comes_in_many_wrappings() {
    let check = |content_type: &str, text: &str| {
        assert_eq!(
            document(content_type, text.to_owned()),
            "a: 1\n",
            "{content_type}"
        );
    };
    check("", "a: 1\n");
    check("text/yaml", "a: 1\n");
    check("application/json", "{\"config\": \"a: 1\\n\"}");
    check("application/x-www-form-urlencoded", "x=y&config=a%3A+1%0A");
    check(
        "multipart/form-data; boundary=\"b0\"",
        "--b0\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--b0\r\n\
         Content-Disposition: form-data; name=\"config\"; filename=\"k.yml\"\r\n\r\na: 1\n\r\n--b0--\r\n",
    );
    let whole = "{\"services\": []}";
    assert_eq!(document("application/json", whole.to_owned()), whole);
}

#[test]
fn what_is_in_force_can_be_put_in_force_again() {
    let all = all();
    let declared = parse_text(&all.document(), Format::File, &plugins()).unwrap();
    let again = Entities::new(&declared.value, &Kind::ALL, 0);
    assert_eq!(again.document(), all.document());
}

proptest! {
    #[test]
    fn no_path_or_body_panics(
        path in "/?[a-z/%0-9.-]{0,40}", kind in ".{0,40}", text in ".{0,80}",
    ) {
        let place = Place::parse(&path);
        let _ = refused_write(&http::Method::PUT, &place);
        let boundary = format!("multipart/form-data; boundary={kind}");
        for content_type in [&kind[..], &boundary, "application/json"] {
            let _ = document(content_type, text.clone());
        }
        let all = Entities::default();
        let query = arguments(Some(&text));
        let _ = entities::list(&all, Kind::Route, None, &query);
        let _ = entities::tags(&all, None, &query);
    }
}
