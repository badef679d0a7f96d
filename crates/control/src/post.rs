//! One HTTP request to a receiver that an operator named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sallyport_runtime::tls::{ServerTrust, client_config, trust_store};
use sallyport_runtime::{dial, tls};
use tokio::io::{AsyncRead, AsyncWrite};

/// For one request, from dialling to the end of the answer.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// Of an answer, of which only the beginning may be shown.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const SHOWN_BYTES_MAX: usize = 300;

/// A request to make.
pub(crate) struct Post<'a> {
    /// Contract id of the connection.
    pub(crate) id: &'static str,
    pub(crate) uri: &'a Uri,
    /// Beside `Host`, `User-Agent` and `Authorization`.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Value of `Authorization`; empty for none.
    pub(crate) authorization: &'a str,
    pub(crate) body: Bytes,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    /// How the body begins, if it is text.
    pub(crate) text: String,
}

/// Makes the request; `tls` gives what `https` needs.
///
/// # Errors
/// What kept it from being answered, for people.
pub(crate) async fn post(
    post: Post<'_>,
    tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
) -> Result<Answer, String> {
    let uri = post.uri;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let authority = uri.authority().map_or("", |it| it.as_str());
    let target = uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = Request::post(target)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")));
    for (name, value) in post.headers {
        request = request.header(*name, *value);
    }
    if !post.authorization.is_empty() {
        let mut value = HeaderValue::from_str(post.authorization)
            .map_err(|_| "the authorization cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request
        .body(Full::new(post.body))
        .map_err(|error| error.to_string())?;
    let dialled = dial(post.id, host, port, REQUEST_TIME_MAX).await;
    let stream = dialled.map_err(|error| error.to_string())?;
    if !is_tls {
        return exchange(stream, request).await;
    }
    let stream = tls::connect(tls()?, host, stream).await;
    exchange(stream.map_err(|error| error.to_string())?, request).await
}

/// A client that believes servers with certificates of these authorities.
pub(crate) fn trusting(ca: &[String]) -> Result<Arc<ClientConfig>, String> {
    let roots = trust_store(ca).map_err(|it| it.to_string())?;
    let config = client_config(ServerTrust::Roots(Arc::new(roots)), None);
    config.map(Arc::new).map_err(|it| it.to_string())
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let text = |error: hyper::Error| error.to_string();
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(text)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let (head, body) = response.into_parts();
        let after = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|it| it.to_str().ok());
        let after = after.and_then(|it| it.trim().parse().ok());
        // how the answer goes on does not matter, only that the receiver is done
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map(|it| it.to_bytes()).unwrap_or_default();
        let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
        Ok(Answer {
            status: head.status,
            retry_after: after.map(Duration::from_secs),
            text: shown
                .replace(|c: char| c.is_control(), " ")
                .trim()
                .to_owned(),
        })
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        // an answer may be complete although the connection ended at once
        _ = &mut connection => answer.await,
    }
}
