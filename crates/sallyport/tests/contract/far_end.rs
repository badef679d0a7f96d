//! Servers with and without troubles, run by this same program inside a namespace.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sallyport_runtime::certs::{LocalCa, PemPair};
use sallyport_runtime::tls::server::server_config_by_name;
use sallyport_runtime::tls::{ClientAuth, Identity, ServerTrust, client_config, server_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Longer than any test; nothing is left behind even if nobody stops it.
const LIFE: Duration = Duration::from_secs(240);

/// What a TLS server says inside.
#[derive(Clone, Copy)]
enum Inside {
    /// HTTP, with the clock this many seconds ahead.
    Http(i64),
    /// Nothing, ever.
    Mute,
}

/// Not a test of its own: the far end of the others.
#[test]
fn serve() {
    let Ok(what) = std::env::var("SALLYPORT_TEST_FAR_END") else {
        return;
    };
    let dir = std::env::var("SALLYPORT_TEST_FAR_DIR").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match what.as_str() {
            "servers" => servers(Path::new(&dir)).await,
            "interceptor" => interceptor(Path::new(&dir)).await,
            other => panic!("{other}"),
        }
        println!("far end ready");
        tokio::time::sleep(LIFE).await;
    });
}

fn identity(dir: &Path, name: &str) -> Identity {
    let file = |end: &str| {
        dir.join(format!("{name}.{end}"))
            .to_str()
            .unwrap()
            .to_owned()
    };
    Identity::load(&file("crt"), &file("key")).unwrap()
}

/// Writes a certificate with its key for [`identity`].
pub(crate) fn write(dir: &Path, name: &str, pair: &PemPair) {
    std::fs::write(dir.join(format!("{name}.crt")), &pair.cert).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), &pair.key).unwrap();
}

async fn listener(port: u16) -> TcpListener {
    TcpListener::bind(("::", port)).await.unwrap()
}

async fn servers(dir: &Path) {
    let accept = |name, auth| {
        let config = server_config(&identity(dir, name), auth, &[]).unwrap();
        TlsAcceptor::from(Arc::new(config))
    };
    tls(4001, accept("good", ClientAuth::Off), Inside::Http(0)).await;
    tls(4002, accept("expired", ClientAuth::Off), Inside::Http(0)).await;
    tls(4003, accept("other", ClientAuth::Off), Inside::Http(0)).await;
    tls(4004, accept("self", ClientAuth::Off), Inside::Http(0)).await;
    tls(4005, accept("good", ClientAuth::Presented), Inside::Http(0)).await;
    tls(4006, accept("good", ClientAuth::Off), Inside::Http(3600)).await;
    tls(4007, accept("good", ClientAuth::Off), Inside::Mute).await;
    // Behind the interceptor.
    tls(4008, accept("good", ClientAuth::Off), Inside::Http(0)).await;
    // Half open: accepts, and that is all.
    let half_open = listener(4010).await;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(half_open.accept().await.unwrap());
        }
    });
    // One byte of a TLS record now and then.
    each(4011, |mut stream| async move {
        for byte in [22_u8, 3, 3, 64, 0].into_iter().chain(std::iter::repeat(0)) {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    each(4012, |mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    each(4013, |stream| async move { http(stream, 0).await }).await;
    // One byte of an answer now and then.
    for (port, text) in [(4015, "HTTP/1.1 200 OK\r\nX: "), (4016, "S")] {
        each(port, move |mut stream| async move {
            for byte in text.bytes().chain(std::iter::repeat(b'x')) {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
    // Closes at once.
    each(4014, |stream| async move { drop(stream) }).await;
    udp(53, |bytes| {
        [&bytes[..2], &[0x81, 0x80], &bytes[4..]].concat()
    })
    .await;
    udp(123, |bytes| ntp(bytes, 0)).await;
    udp(1123, |bytes| ntp(bytes, 7200)).await;
    let silent = UdpSocket::bind(("::", 8071)).await.unwrap();
    tokio::spawn(async move { while silent.recv(&mut [0; 64]).await.is_ok() {} });
}

async fn each<F: Future<Output = ()> + Send + 'static>(
    port: u16,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    let listener = listener(port).await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
}

async fn tls(port: u16, acceptor: TlsAcceptor, inside: Inside) {
    each(port, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            match inside {
                Inside::Http(ahead) => http(stream, ahead).await,
                Inside::Mute => while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {},
            }
        }
    })
    .await;
}

/// 101 for an upgrade, else 404; the date is right or not.
async fn http<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, ahead_secs: i64) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let line = match text.contains("upgrade: websocket") {
        true => "101 Switching Protocols",
        false => "404 Not Found",
    };
    let date = now() + ahead_secs;
    let date = date_of(date);
    let answer = format!("HTTP/1.1 {line}\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn now() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn date_of(unix_secs: i64) -> String {
    let time = jiff::Timestamp::from_second(unix_secs).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

async fn udp(port: u16, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let socket = UdpSocket::bind(("::", port)).await.unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 512];
        while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
            if count >= 12 {
                let _ = socket.send_to(&answer(&bytes[..count]), peer).await;
            }
        }
    });
}

fn ntp(question: &[u8], ahead_secs: i64) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[0] = 0x24;
    bytes[1] = 2;
    bytes[24..32].copy_from_slice(&question[40..48]);
    let time = u32::try_from(now() + ahead_secs + 2_208_988_800).unwrap();
    bytes[40..44].copy_from_slice(&time.to_be_bytes());
    bytes
}

/// Ends TLS in the middle with certificates of its own, made for each name, and carries the rest on.
struct Forger(LocalCa);

impl Debug for Forger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forger")
    }
}

impl ResolvesServerCert for Forger {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.issue_server(&[hello.server_name()?], 1).unwrap();
        Some(
            Identity::from_pem(&pair.cert, &pair.key)
                .unwrap()
                .certified_key(),
        )
    }
}

async fn interceptor(dir: &Path) {
    let read = |end: &str| std::fs::read_to_string(dir.join(format!("forger.{end}"))).unwrap();
    let ca = LocalCa::load(PemPair {
        cert: read("crt"),
        key: read("key"),
    })
    .unwrap();
    let config = server_config_by_name(Arc::new(Forger(ca)), ClientAuth::Off, &[]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let client = Arc::new(client_config(ServerTrust::Anybody, None).unwrap());
    each(8888, move |stream| {
        let (acceptor, connector) = (acceptor.clone(), TlsConnector::from(client.clone()));
        async move {
            let Ok(mut near) = acceptor.accept(stream).await else {
                return;
            };
            let name = near.get_ref().1.server_name().unwrap_or("x").to_owned();
            let Ok(far) = TcpStream::connect((super::network::FAR, 4008)).await else {
                return;
            };
            let name = rustls::pki_types::ServerName::try_from(name).unwrap();
            let Ok(mut far) = connector.connect(name, far).await else {
                return;
            };
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    })
    .await;
}
