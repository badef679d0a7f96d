//! What is said over a connection, and what comes back.

use std::io;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sallyport_runtime::tls::explain;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Options, tls};
use crate::check::{Check, Talk, Target, Then};
use crate::listen::GREETING;
use crate::seen::{Answer, Handshake, Talked};
use crate::wire::http::{HEAD_BYTES_MAX, Head, Parsed, head};
use crate::wire::{dns, printable};

/// A header of this size makes a request need two packets, so that a path that loses big ones shows.
const PADDING_BYTES: usize = 2500;

/// A close frame without a reason, masked with zeros as a client's must be masked (RFC 6455 5.3).
const WEBSOCKET_CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// Why there is no head of a response.
pub(super) enum Read {
    /// Closed before the end of it.
    Closed,
    /// The system or TLS said so.
    Failed(io::Error),
    /// Other bytes.
    NotHttp(Vec<u8>),
}

pub(super) async fn talk(check: &Check, options: &Options, mut stream: TcpStream) -> Talked {
    match &check.talk {
        Talk::Tls { mutual, then } => inside_tls(check, options, stream, *mutual, then).await,
        Talk::Http => {
            let request = request(check, &Then::Http);
            plain(answer(&mut stream, &request, options, check).await)
        }
        Talk::Banner(sign) => plain(banner(&mut stream, sign, options).await),
        Talk::Dns(name) => plain(dns_over_tcp(&mut stream, name, options).await),
        Talk::Nothing | Talk::Ntp | Talk::Datagram | Talk::Echo => Talked::default(),
    }
}

fn plain(answer: Answer) -> Talked {
    let doctor = answer == Answer::Doctor;
    Talked {
        doctor,
        answer: Some(answer),
        ..Talked::default()
    }
}

async fn inside_tls(
    check: &Check,
    options: &Options,
    stream: TcpStream,
    mutual: bool,
    then: &Then,
) -> Talked {
    let (handshake, stream) = match tls::handshake(check, options, stream, mutual).await {
        tls::Shaken::Doctor => {
            return Talked {
                doctor: true,
                ..Talked::default()
            };
        }
        tls::Shaken::Failed(handshake) => (handshake, None),
        tls::Shaken::Done(shown, stream) => (Handshake::Done(shown), Some(stream)),
    };
    let answer = match stream {
        // To say something to a server that is not believed would prove nothing more.
        Some(mut stream) if !matches!(&handshake, Handshake::Done(shown) if shown.fault.is_some()) =>
        {
            match then {
                // The refusal of a certificate comes after the handshake, with the first read.
                Then::Nothing if mutual => refusal(&mut stream, options, check).await,
                Then::Nothing => None,
                then => {
                    let answer = answer(&mut stream, &request(check, then), options, check).await;
                    leave(&mut stream, &answer, options).await;
                    Some(answer)
                }
            }
        }
        _ => None,
    };
    Talked {
        handshake: Some(handshake),
        answer,
        ours_shown: mutual && options.cluster.is_some(),
        ..Talked::default()
    }
}

/// Says goodbye, so that the far end does not report a broken connection.
async fn leave<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer, options: &Options) {
    let goodbye = async {
        if matches!(answer, Answer::Http { status: 101, .. }) {
            stream.write_all(&WEBSOCKET_CLOSE).await?;
        }
        stream.shutdown().await
    };
    // The answer counts; whether the goodbye arrives does not.
    let _ = timeout(options.limit / 4, goodbye).await;
}

/// Waits a little for a far end that closes because of our certificate.
async fn refusal<S: AsyncRead + Unpin>(
    stream: &mut S,
    options: &Options,
    check: &Check,
) -> Option<Answer> {
    match timeout(options.limit / 4, stream.read_u8()).await {
        Ok(Err(error)) => match failed(&error, check) {
            Answer::Closed => None,
            answer => Some(answer),
        },
        Ok(Ok(_)) | Err(_) => None,
    }
}

fn request(check: &Check, then: &Then) -> Vec<u8> {
    let host = match &check.target {
        Target::Address(address) if address.is_ipv6() => format!("[{address}]"),
        target => target.to_string(),
    };
    let padding = "a".repeat(PADDING_BYTES);
    let common = format!(
        "Host: {host}\r\nUser-Agent: sallyport-doctor\r\nX-Sallyport-Doctor: {padding}\r\n"
    );
    match then {
        Then::Upgrade(path) => {
            let mut nonce = [0; 16];
            // It need not be a secret here; a machine without randomness has other troubles.
            let _ = getrandom::fill(&mut nonce);
            format!(
                "GET {path} HTTP/1.1\r\n{common}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
                STANDARD.encode(nonce)
            )
        }
        Then::Http | Then::Nothing => {
            format!("GET / HTTP/1.1\r\n{common}Connection: close\r\n\r\n")
        }
    }
    .into_bytes()
}

