//! Probes against loopback.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::time::Duration;

use sallyport_contract::Owner;
use sallyport_doctor::{Check, Options, Status, Talk, Target, fetch, run};
use sallyport_runtime::tls::ServerTrust;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn options() -> Options {
    let limit = Duration::from_secs(10);
    Options {
        limit,
        at_once: 4,
        trust: ServerTrust::Anybody,
        cluster: None,
    }
}

fn check(port: u16, talk: Talk) -> Check {
    Check {
        id: "row".to_owned(),
        title: "Row".to_owned(),
        owner: Owner::Site,
        far: "external".to_owned(),
        flow: format!("{port}/tcp").try_into().unwrap(),
        target: Target::Address("127.0.0.1".parse().unwrap()),
        expected: Vec::new(),
        issuer_known: false,
        server_name: None,
        talk,
        via: None,
    }
}

/// A listener that says `answer` after it was asked something.
async fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 8192];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn outcomes_come_in_the_order_of_checks() {
    let good = server("HTTP/1.1 200 OK\r\n\r\n").await;
    let odd = server("220 mail.test\r\n").await;
    let checks = vec![
        check(good, Talk::Http),
        check(odd, Talk::Http),
        check(good, Talk::Http),
    ];
    let mut seen = 0;
    let outcomes = run(checks, options(), |_| seen += 1).await;
    let got: Vec<Status> = outcomes.iter().map(|it| it.verdict.status).collect();
    assert_eq!(
        (got, seen),
        (vec![Status::Open, Status::Wrong, Status::Open], 3)
    );
}

#[tokio::test]
async fn fetches_a_document_and_notices_a_cut() {
    let limit = Duration::from_secs(10);
    let get = |port: u16| async move {
        let url = format!("http://127.0.0.1:{port}/x.json");
        fetch(&url, None, Some("\"1\""), ServerTrust::Anybody, limit).await
    };
    let port = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"2\"\r\n\r\n{}").await;
    let got = get(port).await.unwrap();
    assert_eq!(
        (got.status, got.etag.as_deref(), &got.body[..]),
        (200, Some("\"2\""), &b"{}"[..])
    );
    let port = server("HTTP/1.1 304 Not Modified\r\n\r\n").await;
    assert_eq!(get(port).await.unwrap().status, 304);
    let port = server("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").await;
    assert!(get(port).await.unwrap_err().to_string().contains("cut off"));
    let port = server("HTTP/1.1 500 Oops\r\n\r\n").await;
    assert!(
        get(port)
            .await
            .unwrap_err()
            .to_string()
            .contains("HTTP 500")
    );
}
