//! A thousand gateways that all come back at once when their control plane was restarted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_runtime::tls::{Identity, ServerTrust, client_config, connect, trust_store};
use sallyport_testkit::{Deadline, eventually};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{
    Deltas, Hello, OWN, PUSH, Report, SYNC, SyncVersion, get_delta,
};
use sallyport_wire::config_sync::rpc::{ENCODING, Message, decode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::hybrid_frames::{BINARY, frame};
use crate::lab::{Control, Pair, soon};

const GATEWAYS: usize = 1_000;
/// Attempts of all of them for one return; a gateway that is told to wait dials again.
const ATTEMPTS_MAX: usize = 3 * GATEWAYS;
/// Far beyond what a thousand idle links need.
const MEMORY_KIB_MAX: u64 = 512 << 10;
/// How often a gateway says that it lives; it is let go after 45 s of silence.
const LIFE: Duration = Duration::from_secs(15);

/// Simulated gateways: TLS, the WebSocket and protocol v2, and nothing behind them.
struct Crowd {
    port: u16,
    name: String,
    config: Arc<ClientConfig>,
    /// What each has, while it is connected.
    has: Mutex<Vec<Option<SyncVersion>>>,
    attempts: AtomicUsize,
    /// Answers with a whole configuration.
    wholes: AtomicUsize,
    /// What went wrong last.
    trouble: Mutex<String>,
}

impl Crowd {
    fn connected(&self) -> usize {
        self.has.lock().unwrap().iter().flatten().count()
    }

    /// Whether all are connected and have the same version, another than `before`.
    fn all_have_moved_on(&self, before: Option<SyncVersion>) -> bool {
        let has = self.has.lock().unwrap();
        has[0].is_some() && has[0] != before && has.iter().all(|it| *it == has[0])
    }

    fn version(&self) -> Option<SyncVersion> {
        self.has.lock().unwrap()[0]
    }

    /// One gateway: it dials while it may, and again when it is cut off.
    async fn live(self: Arc<Crowd>, node: usize, mut may_dial: watch::Receiver<bool>) {
        let mut version = SyncVersion::NONE;
        while may_dial.wait_for(|may| *may).await.is_ok() {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = self.session(node, &mut version).await {
                *self.trouble.lock().unwrap() = error.to_string();
            }
            self.has.lock().unwrap()[node] = None;
            let pause = 200 + (node as u64 * 7_919) % 1_000;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn session(&self, node: usize, version: &mut SyncVersion) -> io::Result<()> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let stream = connect(self.config.clone(), &self.name, stream).await;
        let (mut read, mut write) = tokio::io::split(stream.map_err(io::Error::other)?);
        let upgrade = format!(
            "GET /v2/outlet HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: kong.meta.v1\r\n\r\n",
            self.name
        );
        write.write_all(upgrade.as_bytes()).await?;
        write.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head)));
        }
        let hello = Hello {
            rpc_capabilities: vec![SYNC.to_owned(), OWN.to_owned()],
            rpc_frame_encodings: vec![ENCODING.to_owned()],
            kong_version: "3.10.0".to_owned(),
            kong_hostname: format!("simulated-{node}"),
            kong_node_id: format!("00000000-0000-4000-8000-{node:012}"),
            ..Hello::default()
        };
        send(&mut write, &hello.encode()).await?;
        receive(&mut read).await?;
        send(&mut write, &get_delta(0, *version).encode()).await?;
        loop {
            let next = receive(&mut read);
            tokio::pin!(next);
            let payload = loop {
                tokio::select! {
                    payload = &mut next => break payload?,
                    () = tokio::time::sleep(LIFE) => send(&mut write, &get_delta(1, *version).encode()).await?,
                }
            };
            let messages = decode(&payload, 1 << 30).map_err(io::Error::other)?;
            for message in messages {
                let deltas = match message.map_err(io::Error::other)? {
                    Message::Answer { result, .. } => Deltas::from_raw(&result),
                    Message::Notification { method, params } if method == PUSH => {
                        Deltas::from_params(&params)
                    }
                    other => return Err(io::Error::other(format!("{other:?}"))),
                };
                let deltas = deltas.map_err(io::Error::other)?;
                if deltas.full {
                    self.wholes.fetch_add(1, Ordering::SeqCst);
                }
                *version = deltas.version;
                let report = Report {
                    version: *version,
                    config_hash: deltas.hash.unwrap_or(ConfigHash::ZERO),
                    refused: Vec::new(),
                };
                send(&mut write, &report.to_message().encode()).await?;
                self.has.lock().unwrap()[node] = Some(*version);
            }
        }
    }
}