async fn answer<S>(stream: &mut S, request: &[u8], options: &Options, check: &Check) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut came = Vec::new();
    let exchange = async {
        let written = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        // A server may answer and close before it has read everything, so read in any case.
        let written = written.await;
        match read_head_into(stream, &mut came).await {
            Err(Read::Closed) => Err(Read::Failed(
                written
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            )),
            other => other,
        }
    };
    match timeout(options.limit, exchange).await {
        Err(_) => unfinished(&came),
        Ok(Ok(head)) => {
            let ahead = head.date.map(|date| date - now());
            Answer::Http {
                status: head.status,
                clock_ahead_secs: ahead,
            }
        }
        Ok(Err(Read::NotHttp(bytes))) if bytes.starts_with(GREETING) => Answer::Doctor,
        Ok(Err(Read::NotHttp(bytes))) => Answer::Garbage(printable(&bytes)),
        Ok(Err(Read::Closed)) => Answer::Closed,
        Ok(Err(Read::Failed(error))) => failed(&error, check),
    }
}

/// What it is that time was over before an answer was whole.
fn unfinished(came: &[u8]) -> Answer {
    match came {
        [] => Answer::Silent,
        came => Answer::Unfinished(printable(came)),
    }
}

fn now() -> i64 {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |it| it.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// What a failure after the handshake means.
fn failed(error: &io::Error, check: &Check) -> Answer {
    use rustls::AlertDescription as Alert;
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(Alert::CertificateRequired | Alert::NoCertificate)) => {
            Answer::CertificateRequired
        }
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        )) => Answer::CertificateRefused(explain(error, &check.target.to_string())),
        _ => Answer::Closed,
    }
}

/// Reads the head of a response; the caller bounds the time. Bytes of a body that came along are
/// dropped.
pub(super) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Head, Read> {
    read_head_into(stream, &mut Vec::new()).await
}

/// The same; what came so far is in `bytes`, also when this is given up.
async fn read_head_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> Result<Head, Read> {
    loop {
        let mut piece = [0; 2048];
        let count = stream.read(&mut piece).await.map_err(Read::Failed)?;
        bytes.extend(&piece[..count]);
        match head(bytes) {
            Parsed::Head(head) => return Ok(head),
            Parsed::NotHttp => return Err(Read::NotHttp(std::mem::take(bytes))),
            Parsed::Partial if count == 0 => return Err(Read::Closed),
            Parsed::Partial => debug_assert!(bytes.len() <= HEAD_BYTES_MAX + piece.len()),
        }
    }
}

async fn banner(stream: &mut TcpStream, sign: &str, options: &Options) -> Answer {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < 200 && !bytes.contains(&b'\n') {
            if stream.read_buf(&mut bytes).await? == 0 {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    let ended = timeout(options.limit, reading).await;
    match ended {
        _ if bytes.starts_with(GREETING) => Answer::Doctor,
        _ if bytes.starts_with(sign.as_bytes()) => Answer::Banner(printable(&bytes)),
        Err(_) => unfinished(&bytes),
        Ok(_) if bytes.is_empty() => Answer::Closed,
        Ok(_) => Answer::Garbage(printable(&bytes)),
    }
}

async fn dns_over_tcp(stream: &mut TcpStream, name: &str, options: &Options) -> Answer {
    let id = 0x5a11;
    let Some(question) = dns::question(id, name) else {
        return Answer::Garbage(String::new());
    };
    let exchange = async {
        let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
        stream
            .write_all(&[&length.to_be_bytes()[..], &question].concat())
            .await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length)];
        let mut read = 0;
        while read < bytes.len().min(512) {
            match stream.read(&mut bytes[read..]).await? {
                0 => break,
                count => read += count,
            }
        }
        bytes.truncate(read);
        Ok::<_, io::Error>((length, bytes))
    };
    match timeout(options.limit, exchange).await {
        Err(_) => Answer::Silent,
        Ok(Err(_)) => Answer::Closed,
        Ok(Ok((length, bytes))) => {
            let start = [&length.to_be_bytes()[..], &bytes].concat();
            match dns::response_code(id, &bytes) {
                Some(code) => Answer::Dns(code),
                None if start.starts_with(GREETING) => Answer::Doctor,
                None => Answer::Garbage(printable(&start)),
            }
        }
    }
}
