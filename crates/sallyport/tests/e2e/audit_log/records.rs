//! What is recorded, and what is not; exports and the search for damage.

use std::path::Path;

use sallyport_testkit::Finished;
use sallyport_testkit::http::{get, request};
use serde_json::{Value, json};

use super::{change, pulled};
use crate::lab::{Control, Gateway, Handshake, Pair, sallyport, soon, write};

#[test]
fn changes_and_failures_are_recorded_and_secrets_are_not() {
    let control = Control::start();
    let alice = control.put("consumers/alice", &json!({}));
    let id = alice["id"].as_str().unwrap();
    let key = json!({"key": "s3cret-api-key"});
    let made = control.core("POST", &format!("consumers/{id}/key-auth"), &key);
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!("consumers/{id}/key-auth/s3cret-api-key");
    assert_eq!(control.core("DELETE", &path, &Value::Null).status, 204);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let denied = request("PUT", control.url("/v2/control-planes?token=s3cret-query"))
        .header("Authorization", "Bearer kpat_s3cret-wrong")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("User-Agent", "e2e/1")
        .send()
        .unwrap();
    assert_eq!(denied.status, 401);
    assert_eq!(denied.header("x-trace-id"), Some(trace));
    let instance = denied.json()["instance"].as_str().unwrap().to_owned();
    assert_eq!(instance, format!("kong:trace:{trace}"));

    let changes = pulled(&control, "&filter[type]=gateway_access");
    let prefix = format!("/v2/control-planes/{}/core-entities", control.id);
    let shown: Vec<_> = changes
        .iter()
        .map(|it| {
            let uri = it["uri"].as_str().unwrap();
            let uri = uri.strip_prefix(&prefix).unwrap_or(uri);
            format!(
                "{} {uri} {}",
                it["method"].as_str().unwrap(),
                it["status_code"]
            )
        })
        .collect();
    let expected = [
        "PUT /consumers/alice 200".to_owned(),
        format!("POST /consumers/{id}/key-auth 201"),
        format!("DELETE /consumers/{id}/key-auth/*** 204"),
    ];
    assert_eq!(shown, expected);
    let me = control.api("GET", "/v3/users/me", &Value::Null).json();
    for change in &changes {
        assert_eq!(change["principal_id"], me["id"]);
        assert_eq!(change["principal_name"], me["full_name"]);
        assert_eq!(change["client_ip"], "127.0.0.1");
        assert_eq!(change["signature"].as_str().unwrap().len(), 86);
    }
    let logins = pulled(&control, "&filter[type]=authentication");
    let [known, unknown] = &logins[..] else {
        panic!("{logins:?}")
    };
    assert_eq!(
        (&known["successful"], &known["outcome"]),
        (&json!(true), &json!("success"))
    );
    assert_eq!(
        (&unknown["successful"], &unknown["outcome"]),
        (&json!(false), &json!("not_found"))
    );
    assert_eq!(unknown["trace_id"], trace);
    assert_eq!(unknown["user_agent"], "e2e/1");
    assert_eq!(unknown["principal_id"], Value::Null);

    let text = exported(&control);
    assert!(text.contains("Log.Started"));
    for secret in ["s3cret", control.token()] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn a_change_whose_client_leaves_is_recorded() {
    use std::io::Write;
    let control = Control::start();
    let address = control.url("");
    let address = address.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /v2/control-planes/{}/core-entities/services/half HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\nContent-Length: 100\r\n\r\n{{",
        control.id,
        control.token()
    )
    .unwrap();
    drop(stream);
    let mut found = Vec::new();
    sallyport_testkit::eventually("it is recorded", soon(), || {
        found = pulled(&control, "&filter[type]=gateway_access");
        !found.is_empty()
    });
    assert!(
        found[0]["uri"]
            .as_str()
            .unwrap()
            .ends_with("/services/half"),
        "{found:?}"
    );
    let status = found[0]["status_code"].as_u64().unwrap();
    assert!(matches!(status, 0 | 400), "{found:?}");
}

#[test]
fn data_planes_are_recorded_at_the_door() {
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Pair::make(stranger.path());
    let name = Control::node_name(&control.prefix);
    let opened = Handshake {
        port: control.port,
        name: &name,
        ca: Some(&control.ca()),
        pair: Some(&stranger),
        alpn: &[],
    }
    .open();
    drop(opened);
    let mut logins = Vec::new();
    sallyport_testkit::eventually("both are recorded", soon(), || {
        logins = pulled(&control, "&filter[type]=authentication");
        logins.retain(|it| it["authentication_type"] == "certificate");
        logins.len() == 2
    });
    let (admitted, refused) = (&logins[0], &logins[1]);
    assert_eq!(admitted["principal_id"], control.id.as_str());
    assert_eq!(admitted["uri"], name.as_str());
    assert_eq!(refused["successful"], false);
    assert!(
        refused["reason"].as_str().unwrap().contains("not pinned"),
        "{refused}"
    );
    drop(gateway);
}

/// The log as `sallyport audit export` writes it.
#[track_caller]
fn exported(control: &Control) -> String {
    sallyport()
        .args(["audit", "export", "--data"])
        .arg(control.home())
        .run(soon())
        .success()
        .stdout
}

fn verify(file: &Path, key: &Path, more: &[&str]) -> Finished {
    sallyport()
        .args(["audit", "verify"])
        .arg(file)
        .arg("--key")
        .arg(key)
        .args(more)
        .run(soon())
}

#[test]
fn an_export_shows_what_was_done_to_it() {
    let control = Control::start();
    change(&control, (0..3).map(|at| format!("s{at}")));
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("log"), dir.path().join("jwks.json"));
    // the key is public: no token
    let jwks = get(control.url("/v2/audit-log-webhook/jwks.json"))
        .send()
        .unwrap();
    assert_eq!(
        (jwks.status, &jwks.json()["keys"][0]["crv"]),
        (200, &json!("Ed25519"))
    );
    write(&key, &jwks.body);
    let whole = exported(&control);
    write(&file, &whole);
    let done = verify(&file, &key, &[]).success();
    let head = done
        .stdout
        .split("last record: ")
        .nth(1)
        .unwrap()
        .trim()
        .to_owned();

    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() >= 6, "{whole}");
    for at in 0..lines.len() {
        let mut flipped: Vec<String> = lines.iter().map(|it| (*it).to_owned()).collect();
        let middle = flipped[at].len() / 2;
        let other = if &flipped[at][middle..=middle] == "x" {
            "y"
        } else {
            "x"
        };
        flipped[at].replace_range(middle..=middle, other);
        let mut less = lines.clone();
        less.remove(at);
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % lines.len());
        for damaged in [
            flipped.join("\n"),
            less.join("\n"),
            swapped.join("\n"),
            lines[..at].join("\n"),
        ] {
            write(&file, damaged);
            let done = verify(&file, &key, &[]);
            assert!(!done.status.success(), "line {at}: {done:?}");
            assert!(done.stderr.contains("not as it was written"), "{done:?}");
        }
    }

    // an older log in the place of a newer one is whole, but lacks what was seen
    let older = exported(&control);
    change(&control, ["later".to_owned()]);
    write(&file, exported(&control));
    verify(&file, &key, &["--seen", &head]).success();
    let done = verify(&file, &key, &[]).success();
    let newer_head = done
        .stdout
        .split("last record: ")
        .nth(1)
        .unwrap()
        .trim()
        .to_owned();
    write(&file, older);
    verify(&file, &key, &[]).success();
    let done = verify(&file, &key, &["--seen", &newer_head]);
    assert!(
        done.stdout.contains("not the one that was seen before"),
        "{done:?}"
    );
    sallyport()
        .args(["audit", "verify", "--data"])
        .arg(control.home())
        .run(soon())
        .success();
}

