//! What clients see while the audit log cannot be written.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use hyper::Method;
use rusqlite::Connection;
use support::Lab;

#[tokio::test]
async fn without_a_log_changes_are_refused_and_reads_go_on() {
    let lab = Lab::start().await;
    let token = lab.first.token.clone();
    let ask = async |method, path: &str, body: &'static str| {
        lab.request(method, path, Some(&token), body).await
    };
    let make = async |name: &'static str| {
        let body = match name {
            "first" => "{\"name\": \"first\"}",
            "second" => "{\"name\": \"second\"}",
            _ => "{\"name\": \"third\"}",
        };
        ask(Method::POST, "/v2/control-planes", body).await
    };
    let names = async || {
        let answer = ask(Method::GET, "/v2/control-planes?page[size]=100", "").await;
        assert_eq!(answer.status, 200);
        let data = answer.body["data"].as_array().unwrap().clone();
        data.into_iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    // somebody else holds the file: writes fail once they have waited for it
    let holder = Connection::open(lab.directory.path().join("audit.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let made = make("first").await;
    assert_eq!(made.status, 503);
    let detail = made.body["detail"].as_str().unwrap();
    assert!(detail.contains("carried out with status 201"), "{detail}");
    let refused = make("second").await;
    assert_eq!(refused.status, 503);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("nothing was changed"), "{detail}");
    let known = names().await;
    assert!(
        known.contains(&"first".to_owned()) && !known.contains(&"second".to_owned()),
        "{known:?}"
    );

    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(make("third").await.status, 201);
    let log = ask(Method::GET, "/v3/audit-logs?filter[type]=audit_log", "").await;
    let resumed = log.body["data"].as_array().unwrap();
    let resumed = resumed
        .iter()
        .find(|it| it["name"] == "Log.Resumed")
        .unwrap();
    let message = resumed["message"].as_str().unwrap();
    assert!(message.contains("events are not in it"), "{message}");
}

#[tokio::test]
async fn the_log_can_be_paged_both_ways_and_bad_questions_are_refused() {
    let lab = Lab::start().await;
    let token = lab.first.token.clone();
    let ask = async |path: &str| lab.request(Method::GET, path, Some(&token), "").await;
    for at in 0..5 {
        let path = format!("/v2/control-planes/{at}");
        let answer = lab.request(Method::DELETE, &path, Some(&token), "").await;
        assert_eq!(answer.status, 404);
    }
    let seqs = |body: &serde_json::Value| {
        let data = body["data"].as_array().unwrap().iter();
        data.map(|it| it["seq"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let changes = "/v3/audit-logs?filter[type]=gateway_access";
    let whole = seqs(&ask(changes).await.body);
    assert_eq!(whole.len(), 5);
    let first = ask(&format!("{changes}&page[size]=2")).await.body;
    assert_eq!(seqs(&first), whole[..2]);
    assert_eq!(first["meta"]["page"]["previous"], serde_json::Value::Null);
    let second = ask(first["meta"]["page"]["next"].as_str().unwrap())
        .await
        .body;
    assert_eq!(seqs(&second), whole[2..4]);
    let third = ask(second["meta"]["page"]["next"].as_str().unwrap())
        .await
        .body;
    assert_eq!(seqs(&third), whole[4..]);
    assert_eq!(third["meta"]["page"]["next"], serde_json::Value::Null);
    let back = ask(third["meta"]["page"]["previous"].as_str().unwrap())
        .await
        .body;
    assert_eq!(seqs(&back), whole[2..4]);
    let back = ask(back["meta"]["page"]["previous"].as_str().unwrap())
        .await
        .body;
    assert_eq!(seqs(&back), whole[..2]);

    let future = ask("/v3/audit-logs?filter[ts][gte]=2999-01-01T00:00:00Z").await;
    assert!(seqs(&future.body).is_empty());
    let past = ask("/v3/audit-logs?filter[ts][lt]=2000-01-01T00:00:00Z").await;
    assert!(seqs(&past.body).is_empty());
    for bad in [
        "page[size]=0",
        "page[size]=1001",
        "page[after]=x",
        "filter[type]=everything",
        "filter[ts][gte]=yesterday",
        "filter[name]=x",
    ] {
        let answer = ask(&format!("/v3/audit-logs?{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}: {:?}", answer.body);
    }
    let answer = lab.request(Method::GET, changes, None, "").await;
    assert_eq!(answer.status, 401);
}
