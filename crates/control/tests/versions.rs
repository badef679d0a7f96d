//! Past versions over the API: read, listed, compared, restored.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Lab};

struct Client {
    lab: Lab,
    cp: String,
}

impl Client {
    async fn start() -> Client {
        let lab = Lab::start().await;
        let cp = format!("/v2/control-planes/{}", lab.cp());
        Client { lab, cp }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        let path = format!("{}/{path}", self.cp);
        self.lab.api(method, &path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        let path = format!("core-entities/{path}");
        let answer = self.send(Method::PUT, &path, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Names or hosts of what a list holds.
    async fn hosts(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await;
        let mut hosts: Vec<String> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|service| service["host"].as_str().unwrap().to_owned())
            .collect();
        hosts.sort();
        hosts
    }

    #[track_caller]
    fn refused(answer: &Answer, status: u16, part: &str) {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.to_string().contains(part), "{answer:?}");
    }
}

/// Version 1: `a`; 2: `a` and `b`; 3: `a` on another host; 4: only `b`.
async fn history(client: &Client) {
    client
        .put("services/a", json!({"host": "a.one", "tags": ["x"]}))
        .await;
    client.put("services/b", json!({"host": "b.one"})).await;
    client
        .put("services/a", json!({"host": "a.two", "tags": ["x"]}))
        .await;
    let gone = client
        .send(Method::DELETE, "core-entities/services/a", Value::Null)
        .await;
    assert_eq!(gone.status, 204);
}

#[tokio::test]
async fn past_versions_are_read_by_number_time_and_prefix() {
    let client = Client::start().await;
    history(&client).await;
    let expected: [&[&str]; 5] = [
        &[],
        &["a.one"],
        &["a.one", "b.one"],
        &["a.two", "b.one"],
        &["b.one"],
    ];
    for (version, expected) in expected.iter().enumerate() {
        let path = format!("core-entities/services?as_of={version}");
        assert_eq!(client.hosts(&path).await, *expected);
        let path = format!("versions/{version}/core-entities/services");
        assert_eq!(client.hosts(&path).await, *expected);
    }
    let one = client.get("core-entities/services/a?as_of=3").await;
    assert_eq!(one["host"], "a.two");
    let by_id = format!(
        "versions/1/core-entities/services/{}",
        one["id"].as_str().unwrap()
    );
    assert_eq!(client.get(&by_id).await["host"], "a.one");
    let tagged = client.hosts("core-entities/services?as_of=2&tags=x").await;
    assert_eq!(tagged, ["a.one"]);
    // A time between two versions would need a wait; the ends need none.
    let early = "core-entities/services?as_of=2020-01-01T00:00:00Z";
    assert_eq!(client.hosts(early).await, [""; 0]);
    let late = "core-entities/services?as_of=2999-01-01T00:00:00Z";
    assert_eq!(client.hosts(late).await, ["b.one"]);

    // Pages go on in the version they began in.
    let first = client.get("core-entities/services?as_of=2&size=1").await;
    let next = first["next"].as_str().unwrap();
    assert!(next.contains("as_of=2"), "{next}");
    let second = client.lab.api(Method::GET, next, Value::Null).await.body;
    assert_eq!(second["data"].as_array().unwrap().len(), 1);
    assert_ne!(second["data"], first["data"]);
    assert_eq!(second["next"], Value::Null);
    let first = client.get("versions/2/core-entities/services?size=1").await;
    let next = first["next"].as_str().unwrap();
    assert!(
        next.contains("/versions/2/core-entities/services?"),
        "{next}"
    );

    let get = async |path: &str| client.send(Method::GET, path, Value::Null).await;
    let gone = get("core-entities/services/a?as_of=4").await;
    assert_eq!(gone.status, 404);
    let path = "core-entities/services?as_of=5";
    Client::refused(
        &get(path).await,
        404,
        "there is no version 5; the newest is 4",
    );
    let path = "core-entities/services?as_of=yesterday";
    Client::refused(&get(path).await, 400, "as_of: ");
    let body = json!({"host": "c"});
    for path in [
        "versions/2/core-entities/services/c",
        "core-entities/services/c?as_of=2",
    ] {
        let refused = client.send(Method::PUT, path, body.clone()).await;
        Client::refused(&refused, 405, "a past version cannot be changed");
    }
    client.lab.stop().await;
}

#[tokio::test]
async fn versions_are_listed_compared_and_restored() {
    let client = Client::start().await;
    history(&client).await;
    let all = client.get("versions?page[size]=3").await;
    let numbers = |list: &Value| -> Vec<u64> {
        let list = list["data"].as_array().unwrap();
        list.iter()
            .map(|one| one["version"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&all), [4, 3, 2]);
    let first = &all["data"][0];
    assert_eq!(first["changes"], 1);
    assert!(
        first["actor"].as_str().unwrap().starts_with("token:"),
        "{first}"
    );
    let next = all["meta"]["page"]["next"].as_str().unwrap();
    let rest = client.get(&format!("versions?page[after]={next}")).await;
    assert_eq!(
        (numbers(&rest), &rest["meta"]["page"]["next"]),
        (vec![1], &Value::Null)
    );
    assert_eq!(client.get("versions/4").await, *first);
    assert_eq!(client.get("versions/0").await["created_at"], Value::Null);

    let told = async |path: &str| -> Vec<(String, String, Value, Value)> {
        let changes = client.get(path).await;
        let list = changes["data"].as_array().unwrap().clone();
        list.iter()
            .map(|one| {
                let text = |field: &str| one[field].as_str().unwrap().to_owned();
                let host = |side: &str| one[side]["host"].clone();
                assert_eq!(one["kind"], "services");
                (
                    text("operation"),
                    text("name"),
                    host("before"),
                    host("after"),
                )
            })
            .collect()
    };
    let change = |operation: &str, name: &str, before: Value, after: Value| {
        (operation.to_owned(), name.to_owned(), before, after)
    };
    let update = change("update", "a", json!("a.one"), json!("a.two"));
    assert_eq!(told("versions/3/changes").await, [update]);
    let delete = change("delete", "a", json!("a.two"), Value::Null);
    assert_eq!(told("versions/4/changes").await, [delete]);
    let create = change("create", "a", Value::Null, json!("a.one"));
    assert_eq!(told("versions/1/changes").await, vec![create.clone()]);
    let mut back = told("versions/1/changes?since=4").await;
    back.sort_by(|a, b| a.1.cmp(&b.1));
    let gone = change("delete", "b", json!("b.one"), Value::Null);
    assert_eq!(back, [create, gone]);

    let body = json!({"expected_version": 3});
    let moved = client.send(Method::POST, "versions/2/restore", body).await;
    Client::refused(&moved, 409, "at version 4, not at 3 any more");
    let body = json!({"expected_version": 4});
    let restored = client.send(Method::POST, "versions/2/restore", body).await;
    let expected = json!({"version": 5, "restored": 2, "changes": 1});
    assert_eq!((restored.status, restored.body), (200, expected));
    assert_eq!(
        client.hosts("core-entities/services").await,
        ["a.one", "b.one"]
    );
    assert_eq!(
        client.hosts("core-entities/services?as_of=4").await,
        ["b.one"]
    );
    // What came back is found by its name, and its name is taken.
    let service = client.get("core-entities/services/a").await;
    assert_eq!(service["host"], "a.one");
    let body = json!({"name": "a", "host": "x"});
    let clash = client
        .send(Method::POST, "core-entities/services", body)
        .await;
    assert_eq!(clash.status, 400);
    let again = client
        .send(Method::POST, "versions/2/restore", Value::Null)
        .await;
    assert_eq!((again.status, &again.body["changes"]), (200, &json!(0)));

    let refused = client
        .send(Method::POST, "versions/9/restore", Value::Null)
        .await;
    Client::refused(&refused, 404, "there is no version 9");
    let refused = client
        .send(Method::POST, "versions/x/restore", Value::Null)
        .await;
    Client::refused(&refused, 400, "neither the number of a version nor a time");
    let body = json!({"expected": 4});
    let refused = client.send(Method::POST, "versions/2/restore", body).await;
    Client::refused(&refused, 400, "unknown field");
    client.lab.stop().await;
}
