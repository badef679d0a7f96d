//! What hostile, hasty and lost clients send.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use support::Lab;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_for_one_name_exactly_one_wins() {
    let lab = Arc::new(Lab::start().await);
    let mut writers = JoinSet::new();
    for number in 0..40 {
        let lab = Arc::clone(&lab);
        writers.spawn(async move {
            let body = json!({"name": "orders", "host": format!("h{number}.example")});
            let answer = lab.core(Method::POST, "services", body).await;
            (number, answer)
        });
    }
    let mut won = Vec::new();
    while let Some(written) = writers.join_next().await {
        let (number, answer) = written.unwrap();
        match answer.status {
            201 => won.push(number),
            400 => assert_eq!(answer.body["details"][0]["field"], "name", "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
    let [winner] = won.as_slice() else {
        panic!("{won:?}");
    };
    let found = lab.core(Method::GET, "services/orders", Value::Null).await;
    assert_eq!(found.body["host"], format!("h{winner}.example"));
    let mut makers = JoinSet::new();
    for _ in 0..20 {
        let lab = Arc::clone(&lab);
        makers.spawn(async move {
            let body = json!({"name": "shop"});
            lab.api(Method::POST, "/v2/control-planes", body)
                .await
                .status
        });
    }
    let mut statuses = makers.join_all().await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 19][..]));
}

#[tokio::test]
async fn a_replayed_put_changes_nothing() {
    let lab = Lab::start().await;
    let body = json!({"name": "s", "host": "h", "tags": ["b", "a"]});
    let path = "services/11111111-1111-4111-8111-111111111111";
    let first = lab.core(Method::PUT, path, body.clone()).await;
    let cp = lab.first.control_plane.id;
    let revision = lab.store.revision(cp).await.unwrap();
    for _ in 0..5 {
        let again = lab.core(Method::PUT, path, body.clone()).await;
        assert_eq!((again.status, &again.body), (200, &first.body));
    }
    assert_eq!(lab.store.revision(cp).await.unwrap(), revision);
    lab.stop().await;
}

#[tokio::test]
async fn a_path_leads_nowhere_but_to_what_it_names() {
    let lab = Lab::start().await;
    let other = json!({"name": "other"});
    let other = lab.api(Method::POST, "/v2/control-planes", other).await;
    let other = other.body["id"].as_str().unwrap().to_owned();
    let secret = format!("/v2/control-planes/{other}/core-entities/services/secret");
    lab.api(Method::PUT, &secret, json!({"host": "h"})).await;
    for key in [
        "..",
        "../services",
        "..%2f..%2f..",
        "%2e%2e/%2e%2e",
        "%2e%2e%2fservices",
        ".%00",
        "%00",
        "%ff%fe",
        "services%3bDROP%20TABLE%20entity",
        "'%20OR%20'1'%3d'1",
        &format!("../../../{other}/core-entities/services/secret"),
        &format!("..%2f..%2f..%2f{other}%2fcore-entities%2fservices%2fsecret"),
    ] {
        let answer = lab
            .core(Method::GET, &format!("services/{key}"), Value::Null)
            .await;
        let refused = answer.status == 404 || answer.status == 400;
        assert!(refused, "{key}: {answer:?}");
        assert!(
            !answer.body.to_string().contains("secret\""),
            "{key}: {answer:?}"
        );
        let gone = lab
            .core(Method::DELETE, &format!("services/{key}"), Value::Null)
            .await;
        assert!(gone.status < 500, "{key}: {gone:?}");
        let path = format!("/v2/control-planes/{key}");
        assert!(
            lab.api(Method::GET, &path, Value::Null).await.status >= 400,
            "{key}"
        );
    }
    assert_eq!(lab.api(Method::GET, &secret, Value::Null).await.status, 200);
    lab.stop().await;
}

/// An id of another control plane's entity is as one that never was.
#[tokio::test]
async fn another_control_planes_entities_are_not_there() {
    let lab = Lab::start().await;
    let other = json!({"name": "other"});
    let other = lab.api(Method::POST, "/v2/control-planes", other).await;
    let other = format!(
        "/v2/control-planes/{}/core-entities",
        other.body["id"].as_str().unwrap()
    );
    let body = json!({"host": "h"});
    let theirs = lab
        .api(Method::PUT, &format!("{other}/services/theirs"), body)
        .await;
    let theirs = theirs.body["id"].as_str().unwrap().to_owned();
    let nowhere = "99999999-9999-4999-8999-999999999999";
    let ask = async |id: &str| {
        let path = format!("services/{id}");
        let found = lab.core(Method::GET, &path, Value::Null).await;
        let route = json!({"name": "r", "paths": ["/r"], "service": {"id": id}});
        let written = lab.core(Method::POST, "routes", route).await;
        let nested = lab
            .core(Method::GET, &format!("services/{id}/routes"), Value::Null)
            .await;
        let all = format!("{found:?} {written:?} {nested:?}");
        (
            found.status,
            written.status,
            nested.status,
            all.replace(id, "ID"),
        )
    };
    let (theirs, never) = (ask(&theirs).await, ask(nowhere).await);
    assert_eq!(theirs, never);
    assert_eq!((theirs.0, theirs.1, theirs.2), (404, 400, 404));
    lab.stop().await;
}

#[tokio::test]
async fn rubbish_in_bodies_is_refused_on_every_path() {
    let lab = Lab::start().await;
    let cp = lab.cp();
    let paths = [
        (Method::POST, "/v2/control-planes".to_owned()),
        (Method::PATCH, format!("/v2/control-planes/{cp}")),
        (
            Method::POST,
            format!("/v2/control-planes/{cp}/core-entities/services"),
        ),
        (
            Method::POST,
            format!("/v2/control-planes/{cp}/core-entities:batch"),
        ),
        (
            Method::POST,
            format!("/v2/control-planes/{cp}/dp-client-certificates"),
        ),
        (Method::POST, format!("/v2/control-planes/{cp}/drafts")),
        (Method::POST, "/v3/teams".to_owned()),
        (Method::POST, "/v3/invites".to_owned()),
        (Method::PATCH, "/v3/authentication-settings".to_owned()),
    ];
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 7] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"name=x",
        b"{\"name\": \"\xff\"}",
        deep.as_bytes(),
    ];
    for (method, path) in paths {
        for body in bodies {
            let token = Some(lab.first.token.as_str());
            let answer = lab
                .request(method.clone(), &path, token, body.to_vec())
                .await;
            let text = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
            assert_eq!(answer.status, 400, "{method} {path} {text}: {answer:?}");
        }
        let large = vec![b' '; 10 * 1024 * 1024 + 1];
        let token = Some(lab.first.token.as_str());
        let answer = lab.request(method.clone(), &path, token, large).await;
        assert_eq!(answer.status, 413, "{method} {path}: {answer:?}");
    }
    lab.stop().await;
}