#[test]
fn what_was_acknowledged_is_in_the_log_after_kill_9() {
    let mut control = Control::start();
    for round in 0..4 {
        let acknowledged = std::thread::scope(|scope| {
            let (control_url, token) = (
                control.url("/v2/control-planes"),
                control.token().to_owned(),
            );
            let writer = scope.spawn(move || {
                let mut acknowledged = Vec::new();
                for at in 0..10_000 {
                    let sent = request("POST", control_url.clone())
                        .header("Authorization", format!("Bearer {token}"))
                        .header(
                            "traceparent",
                            format!("00-{:032x}-00f067aa0ba902b7-01", round * 10_000 + at + 1),
                        )
                        .json(&json!({"name": format!("cp-{round}-{at}")}))
                        .send();
                    match sent {
                        Ok(answer) if answer.status == 201 => {
                            acknowledged.push(answer.header("x-trace-id").unwrap().to_owned());
                        }
                        _ => break,
                    }
                }
                acknowledged
            });
            // long enough for some writes, whatever the machine
            sallyport_testkit::eventually("some changes are made", soon(), || {
                let path = "/v3/audit-logs?filter[type]=gateway_access&page[size]=1000";
                let seen = control.api("GET", path, &Value::Null).json();
                let seen = seen["data"].as_array().unwrap();
                let name = |it: &Value| it["trace_id"].as_str().unwrap_or_default().to_owned();
                let of_round = |it: &&Value| {
                    u64::from_str_radix(&name(it), 16).is_ok_and(|it| it / 10_000 == round)
                };
                seen.iter().filter(of_round).count() > 20
            });
            let pid = control.program.pid().to_string();
            let killed = std::process::Command::new("sh")
                .args(["-c", "kill -9 \"$0\"", &pid])
                .status();
            assert!(killed.unwrap().success());
            writer.join().unwrap()
        });
        control.kill9();
        control.start_again();
        let recorded = exported(&control);
        assert!(acknowledged.len() > 20);
        for trace in acknowledged {
            assert!(
                recorded.contains(&trace),
                "round {round}: {trace} is missing"
            );
        }
    }
    sallyport()
        .args(["audit", "verify", "--data"])
        .arg(control.home())
        .run(soon())
        .success();
}