async fn send(write: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    write.write_all(&frame(BINARY, payload, true)).await?;
    write.flush().await
}

async fn receive(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = [0; 2];
    read.read_exact(&mut head).await?;
    let length = match head[1] {
        126 => u64::from(read.read_u16().await?),
        127 => read.read_u64().await?,
        short => u64::from(short),
    };
    if head[0] != BINARY || length > 1 << 20 {
        return Err(io::Error::other(format!(
            "a frame that begins with {head:?}"
        )));
    }
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    read.read_exact(&mut payload).await?;
    Ok(payload)
}

/// CPU time in hundredths of a second, and resident memory in KiB.
fn used(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (ticks(11) + ticks(12), pages * 4)
}

#[test]
fn a_thousand_gateways_come_back_at_once_after_a_restart() {
    sallyport_runtime::open_files::raise();
    let mut control = Control::start();
    control.put("services/one", &json!({"host": "127.0.0.1"}));
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let roots = trust_store(&[control.ca().display().to_string()]).unwrap();
    let identity = Identity::from_pem(&pair.cert(), &pair.key()).unwrap();
    let config = client_config(ServerTrust::Roots(Arc::new(roots)), Some(&identity)).unwrap();
    let crowd = Arc::new(Crowd {
        port: control.port,
        name: Control::node_name(&control.prefix),
        config: Arc::new(config),
        has: Mutex::new(vec![None; GATEWAYS]),
        attempts: AtomicUsize::new(0),
        wholes: AtomicUsize::new(0),
        trouble: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (let_dial, may_dial) = watch::channel(true);
    for node in 0..GATEWAYS {
        runtime.spawn(crowd.clone().live(node, may_dial.clone()));
    }
    let all_up = |what: &str, before| {
        let is_so = || crowd.all_have_moved_on(before);
        let patience =
            std::panic::AssertUnwindSafe(|| eventually(what, Deadline::secs(240), is_so));
        if let Err(panic) = std::panic::catch_unwind(patience) {
            let trouble = crowd.trouble.lock().unwrap().clone();
            _ = writeln!(
                io::stderr(),
                "{} are connected, {trouble}",
                crowd.connected()
            );
            std::panic::resume_unwind(panic);
        }
    };
    all_up("all gateways have the configuration", None);
    let first = crowd.version();
    assert_eq!(
        crowd.wholes.load(Ordering::SeqCst),
        GATEWAYS,
        "each got it once"
    );

    let_dial.send_replace(false);
    control.kill9();
    eventually("all are cut off", soon(), || crowd.connected() == 0);
    crowd.attempts.store(0, Ordering::SeqCst);
    control.start_again();
    let (cpu_before, memory_before) = used(control.program.pid());
    let_dial.send_replace(true);
    all_up("all gateways are back", None);
    let attempts = crowd.attempts.load(Ordering::SeqCst);
    let (cpu, memory) = used(control.program.pid());

    // nobody got a second time what it had
    assert_eq!(crowd.version(), first);
    assert_eq!(crowd.wholes.load(Ordering::SeqCst), GATEWAYS);
    assert!(
        attempts <= ATTEMPTS_MAX,
        "{attempts} attempts: {}",
        crowd.trouble.lock().unwrap()
    );
    assert!(memory < MEMORY_KIB_MAX, "{memory} KiB");
    // and the control plane knows all of them, and reaches all of them
    eventually("all are known as live", Deadline::secs(60), || {
        let path = format!("/v2/control-planes/{}/rollout?timeout=1", control.id);
        let rollout = control.api("GET", &path, &Value::Null).json();
        rollout["live_everywhere"] == true && rollout["live"] == GATEWAYS
    });
    control.put("services/two", &json!({"host": "127.0.0.1"}));
    all_up("a change reaches all of them", first);
    assert_eq!(
        crowd.wholes.load(Ordering::SeqCst),
        GATEWAYS,
        "only what changed was sent"
    );
    let log = control.program.output();
    for bad in ["data plane refused", "panic", "could not accept"] {
        assert!(!log.contains(bad), "{bad:?} is in:\n{log}");
    }
    _ = writeln!(
        io::stdout(),
        "{GATEWAYS} gateways back after a restart: {attempts} attempts; control plane {:.1} s CPU, \
         {:.1} MiB resident, {:.1} MiB before them",
        (cpu - cpu_before) as f64 / 100.0,
        memory as f64 / 1024.0,
        memory_before as f64 / 1024.0,
    );
    runtime.shutdown_background();
}
