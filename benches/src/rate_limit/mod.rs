//! Compares the rate limiter with a token bucket in Redis: takes per second and CPU per take.

mod load;
mod nodes;
mod redis;
mod sallyport;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_testkit::free_port;

use crate::machine;
use crate::measure::median;
use crate::process::{Server, cpu};

/// Takes per CPU second that we want at least, as a multiple of Redis's.
const BAR: f64 = 5.0;
/// Keys that are taken from, in turns.
const KEYS: u32 = 10_000;

/// Compares `sallyport rate-limit` with a token-bucket script in Redis on this machine.
///
/// Needs Linux, two cores and `redis-server` (Debian package). The same load generator speaks
/// both protocols, with so many requests on their way at a time on each connection.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds, each with fresh processes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=300))]
    slice_seconds: u32,
    /// Client connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=500))]
    connections: u32,
    /// Requests on their way on each connection; may be given several times [default: 1 16 64]
    #[arg(long = "window", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    windows: Vec<u32>,
    /// Core on which the server runs
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// Cores of the load generator, as a list for `taskset` [default: all others]
    #[arg(long, value_name = "LIST")]
    load_cores: Option<String>,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
    /// Ends with status 1 when the bar is missed
    #[arg(long)]
    enforce: bool,
}

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Redis,
    Sallyport,
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
struct Sample {
    takes_per_second: f64,
    /// CPU time of the server per take in microseconds.
    cpu_us: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let redis = redis::version()?;
    let cores = crate::cores(args.server_core, args.load_cores.clone())?;
    let executable = match &args.sallyport {
        Some(path) => path.clone(),
        None => crate::peer::sallyport::build()?,
    };
    let windows = match args.windows.as_slice() {
        [] => vec![1, 16, 64],
        given => given.to_vec(),
    };
    pin_self(&cores.load)?;
    let mut in_process = Vec::new();
    // per window: through one of three nodes; then the one key
    let mut spread: Vec<Vec<Sample>> = windows.iter().map(|_| Vec::new()).collect();
    let mut hot = Vec::new();
    // per window: Redis, ours
    let mut samples: Vec<[Vec<Sample>; 2]> = windows.iter().map(|_| Default::default()).collect();
    for round in 1..=args.rounds {
        in_process.push(sallyport::in_process(args.slice_seconds)?);
        let temp = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        // the other way round every second time: a machine that gets slower favours nobody
        let mut peers = [Peer::Redis, Peer::Sallyport];
        if round % 2 == 0 {
            peers.reverse();
        }
        for peer in peers {
            let port = free_port();
            let protocol: Box<dyn load::Protocol>;
            let server: Server;
            match peer {
                Peer::Redis => {
                    server = redis::start(&cores.proxy, port, temp.path())?;
                    protocol = Box::new(redis::Redis::load(port)?);
                }
                Peer::Sallyport => {
                    server = sallyport::start(&cores.proxy, &executable, port, temp.path())?;
                    protocol = Box::new(sallyport::Limitd);
                }
            }
            load::verify(port, protocol.as_ref()).with_context(|| {
                format!("{peer:?} does not do the work:\n{}", server.0.output())
            })?;
            for (window, samples) in windows.iter().zip(&mut samples) {
                let sample = measure(args, port, protocol.as_ref(), *window, &server)?;
                eprintln!(
                    "{round}/{} {peer:?}, window {window}: {:.0} takes/s, {:.2} µs CPU",
                    args.rounds, sample.takes_per_second, sample.cpu_us
                );
                samples[peer as usize].push(sample);
            }
        }
        let nodes = nodes::Nodes::start(&cores.proxy, &executable, temp.path())?;
        for (window, samples) in windows.iter().zip(&mut spread) {
            let sample = nodes.spread(args, *window)?;
            eprintln!(
                "{round}/{} three nodes, window {window}: {:.0} takes/s, {:.2} µs CPU",
                args.rounds, sample.takes_per_second, sample.cpu_us
            );
            samples.push(sample);
        }
        hot.push(nodes.hot(args, 16)?);
        eprintln!("{round}/{} {:?}", args.rounds, hot.last());
    }
    println!(
        "{redis} · {} connections, {KEYS} keys, {} rounds of {} s; server on core {}\n",
        args.connections, args.rounds, args.slice_seconds, cores.proxy
    );
    println!("| window | | takes/s | CPU per take, µs | takes per CPU second, × Redis |");
    println!("|--:|---|--:|--:|--:|");
    let mut best = 0.0_f64;
    for (window, [redis, ours]) in windows.iter().zip(&samples) {
        let rounds = redis.iter().zip(ours);
        let ratio = median(rounds.map(|(redis, ours)| redis.cpu_us / ours.cpu_us));
        for (name, samples, ratio) in [("Redis", redis, 1.0), ("sallyport", ours, ratio)] {
            let takes = median(samples.iter().map(|s| s.takes_per_second));
            let cpu_us = median(samples.iter().map(|s| s.cpu_us));
            println!("| {window} | {name} | {takes:.0} | {cpu_us:.2} | {ratio:.1} |");
        }
        if *window > 1 {
            best = best.max(ratio);
        }
    }
    for (window, samples) in windows.iter().zip(&spread) {
        let takes = median(samples.iter().map(|s| s.takes_per_second));
        let cpu_us = median(samples.iter().map(|s| s.cpu_us));
        println!("| {window} | three nodes, 2/3 forwarded | {takes:.0} | {cpu_us:.2} | |");
    }
    let takes = median(hot.iter().map(|s| s.sample.takes_per_second));
    let cpu_us = median(hot.iter().map(|s| s.sample.cpu_us));
    println!("| 16 | three nodes, one key | {takes:.0} | {cpu_us:.2} | |");
    let takes = median(in_process.iter().map(|s| s.takes_per_second));
    let cpu_us = median(in_process.iter().map(|s| s.cpu_us));
    println!("| - | in process, one thread | {takes:.0} | {cpu_us:.2} | |");
    let over = hot.iter().filter(|s| s.granted > s.bound).count();
    let most = hot.iter().map(|s| s.granted as f64 / s.bound as f64);
    let most = most.fold(0.0, f64::max);
    let verdict = if over == 0 { "pass" } else { "MISSED" };
    println!("\n- bar: one key on three nodes, granted at most {most:.3} of the bound: {verdict}");
    let passed = best >= BAR && over == 0;
    let verdict = if best >= BAR { "pass" } else { "MISSED" };
    println!("- bar: takes per CPU second ≥ {BAR} × Redis, pipelined: {best:.1}, {verdict}");
    Ok(match args.enforce && !passed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn measure(
    args: &Args,
    port: u16,
    protocol: &dyn load::Protocol,
    window: u32,
    server: &Server,
) -> anyhow::Result<Sample> {
    let run = |time| load::run(port, protocol, args.connections, window, time);
    run(Duration::from_millis(300))?; // warm-up
    let (before, began) = (cpu(server.0.pid())?, Instant::now());
    let takes = run(Duration::from_secs(args.slice_seconds.into()))? as f64;
    let (wall, used) = (began.elapsed(), cpu(server.0.pid())?.since(before));
    if takes == 0.0 {
        bail!("no take was answered");
    }
    Ok(Sample {
        takes_per_second: takes / wall.as_secs_f64(),
        cpu_us: used.total().as_secs_f64() * 1e6 / takes,
    })
}

/// Keeps the load generator, which is this process, off the server's core.
fn pin_self(cores: &str) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let args = ["--all-tasks", "--cpu-list", "--pid", cores, &pid];
    let run = Command::new("taskset").args(args).output();
    let run = run.context("could not run taskset (Debian package util-linux)")?;
    if !run.status.success() {
        bail!("taskset: {}", String::from_utf8_lossy(&run.stderr));
    }
    machine::cores().map(drop)
}
