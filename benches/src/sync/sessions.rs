//! Simulated gateways: TLS, the WebSocket and the frames of protocol v2, and nothing behind them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{Identity, ServerTrust, client_config, connect, trust_store};
use sallyport_wire::config_sync::delta::{
    Deltas, Hello, OWN, PUSH, Report, SYNC, SyncVersion, get_delta,
};
use sallyport_wire::config_sync::rpc::{ENCODING, Message, decode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use super::{Args, Lab};
use crate::process::{cpu, memory_kib};

/// Handshakes at once, so that nobody waits longer than a handshake may take.
const DIALLING_MAX: usize = 64;

/// A session that has everything.
struct Session {
    stream: TlsStream<TcpStream>,
    version: SyncVersion,
}

impl Session {
    async fn send(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        // final, binary; masked with zeros
        let mut frame = vec![0x82];
        match u16::try_from(payload.len()) {
            Ok(short) if short < 126 => frame.push(0x80 | short.to_le_bytes()[0]),
            Ok(medium) => {
                frame.push(0x80 | 126);
                frame.extend(medium.to_be_bytes());
            }
            Err(_) => bail!("a simulated gateway says little"),
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        let length = match head[1] {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut payload).await?;
        match head[0] {
            0x82 => Ok(payload),
            other => bail!("a frame that begins with {other:#x}"),
        }
    }

    async fn message(&mut self) -> anyhow::Result<Message> {
        let frame = self.receive().await?;
        let messages = decode(&frame, 1 << 30)?;
        Ok(messages.into_iter().next().context("an empty frame")??)
    }

    /// Waits for a change that is pushed.
    async fn pushed(&mut self) -> anyhow::Result<()> {
        match self.message().await? {
            Message::Notification { method, params } if method == PUSH => {
                let deltas = Deltas::from_params(&params).map_err(anyhow::Error::msg)?;
                self.version = deltas.version;
                let config_hash = deltas.hash.context("no hash")?;
                self.report(config_hash).await
            }
            other => bail!("{other:?}"),
        }
    }

    async fn report(&mut self, config_hash: sallyport_wire::ConfigHash) -> anyhow::Result<()> {
        let report = Report {
            version: self.version,
            config_hash,
            refused: Vec::new(),
        };
        self.send(&report.to_message().encode()).await
    }
}

pub(super) fn run(args: &Args, executable: &Path) -> anyhow::Result<()> {
    eprintln!("{} simulated sessions", args.sessions);
    let lab = Lab::start(args, executable, 1_000)?;
    let pair = data_plane_pair("simulated", Curve::P256, 30)?;
    let mut stream = lab.control.connect()?;
    let here = format!("/v2/control-planes/{}", lab.control.id);
    let pins = format!("{here}/dp-client-certificates");
    lab.control.call(
        &mut stream,
        "POST",
        &pins,
        Some(&json!({"cert": pair.cert})),
    )?;
    let shown = lab.control.call(&mut stream, "GET", &here, None)?;
    let name = shown["config"]["control_plane_endpoint"].as_str();
    let name = name.and_then(|url| url.strip_prefix("https://"));
    let name = name.context("no endpoint")?.to_owned();
    let roots = trust_store(&[lab.control.home.join("ca.crt").display().to_string()])?;
    let identity = Identity::from_pem(&pair.cert, &pair.key)?;
    let trust = ServerTrust::Roots(Arc::new(roots));
    let config = Arc::new(client_config(trust, Some(&identity))?);
    let pid = lab.control.server.0.pid();
    let (empty, _) = memory_kib(pid)?;
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let (began, before) = (Instant::now(), cpu(pid)?);
        let mut sessions = all(args.sessions, lab.control.port, &name, &config, None).await?;
        let used = cpu(pid)?.total().saturating_sub(before.total());
        let (full, _) = memory_kib(pid)?;
        println!(
            "{} idle sessions: control plane {:.1} MiB resident, {:.1} MiB of it for them; connected \
             in {:.1} s with {:.1} s CPU of the control plane",
            args.sessions,
            full as f64 / 1024.0,
            full.saturating_sub(empty) as f64 / 1024.0,
            began.elapsed().as_secs_f64(),
            used.as_secs_f64()
        );
        // the one before was silent for longer than the API keeps a connection
        let mut stream = lab.control.connect()?;
        let mut took = Vec::new();
        for number in 0..5 {
            let (_, began) = lab.change(&mut stream, number * 7)?;
            sessions = pushed(sessions).await?;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        println!(
            "one change to all of them: median {:.0} ms, worst {:.0} ms",
            super::at(&took, 0.5),
            super::at(&took, 1.0)
        );
        let version = sessions.first().context("no session")?.version;
        drop(sessions);
        let (began, before) = (Instant::now(), cpu(pid)?);
        let again = all(args.sessions, lab.control.port, &name, &config, Some(version)).await?;
        let used = cpu(pid)?.total().saturating_sub(before.total());
        let (full, _) = memory_kib(pid)?;
        println!(
            "all back at once: {:.1} s, {:.1} s CPU of the control plane, {:.1} MiB resident",
            began.elapsed().as_secs_f64(),
            used.as_secs_f64(),
            full as f64 / 1024.0
        );
        drop(again);
        Ok(())
    })
}

/// As many sessions, each with everything from `version` on.
async fn all(
    count: u32,
    port: u16,
    name: &str,
    config: &Arc<rustls::ClientConfig>,
    version: Option<SyncVersion>,
) -> anyhow::Result<Vec<Session>> {
    let room = Arc::new(Semaphore::new(DIALLING_MAX));
    let mut opening = JoinSet::new();
    for node in 1..=u128::from(count) {
        let (name, config, room) = (name.to_owned(), config.clone(), room.clone());
        opening.spawn(async move {
            let _place = room.acquire_owned().await?;
            open(
                port,
                &name,
                config,
                node,
                version.unwrap_or(SyncVersion::NONE),
            )
            .await
        });
    }
    let mut sessions = Vec::new();
    while let Some(opened) = opening.join_next().await {
        sessions.push(opened??);
    }
    Ok(sessions)
}

async fn open(
    port: u16,
    name: &str,
    config: Arc<rustls::ClientConfig>,
    node: u128,
    version: SyncVersion,
) -> anyhow::Result<Session> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = connect(config, name, stream)
        .await
        .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let mut session = Session { stream, version };
    let upgrade = format!(
        "GET /v2/outlet HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: kong.meta.v1\r\n\r\n"
    );
    session.stream.write_all(upgrade.as_bytes()).await?;
    session.stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(session.stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    let hello = Hello {
        rpc_capabilities: vec![SYNC.to_owned(), OWN.to_owned()],
        rpc_frame_encodings: vec![ENCODING.to_owned()],
        kong_version: "3.10.0".to_owned(),
        kong_hostname: "simulated".to_owned(),
        kong_node_id: Uuid::from_u128(node).to_string(),
        ..Hello::default()
    };
    session.send(&hello.encode()).await?;
    session.receive().await?;
    session.send(&get_delta(0, version).encode()).await?;
    match session.message().await? {
        Message::Answer { result, .. } => {
            let deltas = Deltas::from_raw(&result).map_err(anyhow::Error::msg)?;
            session.version = deltas.version;
            session.report(deltas.hash.context("no hash")?).await?;
        }
        other => bail!("{other:?}"),
    }
    Ok(session)
}

/// Waits until each session has got the change.
async fn pushed(sessions: Vec<Session>) -> anyhow::Result<Vec<Session>> {
    let mut waiting = JoinSet::new();
    for mut session in sessions {
        waiting.spawn(async move {
            let pushed = tokio::time::timeout(Duration::from_secs(60), session.pushed()).await;
            pushed.context("a session got no change")??;
            anyhow::Ok(session)
        });
    }
    let mut sessions = Vec::new();
    while let Some(session) = waiting.join_next().await {
        sessions.push(session??);
    }
    Ok(sessions)
}
