//! Start and end of the role, and what stands in the way.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::net::SocketAddr;

use sallyport_control::{AuditLogSettings, Settings, TelemetrySettings, bootstrap, start};
use sallyport_runtime::certs::self_signed_localhost;
use sallyport_runtime::tls::Identity;
use sallyport_store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn settings() -> Settings {
    let pair = self_signed_localhost(30).unwrap();
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        listen_setting: "--control-listen".to_owned(),
        listen_plain: None,
        base_domain: support::BASE.to_owned(),
        geo: support::GEO.to_owned(),
        identity: Identity::from_pem(&pair.cert, &pair.key).unwrap(),
        node_purge_delay: sallyport_control::NODE_PURGE_DELAY,
        more_geos: Vec::new(),
        shared_identity: None,
        issuer: None,
        audit_log: AuditLogSettings::quiet(tempfile::tempdir().unwrap().keep()),
        telemetry: TelemetrySettings::quiet(tempfile::tempdir().unwrap().keep()),
        requests_per_second: 0,
        admin: None,
    }
}

async fn refused(settings: Settings) -> String {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    let started = start(settings, store, sallyport_plugins::schemas()).await;
    started
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let told = refused(Settings {
        listen: addr,
        ..settings()
    })
    .await;
    assert!(
        told.contains(&addr.to_string()) && told.contains("--control-listen"),
        "{told}"
    );

    let plain = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let told = refused(Settings {
        listen_plain: plain,
        ..settings()
    })
    .await;
    assert!(told.contains("loopback"), "{told}");

    let told = refused(Settings {
        geo: "mars".to_owned(),
        ..settings()
    })
    .await;
    assert!(told.contains("mars"), "{told}");
    let told = refused(Settings {
        base_domain: "a b".to_owned(),
        ..settings()
    })
    .await;
    assert!(told.contains("a b"), "{told}");
}

#[tokio::test]
async fn the_api_without_tls_is_there_if_asked_for_and_gone_after_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    let first = bootstrap(&store, "test", None).await.unwrap();
    let plain = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let settings = Settings {
        listen_plain: plain,
        ..settings()
    };
    let running = start(settings, store, sallyport_plugins::schemas())
        .await
        .unwrap();
    let addr = running.plain_addr.unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /v3/users/me HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         authorization: Bearer {}\r\n\r\n",
        first.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("owner@localhost"), "{answer}");

    let tls = running.local_addr;
    // Connections that say nothing, before and after a handshake, must not hold the end up.
    let _silent = TcpStream::connect(tls).await.unwrap();
    let _idle = TcpStream::connect(addr).await.unwrap();
    running.stop().await;
    for addr in [addr, tls] {
        assert!(
            TcpStream::connect(addr).await.is_err(),
            "{addr} still answers"
        );
    }
}
