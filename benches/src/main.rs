//! Compares the gateway with other proxies under load, whole processes on this machine.
//!
//! The backend, the load generator and the method are in `docs/benchmarks.md`. Progress goes to
//! standard error, the result to standard output.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is what it is for"
)]

mod backup;
mod churn;
mod control;
mod load;
mod machine;
mod measure;
mod memory;
mod peer;
mod plugins;
mod process;
mod rate_limit;
mod report;
mod router;
mod store;
mod sync;
mod telemetry;
mod tls;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use crate::measure::{Bench, Cores};
use crate::peer::Peer;
use crate::workload::Workload;

/// Load comparison of `sallyport gateway` with other proxies on this machine.
///
/// Needs Linux, two cores, `nginx` and `wrk` (Debian packages). Everything runs on loopback with
/// its files in a temporary directory, and ends by itself.
#[derive(Debug, Parser)]
#[command(name = "sallyport-bench", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// What to run; may be given several times [default: plain gateway]
    #[arg(long = "workload", value_name = "NAME", value_enum)]
    workloads: Vec<Chosen>,
    /// Proxies to compare; the first is the one that ratios refer to [default: nginx sallyport]
    ///
    /// The same one twice shows the noise of this machine.
    #[arg(long = "peer", value_name = "NAME", value_enum)]
    peers: Vec<peer::Name>,
    /// Rounds, each with fresh processes
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measurements per proxy and round, in turns
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    slices: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=300))]
    slice_seconds: u32,
    /// Load per proxy and round that is not counted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    warmup_seconds: u32,
    /// Client connections, all kept alive
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    connections: u32,
    /// Routes of the workload `gateway`; given several times, it is run with each [default: 1000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    routes: Vec<u32>,
    /// Services of the workload `store`, each with a route
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    services: u32,
    /// Single writes of the workload `store`
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    puts: u32,
    /// Entities that the workload `store` exports
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    exported: u32,
    /// Control planes of 1,000 entities whose memory the workload `store` measures; 0 for none
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    planes: u32,
    /// Size of the body that the backend answers with
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=3_500))]
    body_bytes: u32,
    /// Core on which the proxy runs
    #[arg(long, default_value_t = 0)]
    proxy_core: u32,
    /// Cores of backend and load generator, as a list for `taskset` [default: all others]
    #[arg(long, value_name = "LIST")]
    load_cores: Option<String>,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
    /// Date for the heading [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<String>,
    /// Ends with status 1 when a bar is missed
    #[arg(long)]
    enforce: bool,
}

/// Parts that are measured alone.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Look-ups and changes of the router
    Router(router::Args),
    RateLimit(rate_limit::Args),
    Telemetry(telemetry::Args),
    Backup(backup::Args),
    Memory(memory::Args),
    Churn(churn::Args),
    Plugins(plugins::Args),
    Sync(sync::Args),
    #[command(hide = true)]
    HandshakeLoad(load::handshakes::Args),
}

/// A workload of the proxies, or of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Chosen {
    /// One route that forwards everything
    Plain,
    /// Many routes, key-auth, local rate limit, header edits
    Gateway,
    /// One route with key-auth, local rate limit and request-transformer
    Transform,
    /// The work of `plain`, with TLS to the client, connections kept
    Tls,
    /// The work of `plain`, with a new TLS connection, never resumed, for each request
    Handshakes,
    /// The work of `plain`, over HTTP/2 with TLS to the client, several streams a connection
    Http2,
    /// decK's syncs, single writes and an export, on SQLite and on PostgreSQL
    Store,
}

