//! Asking a proxy for a way to a far end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::ForwardProxy;
use crate::dial::{DialError, dial};
use crate::tls::{TlsFailure, connect};

/// Largest head of a proxy's answer, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// No way through the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy itself is not reached.
    #[error("the forward proxy: {0}")]
    Dial(#[from] DialError),
    /// No TLS connection to the proxy.
    #[error("the forward proxy {proxy}: {failure}")]
    Tls {
        /// The proxy.
        proxy: String,
        /// What went wrong.
        failure: TlsFailure,
    },
    /// The proxy wants credentials, or others.
    #[error("the forward proxy {proxy} wants other credentials (407): check proxy_server")]
    Credentials {
        /// The proxy.
        proxy: String,
    },
    /// The proxy says no.
    #[error("the forward proxy {proxy} does not open a way to {place}: {answer}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// The far end.
        place: String,
        /// Status line of its answer.
        answer: String,
    },
    /// The proxy does not answer as a proxy does.
    #[error("{proxy} does not answer like a forward proxy: {reason}")]
    NotProxy {
        /// The proxy.
        proxy: String,
        /// What it did.
        reason: String,
    },
}

/// Bytes to a far end: directly, or through what a proxy opened.
#[derive(Debug)]
pub enum Way {
    /// TCP to the far end, or through a proxy without TLS.
    Plain(TcpStream),
    /// Through a proxy that is spoken to over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `host`:`port` through `proxy`, each step within `limit`. `id` is the contract id of
/// the connection that goes through; `tls` is for a proxy that is spoken to over TLS.
///
/// # Errors
/// See [`ProxyError`].
///
/// # Panics
/// If `id` is not in the contract, or a proxy with TLS is given without `tls`.
pub async fn dial_through(
    id: &str,
    proxy: &ForwardProxy,
    tls: Option<&Arc<ClientConfig>>,
    (host, port): (&str, u16),
    limit: Duration,
) -> Result<Way, ProxyError> {
    sallyport_contract::entry(id);
    let stream = dial("forward_proxy", &proxy.host, proxy.port, limit).await?;
    let not_proxy = |reason: String| ProxyError::NotProxy {
        proxy: proxy.to_string(),
        reason,
    };
    let late = || not_proxy(format!("no answer within {} s", limit.as_secs_f32()));
    let mut way = match proxy.tls {
        false => Way::Plain(stream),
        true => {
            let config = tls
                .expect("whoever knows the proxy made its TLS ready")
                .clone();
            let connected = timeout(limit, connect(config, &proxy.host, stream)).await;
            let stream = connected.map_err(|_| late())?;
            let stream = stream.map_err(|failure| ProxyError::Tls {
                proxy: proxy.to_string(),
                failure,
            })?;
            Way::Tls(Box::new(stream))
        }
    };
    let place = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let request = request(&place, proxy.credentials.as_deref());
    let asked = async {
        way.write_all(request.as_bytes()).await?;
        way.flush().await?;
        read_head(&mut way).await
    };
    let head = match timeout(limit, asked).await {
        Err(_) => return Err(late()),
        Ok(Err(error)) => return Err(not_proxy(error.to_string())),
        Ok(Ok(head)) => head,
    };
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    match status(&line) {
        Some(200..=299) => Ok(way),
        Some(407) => Err(ProxyError::Credentials {
            proxy: proxy.to_string(),
        }),
        Some(_) => Err(ProxyError::Refused {
            proxy: proxy.to_string(),
            place,
            answer: line.chars().filter(|it| !it.is_control()).collect(),
        }),
        None => Err(not_proxy(format!("{line:.80?}"))),
    }
}

/// Source: data-plane reference 1.12.
fn request(place: &str, credentials: Option<&str>) -> String {
    let mut request =
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Connection: Keep-Alive\r\n");
    if let Some(credentials) = credentials {
        let credentials = STANDARD.encode(credentials);
        request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// A head to its blank line, and not a byte of what follows: that is the far end's.
async fn read_head(way: &mut Way) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::other("its answer has no end"));
        }
        match way.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("it closes the connection"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

/// The status of a status line of HTTP/1.
fn status(line: &str) -> Option<u16> {
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let digits = rest.get(..3)?;
    let ends = rest.as_bytes().get(3).is_none_or(|&byte| byte == b' ');
    digits.parse().ok().filter(|_| ends)
}

impl AsyncRead for Way {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Way::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Way::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Way::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Way::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What comes of a proxy that answers this, and what it was asked.
    async fn ask(answer: &str, proxy: &str) -> (Result<Way, ProxyError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy: ForwardProxy = proxy.replace("PORT", &port.to_string()).parse().unwrap();
        let plays = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        };
        tokio::join!(
            dial_through("config_sync", &proxy, None, ("cp.example", 443), LIMIT),
            plays
        )
    }

    #[track_caller]
    fn check(outcome: &Result<Way, ProxyError>, part: &str) {
        let error = outcome.as_ref().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_the_far_ends() {
        let answer = "HTTP/1.0 200 Connection established\r\nX: y\r\n\r\nhello";
        let (way, asked) = ask(answer, "http://u:p@127.0.0.1:PORT").await;
        assert_eq!(
            asked,
            "CONNECT cp.example:443 HTTP/1.1\r\nHost: cp.example:443\r\n\
             Proxy-Connection: Keep-Alive\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        );
        let mut rest = String::new();
        way.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn a_refusal_names_the_proxy_and_what_it_said() {
        let proxy = "http://127.0.0.1:PORT";
        let (way, asked) = ask("HTTP/1.1 403 Forbidden\r\n\r\n", proxy).await;
        assert!(!asked.contains("Authorization"));
        check(
            &way,
            "does not open a way to cp.example:443: HTTP/1.1 403 Forbidden",
        );
        let (way, _) = ask("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", proxy).await;
        check(&way, "wants other credentials");
        let (way, _) = ask("SSH-2.0-OpenSSH\r\n\r\n", proxy).await;
        check(
            &way,
            "does not answer like a forward proxy: \"SSH-2.0-OpenSSH\"",
        );
        let (way, _) = ask("HTTP/1.1 200", proxy).await;
        check(&way, "it closes the connection");
        let (way, _) = ask(&"x".repeat(40_000), proxy).await;
        check(&way, "has no end");
    }
}
