//! The connection to a node: both sides known by their certificates, frames over it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_runtime::tls::{
    CertDigest, Identity, ServerTrust, client_config, connect, leaf_digest,
};
use sallyport_wire::appliance_cli::{
    ALPN, FRAME_BYTES_MAX, Kind, PROTOCOL, Progress, Reply, Request, split, write,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::download::Download;
use super::known_nodes::KnownNodes;
use crate::commands::keys::{Own, own_key};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a node may say nothing while it works.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Where a node is.
pub(super) struct Node {
    host: String,
    port: u16,
}

impl Node {
    /// From `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
    pub(super) fn new(target: &str, port: Option<u16>) -> anyhow::Result<Node> {
        let canonical = sallyport_contract::entry("appliance_cli").port().get();
        let is_v6 = target.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, own) = match target.rsplit_once(':') {
            Some((host, own)) if !is_v6 => {
                let own = own.parse::<u16>();
                (
                    host,
                    Some(own.with_context(|| format!("{target:?} has no port"))?),
                )
            }
            _ => (target, None),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() {
            bail!("{target:?} names no node");
        }
        Ok(Node {
            host: host.to_owned(),
            port: port.or(own).unwrap_or(canonical),
        })
    }

    /// As it is known and shown.
    pub(super) fn shown(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A connection on which commands can be given.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Connection {
    /// Connects; nothing is sent to a node that is not the known one.
    pub(super) async fn open(
        node: &Node,
        own: &Own,
        fingerprint: Option<CertDigest>,
        accept_new: bool,
    ) -> anyhow::Result<Connection> {
        own_key(own)?;
        let directory = own.directory()?;
        let (certificate, key) = (directory.join("cli.crt"), directory.join("cli.key"));
        let identity = Identity::load(&certificate.to_string_lossy(), &key.to_string_lossy())
            .context("your key cannot be used")?;
        // Whoever it is proves that it holds its key; who it is, is looked at below.
        let mut config = client_config(ServerTrust::Anybody, Some(&identity))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let stream =
            sallyport_runtime::dial("appliance_cli", &node.host, node.port, CONNECT_MAX).await?;
        _ = stream.set_nodelay(true);
        let handshake = connect(config.into(), "appliance-cli", stream);
        let stream = timeout(CONNECT_MAX, handshake)
            .await
            .with_context(|| format!("{} did not answer in time", node.shown()))?
            .with_context(|| format!("{} does not speak as a node does", node.shown()))?;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let shown = leaf_digest(shown.context("the node showed no certificate")?);
        let mut known = KnownNodes::open(&directory)?;
        known.check(&node.shown(), shown, fingerprint, accept_new)?;
        Ok(Connection {
            stream,
            read: Vec::new(),
        })
    }

    /// Gives a command and waits for its reply; what comes of a file goes to `download`.
    pub(super) async fn ask(
        &mut self,
        command: &str,
        arguments: BTreeMap<String, String>,
        mut download: Option<&mut Download>,
    ) -> anyhow::Result<Reply> {
        let request = Request {
            protocol: PROTOCOL,
            command: command.to_owned(),
            arguments,
        };
        let mut frame = Vec::new();
        write(Kind::Request, &serde_json::to_vec(&request)?, &mut frame);
        self.stream
            .write_all(&frame)
            .await
            .context("the node closed the connection")?;
        self.stream
            .flush()
            .await
            .context("the node closed the connection")?;
        loop {
            let (kind, payload) = self.frame().await?;
            match kind {
                Kind::Reply => {
                    return serde_json::from_slice(&payload).context("a reply cannot be read");
                }
                Kind::Progress => {
                    let progress: Progress =
                        serde_json::from_slice(&payload).context("progress cannot be read")?;
                    if let Some(download) = download.as_deref_mut() {
                        download.progress(&progress);
                    }
                }
                Kind::Data => match download.as_deref_mut() {
                    Some(download) => download.data(&payload)?,
                    None => bail!("the node sends a file that nobody asked for"),
                },
                Kind::Request => bail!("the node asks, which it does not"),
            }
        }
    }

    async fn frame(&mut self) -> anyhow::Result<(Kind, Vec<u8>)> {
        loop {
            if let Some(frame) = split(&self.read, FRAME_BYTES_MAX)? {
                let taken = (frame.kind, frame.payload.to_vec());
                let bytes = frame.bytes;
                self.read.drain(..bytes);
                return Ok(taken);
            }
            self.read.reserve(64 << 10);
            let read = timeout(SILENCE_MAX, self.stream.read_buf(&mut self.read)).await;
            let read = read.context("the node does not answer any more")?;
            if read.context("the connection was lost")? == 0 {
                bail!("the node closed the connection before it had answered");
            }
        }
    }
}
