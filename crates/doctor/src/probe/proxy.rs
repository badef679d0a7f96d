//! Through a forward proxy: CONNECT, and what it says if it does not want to.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::talk::{Read, read_head};
use crate::check::{Check, Target, Via};
use crate::seen::End;
use crate::wire::printable;

/// Asks the proxy for a way to the check's far end; afterwards `stream` is that way.
pub(super) async fn open(
    stream: &mut TcpStream,
    via: &Via,
    check: &Check,
    limit: Duration,
) -> Result<(), End> {
    let host = match &check.target {
        Target::Address(address) if address.is_ipv6() => format!("[{address}]"),
        target => target.to_string(),
    };
    let place = format!("{host}:{}", check.port());
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(credentials) = &via.credentials {
        let credentials = STANDARD.encode(credentials);
        request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
    }
    request.push_str("\r\n");
    let refused = |status: u16, reason: String| End::ProxyRefused { status, reason };
    // A proxy may itself wait for the far end for a while before it gives up.
    let asked = timeout(limit * 2, async {
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(Read::Failed)?;
        read_head(stream).await
    });
    match asked.await {
        Err(_) => Err(refused(504, "no answer in time".to_owned())),
        Ok(Ok(head)) if (200..300).contains(&head.status) => Ok(()),
        Ok(Ok(head)) => {
            let squid = head
                .squid_error
                .map(|it| format!(" ({it})"))
                .unwrap_or_default();
            Err(refused(
                head.status,
                format!("{} {}{squid}", head.status, head.reason),
            ))
        }
        Ok(Err(Read::Closed | Read::Failed(_))) => {
            Err(refused(0, "closes the connection".to_owned()))
        }
        Ok(Err(Read::NotHttp(bytes))) => {
            Err(refused(0, format!("no HTTP, but {:?}", printable(&bytes))))
        }
    }
}
