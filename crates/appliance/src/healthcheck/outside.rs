//! What a node asks of others for its health.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sallyport_runtime::tls::{ServerTrust, client_config, connect, trust_store};
use sallyport_runtime::{dial, icmp};
use sallyport_store::Member;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;

use super::checks::Answer;
use crate::node::State;

const ECHO_TIME_MAX: Duration = Duration::from_secs(2);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// The first line of a mail relay.
const GREETING_LEN_MAX: u64 = 1024;

/// Whether every other node answers an echo.
pub(super) async fn network(state: &State) -> Answer {
    let others = state.members();
    let others = others.into_iter().filter(|it| it.id != state.identity.id);
    let mut asked: JoinSet<(String, Result<&'static str, String>)> = others
        .map(|member| async move { (member.name.clone(), echo(&member).await) })
        .collect();
    if asked.is_empty() {
        return Answer::skipped("there is no other node");
    }
    let (mut well, mut told) = (true, Vec::new());
    while let Some(answer) = asked.join_next().await {
        let Ok((name, answer)) = answer else { continue };
        well &= answer.is_ok();
        told.push(match answer {
            Ok(how) => format!("{name}: {how}"),
            Err(why) => format!("{name}: {why}"),
        });
    }
    told.sort();
    Answer::of(well, told.join(", "))
}

/// An echo by ICMP; where this user may not send one, a connection to the control port instead.
async fn echo(member: &Member) -> Result<&'static str, String> {
    let address: SocketAddr = member
        .address
        .parse()
        .map_err(|_| format!("{:?} is no address", member.address))?;
    match icmp::echo(address.ip(), ECHO_TIME_MAX).await {
        Ok(true) => Ok("answers ICMP echo"),
        Ok(false) => Err("no answer to ICMP echo".to_owned()),
        Err(_) => {
            let host = address.ip().to_string();
            let dialled = dial("node_control", &host, address.port(), ECHO_TIME_MAX).await;
            match dialled {
                Ok(_) => Ok("answers TCP (this user may not send ICMP)"),
                Err(error) => Err(format!("no TCP ({error}; this user may not send ICMP)")),
            }
        }
    }
}

/// Whether a HEAD request for the URL is answered with success or a redirect.
pub(super) async fn internet(url: &str) -> Answer {
    match head(url).await {
        Ok(status) => Answer::of(
            status.is_success() || status.is_redirection(),
            format!("{url} answers {status}"),
        ),
        Err(error) => Answer::of(false, format!("{url}: {error}")),
    }
}

async fn head(url: &str) -> Result<http::StatusCode, String> {
    let uri: Uri = url.parse().map_err(|_| "no URL".to_owned())?;
    let host = uri.host().ok_or("no host in the URL")?.to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let stream = dial("healthcheck.internet", &host, port, CONNECT_TIME_MAX).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(path)
        .header(
            "host",
            uri.authority().map_or(host.as_str(), |it| it.as_str()),
        )
        .header(
            "user-agent",
            concat!("sallyport/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    if !secure {
        return sent(stream, request).await;
    }
    let config = system_trust()?;
    let tls = connect(config, &host, stream).await;
    sent(tls.map_err(|error| error.to_string())?, request).await
}

fn system_trust() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let roots = trust_store(&["system"]).map_err(|error| error.to_string())?;
        let config = client_config(ServerTrust::Roots(Arc::new(roots)), None);
        config.map(Arc::new).map_err(|error| error.to_string())
    });
    made.clone()
}

async fn sent<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<http::StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let (mut asked, mut connection) = (
        std::pin::pin!(sender.send_request(request)),
        std::pin::pin!(connection),
    );
    let answer = tokio::select! {
        answer = &mut asked => answer,
        _ = &mut connection => asked.await,
    };
    answer
        .map(|it| it.status())
        .map_err(|error| error.to_string())
}

/// Whether the mail relay greets, as RFC 5321 has it.
pub(super) async fn email(host: &str, port: u16) -> Answer {
    let talked = async {
        let stream = dial("smtp", host, port, CONNECT_TIME_MAX).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(stream.take(GREETING_LEN_MAX));
        let mut line = String::new();
        lines
            .read_line(&mut line)
            .await
            .map_err(|error| error.to_string())?;
        let mut stream = lines.into_inner().into_inner();
        let _ = stream.write_all(b"QUIT\r\n").await; // manners; the answer is known
        Ok::<String, String>(line)
    };
    match talked.await {
        Ok(line) if line.starts_with("220") => Answer::of(true, format!("{host}:{port} greets")),
        Ok(line) => Answer::of(false, format!("{host}:{port} says {:?}", line.trim_end())),
        Err(error) => Answer::of(false, error),
    }
}
