//! What strangers can make a control plane do: the same however much there is, and nothing in its
//! database before they have shown a certificate.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::time::Duration;

use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{self, Identity};
use sallyport_store::{Actor, NewCertificate, NewControlPlane};
use support::{BASE, GEO, Lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Handshakes of each kind; enough to tell what each costs from what goes on besides.
const EACH: u64 = 100;
/// Only reached when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stranger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// Shows no certificate.
    Nobody,
    /// Hangs up after its hello.
    Gone,
    /// Speaks no TLS.
    Http,
    /// Shows a certificate that is pinned nowhere.
    Unknown,
    /// The same, for a control plane that is not there.
    Lost,
}

/// Operations of the database for each stranger, rounded: other work goes on all the time, less
/// than one for two strangers.
async fn operations_for_each(lab: &Lab, stranger: Stranger, identity: &Identity) -> u64 {
    let before = lab.store.operations();
    for _ in 0..EACH {
        let comes = comes(lab, stranger, identity);
        tokio::time::timeout(PATIENCE, comes).await.unwrap();
    }
    let done = lab.store.operations() - before;
    (done + EACH / 2) / EACH
}

async fn comes(lab: &Lab, stranger: Stranger, identity: &Identity) {
    let mut stream = TcpStream::connect(lab.running.local_addr).await.unwrap();
    let prefix = match stranger {
        Stranger::Lost => "ffffffffff",
        _ => &lab.first.control_plane.prefix,
    };
    let host = format!("{prefix}.{GEO}.cp0.{BASE}");
    let shown = match stranger {
        Stranger::Unknown | Stranger::Lost => Some(identity),
        _ => None,
    };
    let mut answer = Vec::new();
    match stranger {
        Stranger::Http => {
            let request = format!("GET /v1/outlet HTTP/1.1\r\nhost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            _ = stream.read_to_end(&mut answer).await;
            // an alert of TLS at most
            assert!(answer.len() < 16, "{answer:?}");
        }
        Stranger::Gone => {
            let name = host.try_into().unwrap();
            let mut hello = Vec::new();
            let mut client = rustls::ClientConnection::new(lab.tls(None), name).unwrap();
            client.write_tls(&mut hello).unwrap();
            stream.write_all(&hello).await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
        }
        Stranger::Nobody | Stranger::Unknown | Stranger::Lost => {
            // with TLS 1.3 the client is told afterwards
            if let Ok(mut tls) = tls::client::connect(lab.tls(shown), &host, stream).await {
                let request = format!("GET /v1/outlet HTTP/1.1\r\nhost: {host}\r\n\r\n");
                _ = tls.write_all(request.as_bytes()).await;
                _ = tls.read_to_end(&mut answer).await;
                assert!(answer.is_empty(), "{stranger:?}: {answer:?}");
            }
        }
    }
}

/// Makes so many control planes, each with a pin.
async fn grow(lab: &Lab, planes: u32) {
    let actor = Actor("test".to_owned());
    for at in 0..planes {
        let new = NewControlPlane {
            name: format!("plane {at}"),
            ..NewControlPlane::default()
        };
        let made = lab.store.create_control_plane(&actor, new).await.unwrap();
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&at.to_be_bytes());
        let new = NewCertificate {
            pem: format!("certificate {at}"),
            digest,
            title: String::new(),
        };
        let pinned = lab.store.pin_certificate(made.id, &actor, new);
        pinned.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_costs_the_same_with_a_thousand_control_planes_and_nothing_without_a_certificate()
 {
    let lab = Lab::start().await;
    let pair = data_plane_pair("stranger", Curve::P256, 30).unwrap();
    let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
    let all = [
        (Stranger::Nobody, 0),
        (Stranger::Gone, 0),
        (Stranger::Http, 0),
        // by prefix, the way its certificates are checked, by digest
        (Stranger::Unknown, 3),
        (Stranger::Lost, 1),
    ];
    for (stranger, expected) in all {
        let operations = operations_for_each(&lab, stranger, &identity).await;
        assert_eq!(operations, expected, "{stranger:?} with one");
    }
    grow(&lab, 1_000).await;
    for (stranger, expected) in all {
        let operations = operations_for_each(&lab, stranger, &identity).await;
        assert_eq!(operations, expected, "{stranger:?} with 1,001");
    }
    lab.stop().await;
}
