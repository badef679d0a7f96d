//! Credentials and groups of consumers, as clients write and read them.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use sallyport_model::basic_auth::hash_password;
use serde_json::{Value, json};
use uuid::Uuid;

use support::Lab;

async fn consumer(lab: &Lab) -> Uuid {
    let answer = lab.core(Method::PUT, "consumers/alice", json!({})).await;
    answer.body["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_password_is_hashed_on_every_write_and_shown_as_the_hash() {
    let lab = Lab::start().await;
    let alice = consumer(&lab).await;
    let hash = hash_password(alice, "secret");
    let path = "consumers/alice/basic-auth";
    let body = json!({"username": "alice", "password": "secret"});
    let made = lab.core(Method::POST, path, body.clone()).await;
    assert_eq!((made.status, &made.body["password"]), (201, &json!(hash)));
    let one = format!("{path}/{}", made.body["id"].as_str().unwrap());
    for read in [
        &one,
        &format!("{path}/alice"),
        &"basic-auths/alice".to_owned(),
    ] {
        let found = lab.core(Method::GET, read, Value::Null).await;
        assert_eq!(
            (found.status, &found.body["password"]),
            (200, &json!(hash)),
            "{read}"
        );
    }
    let again = lab.core(Method::PUT, &one, body).await;
    assert_eq!((again.status, &again.body["password"]), (200, &json!(hash)));
    // a client that moves hashes from elsewhere says so
    let moved = json!({"username": "alice", "password": hash});
    let moved = lab
        .core(Method::PUT, &format!("{one}?skip_hash=true"), moved)
        .await;
    assert_eq!((moved.status, &moved.body["password"]), (200, &json!(hash)));
    let taken = json!({"username": "alice", "password": "other"});
    let taken = lab.core(Method::POST, path, taken).await;
    assert_eq!(taken.status, 400);
    let message = taken.body["message"].as_str().unwrap();
    assert!(
        message.contains("username (type: unique) constraint failed"),
        "{message}"
    );
    lab.stop().await;
}

#[tokio::test]
async fn secrets_that_are_not_given_are_generated() {
    let lab = Lab::start().await;
    consumer(&lab).await;
    let hmac = json!({"username": "alice"});
    let hmac = lab
        .core(Method::POST, "consumers/alice/hmac-auth", hmac)
        .await;
    let jwt = lab
        .core(Method::POST, "consumers/alice/jwt", json!({}))
        .await;
    assert_eq!((hmac.status, jwt.status), (201, 201));
    let random: Vec<&str> = [&hmac.body["secret"], &jwt.body["key"], &jwt.body["secret"]]
        .into_iter()
        .map(|value| value.as_str().unwrap())
        .collect();
    assert!(random.iter().all(|text| text.len() == 32), "{random:?}");
    assert_ne!(random[1], random[2]);
    assert_eq!(jwt.body["algorithm"], "HS256");
    let path = format!("consumers/alice/jwt/{}", random[1]);
    let found = lab.core(Method::GET, &path, Value::Null).await;
    assert_eq!(found.body["id"], jwt.body["id"]);
    lab.stop().await;
}

#[tokio::test]
async fn groups_are_named_within_their_consumer() {
    let lab = Lab::start().await;
    consumer(&lab).await;
    lab.core(Method::PUT, "consumers/bob", json!({})).await;
    for consumer in ["alice", "bob"] {
        let path = format!("consumers/{consumer}/acls");
        let made = lab
            .core(Method::POST, &path, json!({"group": "staff"}))
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        let found = lab
            .core(Method::GET, &format!("{path}/staff"), Value::Null)
            .await;
        assert_eq!(found.body["id"], made.body["id"]);
    }
    let twice = json!({"group": "staff"});
    let twice = lab.core(Method::POST, "consumers/bob/acls", twice).await;
    assert_eq!(twice.status, 400, "{twice:?}");
    let flat = lab.core(Method::POST, "acls", json!({"group": "x"})).await;
    assert_eq!(flat.status, 405, "only below a consumer");
    let all = lab.core(Method::GET, "acls", Value::Null).await;
    assert_eq!(all.body["data"].as_array().unwrap().len(), 2);
    // they go with their consumer
    lab.core(Method::DELETE, "consumers/bob", Value::Null).await;
    let left = lab.core(Method::GET, "acls", Value::Null).await;
    assert_eq!(left.body["data"].as_array().unwrap().len(), 1);
    lab.stop().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_refused() {
    let lab = Lab::start().await;
    consumer(&lab).await;
    let body = json!({"algorithm": "RS256", "rsa_public_key": "nonsense"});
    let answer = lab.core(Method::POST, "consumers/alice/jwt", body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["details"][0]["field"], "rsa_public_key");
    lab.stop().await;
}

#[tokio::test]
async fn the_secret_of_a_plugin_is_generated_once() {
    let lab = Lab::start().await;
    let id = Uuid::new_v4();
    let path = format!("plugins/{id}");
    let put = async |config: Value| {
        let body = json!({"name": "session", "config": config});
        let answer = lab.core(Method::PUT, &path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["config"]["secret"].as_str().unwrap().to_owned()
    };
    let first = put(json!({})).await;
    assert_eq!(first.len(), 44);
    assert_eq!(
        put(json!({"cookie_name": "s"})).await,
        first,
        "sessions live on"
    );
    assert_eq!(put(json!({"secret": "given"})).await, "given");
    assert_eq!(put(json!({})).await, "given");
    let body = json!({"name": "session", "route": null});
    lab.core(Method::DELETE, &path, Value::Null).await;
    let other = lab.core(Method::POST, "plugins", body).await;
    assert_eq!(other.status, 201, "{other:?}");
    assert_ne!(other.body["config"]["secret"], first);
    lab.stop().await;
}

#[tokio::test]
async fn plugins_that_are_left_out_are_refused_with_the_reason() {
    let lab = Lab::start().await;
    for (name, reason) in [
        ("oauth2", "tokens need a database"),
        ("openid-connect", "commercial"),
        ("ai-proxy", "language models"),
        ("pre-function", "code in configurations is not run"),
    ] {
        let answer = lab
            .core(Method::POST, "plugins", json!({"name": name}))
            .await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let message = answer.body["message"].as_str().unwrap();
        assert!(
            message.contains(name) && message.contains(reason),
            "{message}"
        );
    }
    lab.stop().await;
}
