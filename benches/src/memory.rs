//! Resident memory: of routes that nobody calls, and of connections on which nothing happens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::{ClientConnection, StreamOwned};
use sallyport_testkit::free_port;

use crate::load::handshakes::{client_config, server_name};
use crate::measure::{self, Cores};
use crate::peer::{self, Peer, Plan};
use crate::process::{Server, memory_kib};
use crate::workload::{Name, Workload};
use crate::{machine, tls};

/// KiB per route that we allow ourselves.
const ROUTE_KIB_MAX: f64 = 1.0;
/// MiB that a gateway with [`FEW`] routes may have.
const FEW_MIB_MAX: f64 = 60.0;
/// The number of routes that the second bar is about.
const FEW: u32 = 5_000;

/// Resident memory by routes and by idle connections, beside other proxies.
///
/// Every route is one of the workload `gateway`; every idle connection has had one answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Proxies to compare [default: nginx haproxy sallyport]
    #[arg(long = "peer", value_name = "NAME", value_enum)]
    peers: Vec<peer::Name>,
    /// Idle connections
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=3_000))]
    idle: u32,
    /// Routes at the most
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(5_000..=100_000))]
    routes: u32,
    /// Core on which the proxies run
    #[arg(long, default_value_t = 0)]
    proxy_core: u32,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
    /// Ends with status 1 when a bar is missed
    #[arg(long)]
    enforce: bool,
}

/// What one proxy needs, in KiB of RSS.
struct Needs {
    label: String,
    bare: f64,
    few: f64,
    many: f64,
    /// Per idle connection.
    idle: f64,
    /// Per idle connection with TLS.
    idle_tls: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let names = match args.peers.as_slice() {
        [] => vec![
            peer::Name::Nginx,
            peer::Name::Haproxy,
            peer::Name::Sallyport,
        ],
        given => given.to_vec(),
    };
    let more: Vec<_> = names.iter().filter_map(|name| name.needs()).collect();
    machine::need_programs(&more)?;
    let cores = crate::cores(args.proxy_core, None)?;
    let mut peers = Vec::new();
    for name in names {
        peers.push(name.make(name.to_string(), args.sallyport.as_deref())?);
    }
    println!("{}\n", machine::describe(None, &peers)?);
    println!(
        "| RSS | 1 route, MiB | {FEW} routes, MiB | {} routes, MiB | a route, KiB | an idle connection, KiB | with TLS, KiB |",
        args.routes
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut missed = 0;
    for peer in &peers {
        let needs = needs(peer.as_ref(), &cores, args)
            .with_context(|| format!("memory of {}", peer.label()))?;
        let route = (needs.many - needs.bare) / f64::from(args.routes - 1);
        let mib = |kib: f64| kib / 1_024.0;
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {route:.2} | {:.1} | {:.1} |",
            needs.label,
            mib(needs.bare),
            mib(needs.few),
            mib(needs.many),
            needs.idle,
            needs.idle_tls
        );
        if needs.label == "sallyport" {
            missed += u32::from(route >= ROUTE_KIB_MAX);
            missed += u32::from(mib(needs.few) >= FEW_MIB_MAX);
        }
    }
    println!(
        "\n- bars of sallyport: below {ROUTE_KIB_MAX} KiB a route, below {FEW_MIB_MAX} MiB at \
         {FEW} routes: {missed} missed"
    );
    Ok(match args.enforce && missed > 0 {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn needs(peer: &dyn Peer, cores: &Cores, args: &Args) -> anyhow::Result<Needs> {
    eprintln!("{}", peer.label());
    let routes = |routes| {
        let started = Started::start(peer, cores, Name::Gateway, routes)?;
        started.rss_kib()
    };
    let idle = |name| idle(&Started::start(peer, cores, name, 1)?, args.idle);
    Ok(Needs {
        label: peer.label().to_owned(),
        bare: routes(1)?,
        few: routes(FEW)?,
        many: routes(args.routes)?,
        idle: idle(Name::Plain)?,
        idle_tls: idle(Name::Tls)?,
    })
}

/// A proxy with its backend and their directory.
struct Started {
    proxy: Server,
    _backend: Server,
    dir: tempfile::TempDir,
    port: u16,
    tls: bool,
}

impl Started {
    fn start(peer: &dyn Peer, cores: &Cores, name: Name, routes: u32) -> anyhow::Result<Started> {
        let dir = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        let workload = Workload::new(name, routes, 1_024);
        let (port, backend) = (free_port(), free_port());
        let proxy_dir = dir.path().join("proxy");
        std::fs::create_dir(&proxy_dir).context("could not make a directory")?;
        let command = peer::nginx::backend(dir.path(), backend, &workload)?;
        let _backend = measure::start(&cores.load, command, dir.path(), backend)?;
        let tls = match name.is_tls() {
            true => Some(tls::files(dir.path())?),
            false => None,
        };
        let plan = Plan {
            workload: &workload,
            dir: &proxy_dir,
            port,
            backend,
            tls,
        };
        let command = peer.prepare(&plan)?;
        let proxy = measure::start(&cores.proxy, command, &proxy_dir, port)?;
        workload
            .verify(SocketAddr::from(([127, 0, 0, 1], port)))
            .context("it does not do the work")?;
        Ok(Started {
            proxy,
            _backend,
            dir,
            port,
            tls: name.is_tls(),
        })
    }

    fn rss_kib(&self) -> anyhow::Result<f64> {
        // What was freed at start goes back to the kernel a moment later in some allocators.
        std::thread::sleep(Duration::from_secs(1));
        Ok(memory_kib(self.proxy.0.pid())?.0 as f64)
    }
}

/// KiB for each of so many connections that had one answer and wait.
fn idle(started: &Started, connections: u32) -> anyhow::Result<f64> {
    let before = started.rss_kib()?;
    let mut open = Vec::new();
    for number in 0..connections {
        let one = one(started, started.dir.path());
        open.push(one.with_context(|| format!("connection {number}"))?);
    }
    let after = started.rss_kib()?;
    drop(open);
    Ok((after - before) / f64::from(connections))
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn one(started: &Started, dir: &Path) -> anyhow::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(("127.0.0.1", started.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream: Box<dyn Stream> = match started.tls {
        false => Box::new(stream),
        true => {
            let config = Arc::new(client_config(&dir.join(tls::CA))?);
            let client = ClientConnection::new(config, server_name()?)?;
            Box::new(StreamOwned::new(client, stream))
        }
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 4_096];
    // The head, and the 1,024 bytes after it.
    loop {
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if head.is_some_and(|at| answer.len() >= at + 4 + 1_024) {
            break;
        }
        let read = stream.read(&mut part)?;
        if read == 0 {
            bail!("closed early");
        }
        answer.extend_from_slice(&part[..read]);
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("not answered");
    }
    Ok(stream)
}
