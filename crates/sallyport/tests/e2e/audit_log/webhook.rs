//! Records sent to webhooks: nothing is lost, whatever the receiver does.

use std::collections::BTreeSet;
use std::sync::Arc;

use sallyport_runtime::certs::LocalCa;
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use sallyport_testkit::{Deadline, eventually, free_port};
use serde_json::{Value, json};

use super::receiver::{Habit, Receiver};
use super::{change, newest};
use crate::lab::{Control, soon, write};

/// For what waits out a few pauses after failures.
fn patiently() -> Deadline {
    Deadline::secs(120)
}

/// Makes a destination; its id.
#[track_caller]
fn destination(control: &Control, endpoint: &str, more: Value) -> String {
    let mut body = json!({
        "name": "receiver", "endpoint": endpoint, "authorization": "Bearer s3cret-hook",
        "log_format": "json", "enabled": true,
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let made = control.api("POST", "/v3/audit-log-destinations", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(!made.text().contains("s3cret-hook"), "{}", made.text());
    made.json()["id"].as_str().unwrap().to_owned()
}

fn seqs(lines: &[String]) -> Vec<u64> {
    let seq = |line: &String| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["seq"].as_u64().unwrap()
    };
    lines.iter().map(seq).collect()
}

/// Waits until the receiver has every record from `first` on up to the newest; checks that they
/// came in order, apart from repetitions.
#[track_caller]
fn wait_for_all(control: &Control, receiver: &Receiver, first: u64) {
    let newest = newest(control);
    eventually("every record has arrived", patiently(), || {
        let got: BTreeSet<u64> = seqs(&receiver.lines()).into_iter().collect();
        (first..=newest).all(|seq| got.contains(&seq))
    });
    let mut highest = first - 1;
    for seq in seqs(&receiver.lines())
        .into_iter()
        .filter(|seq| *seq >= first)
    {
        assert!(seq <= highest + 1, "{seq} came before {}", highest + 1);
        highest = highest.max(seq);
    }
}

fn status(control: &Control) -> Value {
    control
        .api("GET", "/v3/audit-log-webhook/status", &Value::Null)
        .json()
}

#[test]
fn a_receiver_that_is_down_slow_and_duplicating_loses_nothing() {
    let mut control = Control::start();
    let port = free_port();
    let first = newest(&control) + 1;
    let id = destination(
        &control,
        &format!("http://127.0.0.1:{port}/hook"),
        json!({}),
    );
    // a second one that never answers must not hold the first
    destination(
        &control,
        &format!("http://127.0.0.1:{}/", free_port()),
        json!({}),
    );
    let attach = json!({"audit_log_destination_id": id, "enabled": true});
    let attached = control.api("PATCH", "/v3/audit-log-webhook", &attach);
    assert_eq!(attached.status, 200, "{}", attached.text());

    // down
    change(&control, (0..30).map(|at| format!("down{at}")));
    eventually("a failure is shown", patiently(), || {
        let status = status(&control);
        status["webhook_status"] == "inactive" && status["last_attempt_at"].is_string()
    });
    // down even across a restart
    control.kill9();
    control.start_again();
    change(&control, (0..30).map(|at| format!("restarted{at}")));

    let receiver = Receiver::start(port, Habit::Duplicating, None);
    eventually("records came twice", patiently(), || {
        receiver.taken().len() >= 2
    });
    receiver.set(Habit::Silent);
    let before = receiver.taken().len();
    eventually("records came once more", patiently(), || {
        receiver.taken().len() > before
    });
    receiver.set(Habit::Good);
    wait_for_all(&control, &receiver, first + 1);
    eventually("success is shown", patiently(), || {
        status(&control)["webhook_status"] == "active"
    });
    assert_eq!(status(&control)["last_response_code"], 202);
    let delivery = receiver.taken().pop().unwrap();
    for part in [
        "POST /hook HTTP/1.1",
        "content-encoding: gzip",
        "content-type: text/plain",
        "authorization: Bearer s3cret-hook",
    ] {
        assert!(delivery.head.contains(part), "{}", delivery.head);
    }

    // slow: changes are answered while it thinks
    receiver.set(Habit::Slow);
    change(&control, (0..30).map(|at| format!("slow{at}")));
    receiver.set(Habit::Good);
    wait_for_all(&control, &receiver, first + 1);

    // one that takes only few at a time is given few
    receiver.set(Habit::Small(3));
    change(&control, (0..30).map(|at| format!("small{at}")));
    wait_for_all(&control, &receiver, first + 1);
    let unlost = receiver.lines();
    drop(receiver);

    // gone again, and back at the same place with an empty memory
    change(&control, (0..5).map(|at| format!("gone{at}")));
    let receiver = Receiver::start(port, Habit::Good, None);
    let last = *seqs(&unlost).last().unwrap();
    wait_for_all(&control, &receiver, last + 1);
}

#[test]
fn both_versions_speak_of_one_webhook_and_replay_sends_again() {
    let control = Control::start();
    let api = |method: &str, path: &str, body: Value| {
        let answer = control.api(method, path, &body);
        (
            answer.status,
            if answer.body.is_empty() {
                Value::Null
            } else {
                answer.json()
            },
        )
    };
    let (_, shown) = api("GET", "/v2/audit-log-webhook", Value::Null);
    assert_eq!(
        (&shown["endpoint"], &shown["enabled"]),
        (&json!("unconfigured"), &json!(false))
    );
    assert_eq!(status(&control)["webhook_status"], "unconfigured");
    let replay = json!({"start_at": "2020-01-01T00:00:00Z", "end_at": "2999-01-01T00:00:00Z"});
    assert_eq!(
        api("PUT", "/v3/audit-log-replay-job", replay.clone()).0,
        409
    );
    assert_eq!(
        api("GET", "/v3/audit-log-replay-job", Value::Null).1["status"],
        "unconfigured"
    );

    for bad in [
        json!({"endpoint": "http://192.0.2.1/"}),
        json!({"endpoint": "ftp://x"}),
        json!({"endpoint": 1}),
        json!({"enabled": "yes"}),
        json!({"enabled": true}),
        json!({"log_format": "xml"}),
        json!({"authorization": "a\nb"}),
        json!({"nonsense": 1}),
    ] {
        assert_eq!(
            api("PATCH", "/v2/audit-log-webhook", bad.clone()).0,
            400,
            "{bad}"
        );
    }

    let receiver = Receiver::start(0, Habit::Good, None);
    let endpoint = format!("http://127.0.0.1:{}/x?y=z", receiver.port);
    let body = json!({"endpoint": endpoint, "enabled": true, "log_format": "cef"});
    assert_eq!(api("PATCH", "/v2/audit-log-webhook", body).0, 200);
    let (_, shown) = api("GET", "/v3/audit-log-webhook", Value::Null);
    assert_eq!(shown["enabled"], true);
    let id = shown["audit_log_destination_id"]
        .as_str()
        .unwrap()
        .to_owned();
    change(&control, ["one".to_owned()]);
    eventually("the change arrives as CEF", soon(), || {
        receiver.lines().iter().any(|line| {
            line.contains(" sallyport.localhost CEF:0|KongInc|Konnect|1.0|KongGateway|Ingress|1|")
                && line.contains("/core-entities/services/one ")
                && line.contains(" sig=")
        })
    });
    // nothing from before it was enabled, until a replay asks for it
    let started = |line: &String| line.contains("Log.Started");
    assert!(!receiver.lines().iter().any(started));
    let (code, _) = api("PUT", "/v2/audit-log-replay-job", replay);
    assert_eq!(code, 202);
    eventually("the replay ends", soon(), || {
        api("GET", "/v2/audit-log-replay-job", Value::Null).1["status"] == "completed"
    });
    assert!(receiver.lines().iter().any(started));

    assert_eq!(
        api("PATCH", "/v2/audit-log-webhook", json!({"enabled": false})).0,
        200
    );
    assert_eq!(
        api("GET", "/v3/audit-log-webhook", Value::Null).1["enabled"],
        false
    );
    assert_eq!(api("DELETE", "/v3/audit-log-webhook", Value::Null).0, 204);
    let path = format!("/v2/audit-log-destinations/{id}");
    assert_eq!(api("DELETE", &path, Value::Null).0, 204);
    assert_eq!(api("DELETE", &path, Value::Null).0, 404);
    assert_eq!(
        api("GET", "/v2/audit-log-webhook", Value::Null).1["endpoint"],
        "unconfigured"
    );
    assert_eq!(
        api("GET", "/v3/audit-log-destinations", Value::Null).1["data"],
        json!([])
    );
}

#[test]
fn receivers_over_tls_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::create("receiver authority", 30).unwrap();
    write(&dir.path().join("ca.pem"), &ca.pem().cert);
    let tls = |ca: &LocalCa| {
        let pair = ca.issue_server(&["127.0.0.1"], 30).unwrap();
        let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
        Some(Arc::new(
            server_config(&identity, ClientAuth::Off, &[]).unwrap(),
        ))
    };
    let settings = format!(
        "[webhook]\nca = [\"{}\"]\n",
        dir.path().join("ca.pem").display()
    );
    let control = Control::start_with_audit_log(&settings);
    let good = Receiver::start(0, Habit::Good, tls(&ca));
    let stranger = LocalCa::create("stranger", 30).unwrap();
    let bad = Receiver::start(0, Habit::Good, tls(&stranger));
    let unchecked = Receiver::start(0, Habit::Good, tls(&stranger));
    let url = |receiver: &Receiver| format!("https://127.0.0.1:{}/", receiver.port);
    destination(&control, &url(&good), json!({}));
    destination(
        &control,
        &url(&unchecked),
        json!({"skip_ssl_verification": true}),
    );
    let id = destination(&control, &url(&bad), json!({}));
    let attach = json!({"audit_log_destination_id": id});
    assert_eq!(
        control
            .api("PATCH", "/v3/audit-log-webhook", &attach)
            .status,
        200
    );
    change(&control, ["tls".to_owned()]);
    for receiver in [&good, &unchecked] {
        eventually("the change arrives", soon(), || {
            receiver
                .lines()
                .iter()
                .any(|line| line.contains("services/tls"))
        });
    }
    eventually("the failure is shown", soon(), || {
        let status = status(&control);
        status["webhook_status"] == "inactive"
            && status["last_response_message"]
                .as_str()
                .is_some_and(|it| it.contains("certificate"))
    });
    assert!(bad.lines().is_empty());
}
