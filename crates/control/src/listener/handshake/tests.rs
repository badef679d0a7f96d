use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::server::ResolvesServerCert;
use sallyport_runtime::certs::{Curve, LocalCa, data_plane_pair};
use sallyport_runtime::tls::server::server_config_by_name;
use sallyport_runtime::tls::{self, ClientAuth, Identity, ServerTrust};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::listener::Shown;

const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_711);
const NODE: &str = "0123456789.eu.cp0.sallyport.test";
const INGRESS: &str = "eu.kic.api.sallyport.test";
/// What rustls takes of one message before it gives up.
const HELLO_BYTES_MAX: usize = 0xffff + 5;
/// Bytes that a peer and the listener can have in flight.
const PIPE: usize = 512;

struct Lab {
    handshakes: Handshakes,
    client: Arc<rustls::ClientConfig>,
}

fn lab(more_geos: usize) -> Lab {
    let ca = LocalCa::create("test", 30).unwrap();
    let names = [NODE, INGRESS, "localhost"];
    let pair = ca.issue_server(&names, 30).unwrap();
    let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
    let shown: Arc<dyn ResolvesServerCert> = Arc::new(Shown::new(&identity));
    let by_name = |auth| Arc::new(server_config_by_name(Arc::clone(&shown), auth, &[]).unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority(&ca)).unwrap();
    let trust = ServerTrust::Roots(Arc::new(roots));
    let more = (0..more_geos).map(|at| format!("geo{at}"));
    Lab {
        handshakes: Handshakes {
            api: by_name(ClientAuth::Off),
            node: by_name(ClientAuth::Presented),
            kic: by_name(ClientAuth::Presented),
            shared: None,
            base_domain: "sallyport.test".to_owned(),
            geos: ["eu".to_owned(), "in".to_owned()]
                .into_iter()
                .chain(more)
                .collect(),
        },
        client: Arc::new(tls::client_config(trust, None).unwrap()),
    }
}

fn authority(ca: &LocalCa) -> CertificateDer<'static> {
    tls::certificates(&ca.pem().cert).unwrap().remove(0)
}

/// What the listener makes of what `peer` does, and how long it bears it.
async fn met<F: Future<Output = ()>>(
    handshakes: &Handshakes,
    peer: impl FnOnce(DuplexStream) -> F,
) -> (bool, Duration) {
    let (own, other) = duplex(PIPE);
    let began = Instant::now();
    let meet = async {
        let met = handshakes.meet(own, PEER).await.is_some();
        (met, began.elapsed())
    };
    tokio::join!(meet, peer(other)).0
}

