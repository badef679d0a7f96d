//! Fetches one document over HTTP or HTTPS, for the published list of addresses.

use std::time::Duration;

use sallyport_runtime::tls::{ServerTrust, client_config, connect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::wire::http::{Parsed, head};

/// Longest answer that is read, in bytes.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A document, or the news that it is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// HTTP status, 200 or 304.
    pub status: u16,
    /// The document's `ETag`.
    pub etag: Option<String>,
    /// The document; empty with 304.
    pub body: Vec<u8>,
}

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Not a URL that this can fetch.
    #[error("{0:?} is not a URL such as https://host/path")]
    Url(String),
    /// The host was not reached, or the connection broke.
    #[error("could not fetch {url}: {reason}")]
    Connection {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Another status than 200 and 304.
    #[error("{url} answers HTTP {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
}

/// Fetches `url` within `limit`, unless the document still has `etag`.
///
/// `address` overrides where `host:port` of the URL is dialled.
///
/// # Errors
/// See [`FetchError`].
pub async fn fetch(
    url: &str,
    address: Option<std::net::SocketAddr>,
    etag: Option<&str>,
    trust: ServerTrust,
    limit: Duration,
) -> Result<Fetched, FetchError> {
    let (tls, host, port, path) = parts(url).ok_or_else(|| FetchError::Url(url.to_owned()))?;
    let failed = |reason: String| FetchError::Connection {
        url: url.to_owned(),
        reason,
    };
    let work = async {
        let address = match address {
            Some(address) => address,
            None => lookup_host((host, port))
                .await
                .map_err(|error| failed(error.to_string()))?
                .next()
                .ok_or_else(|| failed(format!("{host} has no address")))?,
        };
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed(format!("{address}: {error}")))?;
        // HTTP/1.0: the answer comes whole and ends with the connection.
        let condition = etag
            .map(|etag| format!("If-None-Match: {etag}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: sallyport\r\n{condition}\r\n"
        );
        if tls {
            let config = client_config(trust, None).map_err(|error| failed(error.to_string()))?;
            let stream = connect(std::sync::Arc::new(config), host, stream)
                .await
                .map_err(|error| failed(error.to_string()))?;
            exchange(stream, &request).await.map_err(failed)
        } else {
            exchange(stream, &request).await.map_err(failed)
        }
    };
    let late = || failed(format!("no answer within {} s", limit.as_secs()));
    let bytes = timeout(limit, work).await.map_err(|_| late())??;
    let Parsed::Head(head) = head(&bytes) else {
        return Err(failed("the answer is not HTTP".to_owned()));
    };
    if !matches!(head.status, 200 | 304) {
        return Err(FetchError::Status {
            url: url.to_owned(),
            status: head.status,
        });
    }
    let body = bytes[head.bytes..].to_vec();
    let whole = head
        .content_length
        .is_none_or(|it| u64::try_from(body.len()) == Ok(it));
    if head.chunked || (head.status == 200 && !whole) {
        return Err(failed("the answer is cut off or in pieces".to_owned()));
    }
    Ok(Fetched {
        status: head.status,
        etag: head.etag,
        body,
    })
}

async fn exchange<S>(mut stream: S, request: &str) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    stream.flush().await.map_err(text)?;
    let mut bytes = Vec::new();
    match stream.take(BYTES_MAX).read_to_end(&mut bytes).await {
        // Servers that close without TLS's farewell; `Content-Length` tells whether all came.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(text(error)),
        _ => Ok(bytes),
    }
}

/// TLS or not, host, port, path and query.
fn parts(url: &str) -> Option<(bool, &str, u16, &str)> {
    let (tls, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (place, path) = rest.split_at(slash);
    let path = if path.is_empty() { "/" } else { path };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (place, if tls { 443 } else { 80 }),
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let good = !host.is_empty() && !host.contains('@') && plain(host) && plain(path);
    good.then_some((tls, host, port, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        for (url, want) in [
            (
                "https://a.example/x?y=1",
                Some((true, "a.example", 443, "/x?y=1")),
            ),
            (
                "http://a.example:8080",
                Some((false, "a.example", 8080, "/")),
            ),
            ("https://a.example:0/", None),
            ("ftp://a.example/", None),
            ("https:///x", None),
            ("https://a.example/ x", None),
            ("https://u@a.example/", None),
        ] {
            assert_eq!(parts(url), want, "{url}");
        }
    }
}