impl Chosen {
    fn of_proxies(self) -> Option<workload::Name> {
        match self {
            Chosen::Plain => Some(workload::Name::Plain),
            Chosen::Gateway => Some(workload::Name::Gateway),
            Chosen::Transform => Some(workload::Name::Transform),
            Chosen::Tls => Some(workload::Name::Tls),
            Chosen::Handshakes => Some(workload::Name::Handshakes),
            Chosen::Http2 => Some(workload::Name::Http2),
            Chosen::Store => None,
        }
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let result = match args.part.take() {
        None => run(args),
        Some(Part::Router(args)) => router::run(&args).map(|()| ExitCode::SUCCESS),
        Some(Part::RateLimit(args)) => rate_limit::run(&args),
        Some(Part::Telemetry(args)) => telemetry::run(&args),
        Some(Part::Backup(args)) => backup::run(&args),
        Some(Part::Memory(args)) => memory::run(&args),
        Some(Part::Churn(args)) => churn::run(&args),
        Some(Part::Plugins(args)) => plugins::run(&args),
        Some(Part::Sync(args)) => sync::run(&args),
        Some(Part::HandshakeLoad(args)) => {
            load::handshakes::generate(&args).map(|()| ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if args.peers.is_empty() {
        args.peers = vec![peer::Name::Nginx, peer::Name::Sallyport];
    }
    if args.workloads.is_empty() {
        args.workloads = vec![Chosen::Plain, Chosen::Gateway];
    }
    if args.routes.is_empty() {
        args.routes = vec![workload::ROUTES];
    }
    if args.workloads.contains(&Chosen::Store) {
        run_store(&args)?;
    }
    let workloads = args.workloads.iter().copied();
    let workloads: Vec<workload::Name> = workloads.filter_map(Chosen::of_proxies).collect();
    if workloads.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    need_programs(&args, &workloads)?;
    let sizes_of = |name| match name {
        workload::Name::Gateway => args.routes.clone(),
        _ => vec![1],
    };
    let body_bytes = args.body_bytes;
    let workloads = workloads.iter().flat_map(|name| {
        let sized = |routes| Workload::new(*name, routes, body_bytes);
        sizes_of(*name).into_iter().map(sized)
    });
    let workloads: Vec<Workload> = workloads.collect();
    let cores = cores(args.proxy_core, args.load_cores.clone())?;
    let peers = peers(&args)?;
    let bench = Bench {
        rounds: args.rounds,
        slices: args.slices,
        slice_seconds: args.slice_seconds,
        warmup_seconds: args.warmup_seconds,
        connections: args.connections,
        cores,
    };
    let machine = machine::describe(args.date.clone(), &peers)?;
    let sizes = bench.describe();
    let minutes = bench.minutes(workloads.len() * peers.len());
    eprintln!("{machine}\n{sizes}\nthis takes about {minutes} min");
    let mut results = Vec::new();
    for workload in &workloads {
        let runs = bench.run(workload, &peers);
        let runs = runs.with_context(|| format!("workload {}", workload.label()))?;
        results.push((workload.label(), runs));
    }
    let report = report::Report::new(&peers, results);
    println!("{machine}\n{sizes}\n\n{report}");
    let failed = args.enforce && report.missed_bars() > 0;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Checks that the programs of these workloads and of all peers are installed.
fn need_programs(args: &Args, workloads: &[workload::Name]) -> anyhow::Result<()> {
    let mut more: Vec<_> = args.peers.iter().filter_map(|peer| peer.needs()).collect();
    if workloads.iter().any(|workload| workload.is_tls()) {
        more.push(("curl", "curl"));
    }
    if workloads.contains(&workload::Name::Http2) {
        more.push(("h2load", "nghttp2-client"));
    }
    machine::need_programs(&more)
}

/// The workload that has no proxies.
fn run_store(args: &Args) -> anyhow::Result<()> {
    store::need_programs()?;
    let executable = match &args.sallyport {
        Some(path) => std::path::absolute(path).context("--sallyport")?,
        None => peer::build()?,
    };
    let sizes = store::Sizes {
        services: args.services,
        puts: args.puts,
        exported: args.exported,
        planes: args.planes,
    };
    let table = store::run(&executable, sizes).context("workload store")?;
    let machine = machine::describe(args.date.clone(), &[])?;
    println!("{machine}\n{table}");
    Ok(())
}

/// The chosen proxies, with names of their own where one was chosen twice.
fn peers(args: &Args) -> anyhow::Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for (at, name) in args.peers.iter().enumerate() {
        let times = args.peers[..at].iter().filter(|n| *n == name).count();
        let label = match times {
            0 => name.to_string(),
            _ => format!("{name} #{}", times + 1),
        };
        peers.push(name.make(label, args.sallyport.as_deref())?);
    }
    Ok(peers)
}

fn cores(proxy: u32, load: Option<String>) -> anyhow::Result<Cores> {
    let there = machine::cores()?;
    if !there.contains(&proxy) {
        bail!("core {proxy}: this process may use the cores {there:?}");
    }
    let others = there.iter().filter(|core| **core != proxy);
    let others: Vec<_> = others.map(u32::to_string).collect();
    let load = load.unwrap_or(others.join(","));
    if load.is_empty() {
        bail!("one core is not enough: load and server would take it from each other");
    }
    let proxy = proxy.to_string();
    Ok(Cores { proxy, load })
}
