//! An HTTP server that payloads are sent to, over a connection that is kept open.

use std::future::Future;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sallyport_plugins::log_queue::HttpSink;
use sallyport_runtime::dial;
use tokio::time::{Instant, timeout};

use super::Ways;
use super::outgoing::contract_id;
use super::socket::encrypt;

/// Of an answer; a connection with a longer one is closed.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Of an answer that refuses, as logs show it.
const REASON_CHARS_MAX: usize = 200;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection to a server.
pub(super) struct Server {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes whenever it is polled; nobody polls it between two requests.
    driver: Driver,
    used: Instant,
    /// Where it leads: host, port and whether it is encrypted.
    to: (String, u16, bool),
}

impl Server {
    /// Sends one payload, over the connection kept open if it is fit. Gives back a connection to
    /// keep, if it may be.
    pub(super) async fn send(
        kept: Option<Server>,
        plugin: &'static str,
        sink: &HttpSink,
        ways: &Ways,
        payload: Bytes,
    ) -> Result<Option<Server>, String> {
        let endpoint = &sink.endpoint;
        let to = (endpoint.host.clone(), endpoint.port, endpoint.tls);
        let kept = kept.filter(|kept| kept.to == to && kept.used.elapsed() < sink.keepalive);
        if let Some(kept) = kept {
            match kept.exchange(sink, payload.clone()).await {
                // the server closes connections that are idle, and this one may have been
                Err(Broken::Connection(_)) => {}
                Err(Broken::Answer(reason)) => return Err(reason),
                Ok(server) => return Ok(server),
            }
        }
        let opened = Server::open(plugin, sink, ways, to).await?;
        opened.exchange(sink, payload).await.map_err(Broken::reason)
    }

    async fn open(
        plugin: &'static str,
        sink: &HttpSink,
        ways: &Ways,
        to: (String, u16, bool),
    ) -> Result<Server, String> {
        let limit = sink.connect_timeout;
        let stream = dial(contract_id(plugin), &to.0, to.1, limit)
            .await
            .map_err(|error| error.to_string())?;
        let config = if sink.verify {
            &ways.verified
        } else {
            &ways.unverified
        };
        let tls = to.2.then_some((&to.0[..], config));
        let io = encrypt(stream, tls, limit).await?;
        let (sender, connection) = handshake(TokioIo::new(io))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Server {
            sender,
            driver: Box::pin(connection),
            used: Instant::now(),
            to,
        })
    }

    async fn exchange(mut self, sink: &HttpSink, payload: Bytes) -> Result<Option<Server>, Broken> {
        let asked = async {
            let answer = async {
                self.sender.ready().await.map_err(Broken::lost)?;
                let response = self.sender.send_request(request(sink, payload)).await;
                let (head, body) = response.map_err(Broken::lost)?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                Ok((head, body.map(|body| body.to_bytes())))
            };
            let mut answer = pin!(answer);
            tokio::select! {
                biased;
                answer = &mut answer => (answer, false),
                // what came with the end is there nevertheless
                _ = &mut self.driver => (answer.await, true),
            }
        };
        let ((head, body), ended) = match timeout(sink.exchange_timeout, asked).await {
            Ok((answer, ended)) => (answer?, ended),
            Err(_) => return Err(Broken::Answer("no answer in time".to_owned())),
        };
        if !head.status.is_success() {
            let text = String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
            let text: String = text.chars().take(REASON_CHARS_MAX).collect();
            let status = head.status.as_u16();
            return Err(Broken::Answer(format!("status {status}, body {text:?}")));
        }
        self.used = Instant::now();
        let keep = !ended && body.is_ok() && !closes(&head.headers) && !self.sender.is_closed();
        Ok(keep.then_some(self))
    }
}

/// Why there is no good answer.
enum Broken {
    /// The connection ended before there was one.
    Connection(String),
    /// There was another one, or none in time.
    Answer(String),
}

impl Broken {
    fn lost(error: hyper::Error) -> Broken {
        Broken::Connection(error.to_string())
    }

    fn reason(self) -> String {
        match self {
            Broken::Connection(reason) | Broken::Answer(reason) => reason,
        }
    }
}

fn closes(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONNECTION)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.to_ascii_lowercase().contains("close"))
}

fn request(sink: &HttpSink, payload: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(payload));
    *request.method_mut() = sink.method.clone();
    if let Ok(target) = sink.endpoint.target.parse() {
        *request.uri_mut() = target;
    }
    let headers = request.headers_mut();
    *headers = sink.headers.clone();
    if let Ok(host) = HeaderValue::from_str(&sink.endpoint.authority) {
        headers.insert(HOST, host);
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static("sallyport"));
    request
}
