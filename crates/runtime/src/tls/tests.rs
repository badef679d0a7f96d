use std::sync::Arc;

use base64::Engine;
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::pem::private_key;
use super::*;
use crate::certs::{Curve, LocalCa, PemPair, data_plane_pair, self_signed_localhost};

fn identity(pair: &PemPair) -> Identity {
    Identity::from_pem(&pair.cert, &pair.key).unwrap()
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    Arc::new(trust_store(&[pem]).unwrap())
}

/// Shakes hands in memory; returns what each side saw.
async fn handshake(
    server: ServerConfig,
    client: ClientConfig,
    name: &str,
) -> (Result<Option<CertDigest>, String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let accepted = TlsAcceptor::from(Arc::new(server)).accept(far).await;
        let mut stream = accepted.map_err(|error| explain(&error, "the client"))?;
        let digest = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| leaf_digest(&chain[0]));
        stream
            .write_all(b"!")
            .await
            .map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        Ok(digest)
    };
    let dial = async {
        let connected = connect(Arc::new(client), name, near).await;
        let mut stream = connected.map_err(|failure| failure.explanation)?;
        // In TLS 1.3 a server refuses a client certificate after the client is done.
        match stream.read_u8().await {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error, name)),
        }
    };
    tokio::join!(accept, dial)
}

