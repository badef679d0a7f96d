//! Requests to the API of a control plane.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use sallyport_runtime::dial;
use sallyport_runtime::tls::{ServerTrust, client_config, connect, trust_store};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// For the connection to be made.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which control plane, and whom to believe there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Api {
    /// Address of the control plane, such as https://us.api.sallyport.example
    #[arg(long, value_name = "URL", env = "SALLYPORT_ADDRESS")]
    pub(crate) address: Uri,
    /// Certificate of the authority that the control plane's certificate comes from, if the system
    /// does not know it (PEM; `ca.crt` in the control plane's data directory)
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// An answer of any status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The JSON of a good answer.
    ///
    /// # Errors
    /// What a bad one says.
    pub(crate) fn good(self) -> anyhow::Result<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if (200..300).contains(&self.status) {
            return Ok(body);
        }
        let told = [&body["detail"], &body["message"]];
        let told = told
            .iter()
            .find_map(|it| it.as_str())
            .unwrap_or("no reason given");
        bail!("the control plane answers {}: {told}", self.status)
    }
}

impl Api {
    /// Sends one request and waits for the answer, at most `limit`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let host = self.address.host().context("the address names no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls = match self.address.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("the address must start with https:// (or http:// on this machine)"),
        };
        let port = self
            .address
            .port_u16()
            .unwrap_or(if tls { 443 } else { 80 });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{port}"));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes))?;
        let stream = dial("core_entities", bare, port, DIAL_MAX).await?;
        let exchange = async {
            if !tls {
                let answered = exchange(stream, request).await;
                return answered.with_context(|| {
                    format!(
                        "no answer in HTTP from {}; with TLS the address begins with https://",
                        self.address
                    )
                });
            }
            let system = vec!["system".to_owned()];
            let named = self.ca.as_ref().map(|ca| vec![ca.display().to_string()]);
            // its message has its source in it already
            let roots = trust_store(&named.unwrap_or(system))
                .map_err(|error| anyhow::anyhow!("--ca: {error}"))?;
            let config = client_config(ServerTrust::Roots(Arc::new(roots)), None)?;
            let connected = connect(Arc::new(config), bare, stream).await;
            let hint = match self.ca {
                None => " (an authority of its own is named with --ca)",
                Some(_) => "",
            };
            let stream = connected.map_err(|error| anyhow::anyhow!("{error}{hint}"))?;
            exchange(stream, request).await
        };
        let answer = tokio::time::timeout(limit, exchange).await;
        answer.context("the control plane did not answer in time")?
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        anyhow::Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    // the connection ends when the sender is dropped with the answer
    let (answer, _) = tokio::join!(answered, connection);
    answer
}

/// Runs one piece of work of a short command.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(work)
}
