//! The small upstream of quickstart: it answers with what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_runtime::{ListenError, ListenOptions, listen};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Largest body that is echoed, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The running upstream.
pub(super) struct Echo {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Echo {
    /// Starts it. `setting` is what changes its address.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(super) fn start(address: SocketAddr, setting: &str) -> Result<Echo, ListenError> {
        let listener = listen(
            "quickstart.echo",
            address,
            setting,
            ListenOptions::default(),
        )?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, stop.clone()));
        Ok(Echo { tasks, stop })
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => _ = connections.spawn(async move {
                    let served = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                    if let Err(error) = served {
                        debug!(%error, "connection ended");
                    }
                }),
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let headers: Map<String, Value> = head
        .headers
        .keys()
        .map(|name| {
            let lines: Vec<_> = head.headers.get_all(name).iter().collect();
            let text = |value: &HeaderValue| json!(String::from_utf8_lossy(value.as_bytes()));
            let value = match lines[..] {
                [one] => text(one),
                _ => lines.into_iter().map(text).collect(),
            };
            (name.to_string(), value)
        })
        .collect();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => json!(String::from_utf8_lossy(&body.to_bytes())),
        Err(_) => Value::Null,
    };
    let echo = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": body,
    });
    let text = serde_json::to_string_pretty(&echo).unwrap_or_default() + "\n";
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