/// The head of a record of the handshake with so many bytes.
fn record(length: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    [22, 3, 1, high, low]
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_too_slowly_is_let_go_after_ten_seconds() {
    let lab = lab(0);
    let limit = Duration::from_secs(HANDSHAKE_SECS_MAX);
    let silent = async |mut stream: DuplexStream| {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    };
    assert_eq!(met(&lab.handshakes, silent).await, (false, limit));
    // each byte is a sign of life, and buys no time
    let slow = async |mut stream: DuplexStream| {
        let hello = [&record(16_000)[..], &[1, 0, 0x3e, 0x7c], &[0; 16_000]].concat();
        for byte in hello {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it took all of it");
    };
    assert_eq!(met(&lab.handshakes, slow).await, (false, limit));
    // and one that says hello and nothing more
    let client = Arc::clone(&lab.client);
    let half = async move |mut stream: DuplexStream| {
        let name = NODE.try_into().unwrap();
        let mut hello = Vec::new();
        let mut tls = rustls::ClientConnection::new(client, name).unwrap();
        tls.write_tls(&mut hello).unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(
            !answer.is_empty() && answer.len() < 4_096,
            "{}",
            answer.len()
        );
    };
    assert_eq!(met(&lab.handshakes, half).await, (false, limit));
}

#[tokio::test(start_paused = true)]
async fn a_hello_has_an_end() {
    let lab = lab(0);
    let never = Duration::ZERO;
    for length in [[0xff; 3], [1, 0, 0], [0, 0xff, 0xff]] {
        let taken = AtomicUsize::new(0);
        let endless = async |mut stream: DuplexStream| {
            let begin = [&[1][..], &length].concat();
            let mut rest = [&record(4)[..], &begin].concat();
            while stream.write_all(&rest).await.is_ok() {
                taken.fetch_add(rest.len(), Ordering::Relaxed);
                rest = [&record(1_000)[..], &[0; 1_000]].concat();
            }
        };
        assert_eq!(met(&lab.handshakes, endless).await, (false, never));
        let taken = taken.into_inner();
        // the records' heads count as well, and what is on its way
        assert!(taken < HELLO_BYTES_MAX + 1_000, "{taken} of {length:?}");
    }
    // what is no TLS ends at its first bytes
    let http = async |mut stream: DuplexStream| {
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() < 16 && answer.first().is_none_or(|kind| *kind == 21));
    };
    assert_eq!(met(&lab.handshakes, http).await, (false, never));
}

/// What is sent to a peer without a certificate: as many bytes as to any other, and none of HTTP.
#[tokio::test]
async fn without_a_certificate_there_is_the_handshake_and_nothing_else() {
    let (small, large) = (lab(0), lab(1_000));
    for name in [
        NODE,
        INGRESS,
        "ffffffffff.eu.cp0.sallyport.test",
        "ffffffffff.xx.tp0.sallyport.test",
    ] {
        let mut sent = Vec::new();
        for lab in [&small, &large] {
            let client = Arc::clone(&lab.client);
            let got = AtomicUsize::new(0);
            let (arrived, _) = met(&lab.handshakes, async |stream: DuplexStream| {
                got.store(bytes_got(client, name, stream).await, Ordering::Relaxed);
            })
            .await;
            assert!(!arrived, "{name}");
            sent.push(got.into_inner());
        }
        // signatures and the certificate of the lab differ by a few bytes
        assert!(
            sent[0].abs_diff(sent[1]) < 32 && sent[0] < 4_096,
            "{sent:?}"
        );
    }
}

/// Bytes of records that a client without a certificate gets, none of them of an application.
async fn bytes_got(
    config: Arc<rustls::ClientConfig>,
    name: &str,
    mut stream: DuplexStream,
) -> usize {
    let name = name.to_owned().try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = 0;
    loop {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        // the listener may be gone, and have said why before
        _ = stream.write_all(&out).await;
        let mut part = [0; 1_024];
        let got = stream.read(&mut part).await.unwrap_or(0);
        if got == 0 {
            return bytes;
        }
        bytes += got;
        tls.read_tls(&mut &part[..got]).unwrap();
        match tls.process_new_packets() {
            Ok(state) => assert_eq!(state.plaintext_bytes_to_read(), 0),
            Err(_) => return bytes,
        }
    }
}

#[tokio::test]
async fn a_certificate_takes_a_data_plane_past_the_handshake() {
    let lab = lab(0);
    let pair = data_plane_pair("gateway", Curve::P256, 30).unwrap();
    let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
    let resolver = identity.certified_key();
    let mut config = (*lab.client).clone();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(resolver));
    let (own, other) = duplex(PIPE);
    let (arrival, client) = tokio::join!(
        lab.handshakes.meet(own, PEER),
        tls::connect(Arc::new(config), NODE, other)
    );
    let arrival = arrival.unwrap();
    let prefix = "0123456789".to_owned();
    let host = Host::Configuration;
    assert_eq!(arrival.destination, Destination::Node { host, prefix });
    assert_eq!(arrival.name.as_deref(), Some(NODE));
    let chain = arrival.tls.get_ref().1.peer_certificates().unwrap();
    assert_eq!(tls::leaf_digest(&chain[0]), identity.digest());
    drop(client);
}

#[track_caller]
fn check(name: Option<&str>, expected: Destination) {
    assert_eq!(
        destination("sallyport.test", &["eu".to_owned(), "in".to_owned()], name),
        expected,
        "{name:?}"
    );
}

#[test]
fn a_server_name_leads_to_data_planes_or_to_the_api() {
    let node = |host| Destination::Node {
        host,
        prefix: "0123456789".to_owned(),
    };
    check(
        Some("0123456789.eu.cp0.sallyport.test"),
        node(Host::Configuration),
    );
    check(
        Some("0123456789.EU.cp.Sallyport.test"),
        node(Host::Configuration),
    );
    check(
        Some("0123456789.eu.tp0.sallyport.test"),
        node(Host::Telemetry),
    );
    check(
        Some("0123456789.us.cp0.sallyport.test"),
        Destination::OtherGeo("us".to_owned()),
    );
    check(
        Some("0123456789.in.cp0.sallyport.test"),
        node(Host::Configuration),
    );
    check(Some("kong_clustering"), Destination::Shared);
    check(Some("eu.kic.api.sallyport.test"), Destination::Ingress);
    check(
        Some("us.kic.api.sallyport.test"),
        Destination::OtherGeo("us".to_owned()),
    );
    check(Some("eu.api.sallyport.test"), Destination::Api);
    check(Some("0123456789.eu.cp0.other.test"), Destination::Api);
    check(Some("localhost"), Destination::Api);
    check(None, Destination::Api);
}