#[tokio::test]
async fn shared_mode_needs_exactly_the_same_certificate() {
    for curve in [Curve::P256, Curve::P384] {
        let shared = identity(&data_plane_pair("kong_clustering", curve, 10).unwrap());
        let server = server_config(&shared, ClientAuth::Presented, &[]).unwrap();
        let trust = ServerTrust::Exactly(shared.leaf().clone());
        let client = client_config(trust.clone(), Some(&shared)).unwrap();
        let (accepted, dialled) = handshake(server, client, "kong_clustering").await;
        assert_eq!(accepted, Ok(Some(shared.digest())));
        assert_eq!(dialled, Ok(()));

        let other = identity(&data_plane_pair("kong_clustering", curve, 10).unwrap());
        let server = server_config(&other, ClientAuth::Presented, &[]).unwrap();
        let client = client_config(trust, Some(&shared)).unwrap();
        let (accepted, dialled) = handshake(server, client, "kong_clustering").await;
        let problem = dialled.unwrap_err();
        assert!(problem.contains(&other.digest().to_string()), "{problem}");
        assert!(problem.contains(&shared.digest().to_string()), "{problem}");
        assert!(accepted.unwrap_err().contains("the client"));
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let shared = identity(&data_plane_pair("kong_clustering", Curve::P256, 10).unwrap());
    let server = server_config(&shared, ClientAuth::Presented, &[]).unwrap();
    let client = client_config(ServerTrust::Exactly(shared.leaf().clone()), None).unwrap();
    let (accepted, dialled) = handshake(server, client, "kong_clustering").await;
    assert!(accepted.unwrap_err().contains("shows no certificate"));
    assert!(
        dialled
            .unwrap_err()
            .contains("requires a client certificate")
    );
}

#[tokio::test]
async fn chains_and_names_are_checked_in_pki_mode() {
    let ca = LocalCa::create("ca", 10).unwrap();
    let strange = LocalCa::create("strange", 10).unwrap();
    let server_id = identity(&ca.issue_server(&["cp.example", "127.0.0.1"], 10).unwrap());
    let client_id = identity(&ca.issue_client("dp", 10).unwrap());
    let stranger = identity(&strange.issue_client("dp", 10).unwrap());
    let server =
        || server_config(&server_id, ClientAuth::IssuedBy(roots(&ca.pem().cert)), &[]).unwrap();
    let client = |id: &Identity, root: &LocalCa| {
        client_config(ServerTrust::Roots(roots(&root.pem().cert)), Some(id)).unwrap()
    };

    let (accepted, dialled) = handshake(server(), client(&client_id, &ca), "cp.example").await;
    assert_eq!((accepted, dialled), (Ok(Some(client_id.digest())), Ok(())));
    let (_, dialled) = handshake(server(), client(&client_id, &ca), "127.0.0.1").await;
    assert_eq!(dialled, Ok(()));

    let (_, dialled) = handshake(server(), client(&client_id, &ca), "other.example").await;
    let problem = dialled.unwrap_err();
    assert!(
        problem.contains("other.example") && problem.contains("cp.example"),
        "{problem}"
    );

    let (_, dialled) = handshake(server(), client(&client_id, &strange), "cp.example").await;
    let problem = dialled.unwrap_err();
    assert!(
        problem.contains("which is not trusted here") && problem.contains("issued by \""),
        "{problem}"
    );

    let (accepted, dialled) = handshake(server(), client(&stranger, &ca), "cp.example").await;
    assert!(
        accepted
            .unwrap_err()
            .contains("authority that is not trusted")
    );
    assert!(dialled.unwrap_err().contains("cp.example"));
}

#[tokio::test]
async fn the_localhost_fallback_serves_who_trusts_it() {
    let pair = self_signed_localhost(10).unwrap();
    let server = server_config(&identity(&pair), ClientAuth::Off, &[b"http/1.1"]).unwrap();
    let client = client_config(ServerTrust::Roots(roots(&pair.cert)), None).unwrap();
    let (accepted, dialled) = handshake(server, client, "localhost").await;
    assert_eq!((accepted, dialled), (Ok(None), Ok(())));
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_explained() {
    let pair = self_signed_localhost(10).unwrap();
    let client = client_config(ServerTrust::Roots(roots(&pair.cert)), None).unwrap();
    let (near, mut far) = tokio::io::duplex(1024);
    let server = async move {
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        far
    };
    let (_far, dialled) = tokio::join!(server, connect(Arc::new(client), "localhost", near));
    let problem = dialled.unwrap_err().to_string();
    assert!(problem.contains("does not speak TLS"), "{problem}");
}

#[test]
fn expiry_is_explained_with_dates() {
    use rustls::pki_types::UnixTime;
    use std::time::Duration;
    let time = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
    let reason = rustls::CertificateError::ExpiredContext {
        time: time(1_700_000_000),
        not_after: time(1_600_000_000),
    };
    let error = std::io::Error::other(rustls::Error::InvalidCertificate(reason));
    assert_eq!(
        explain(&error, "cp.example"),
        "the certificate of cp.example expired on Sep 13 12:26:40 2020 UTC (it is Nov 14 \
         22:13:20 2023 UTC here)"
    );
}

#[test]
fn the_three_forms_of_pem_settings() {
    let pair = self_signed_localhost(10).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cert.pem");
    std::fs::write(&path, &pair.cert).unwrap();
    let packed = base64::engine::general_purpose::STANDARD.encode(&pair.cert);
    for value in [path.to_str().unwrap(), &pair.cert, &packed] {
        assert_eq!(certificates(&read_pem(value).unwrap()).unwrap().len(), 1);
    }
}

#[test]
fn bad_pem_settings_say_why() {
    #[track_caller]
    fn check(error: impl std::fmt::Display, want: &str) {
        assert!(error.to_string().contains(want), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = self_signed_localhost(10).unwrap();
    let other = self_signed_localhost(10).unwrap();
    check(read_pem(" ").unwrap_err(), "empty");
    check(
        read_pem("/no/such/file.pem").unwrap_err(),
        "no file \"/no/such/file.pem\"",
    );
    check(
        read_pem(dir.path().to_str().unwrap()).unwrap_err(),
        "directory",
    );
    check(certificates(&pair.key).unwrap_err(), "no CERTIFICATE");
    check(
        certificates("-----BEGIN CERTIFICATE-----\nAAAA").unwrap_err(),
        "broken",
    );
    check(private_key(&pair.cert).unwrap_err(), "no PRIVATE KEY");
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----";
    check(private_key(sealed).unwrap_err(), "encrypted");
    check(
        Identity::from_pem(&pair.cert, &other.key).unwrap_err(),
        "does not belong",
    );
    check(trust_store(&["/no/file"]).unwrap_err(), "entry 1");
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    check(trust_store(&[&pair.cert, junk]).unwrap_err(), "entry 2");
}

#[test]
fn digests_read_back_with_and_without_colons() {
    let pair = self_signed_localhost(10).unwrap();
    let digest = identity(&pair).digest();
    let text = digest.to_string();
    assert_eq!(text.parse(), Ok(digest));
    let pairs: Vec<_> = text
        .as_bytes()
        .chunks(2)
        .map(|c| std::str::from_utf8(c).unwrap())
        .collect();
    assert_eq!(pairs.join(":").to_uppercase().parse(), Ok(digest));
    assert!("ab".parse::<CertDigest>().is_err());
}

proptest! {
    #[test]
    fn hostile_certificates_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Leaf::parse(&CertificateDer::from(bytes.clone()));
        let text = String::from_utf8_lossy(&bytes);
        let _ = certificates(&text);
        let _ = private_key(&text);
        let _ = text.parse::<CertDigest>();
    }
}
