//! What a change costs on its way from the control plane to gateways, and what idle gateways cost.

mod sessions;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_testkit::{Deadline, Echo, Program, http};
use serde_json::json;
use uuid::Uuid;

use crate::churn::{Routes, fill, served};
use crate::control::{Control, Gateway};
use crate::process::{cpu, memory_kib};
use crate::workload::Workload;
use crate::{machine, peer};

/// Configuration sync: time and CPU of a change, memory of idle gateways, start from disk.
///
/// Gateways of the first part are real processes on this machine; those of the last are simulated
/// sessions over real TLS, all from this process. Everything is on loopback.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Gateways that a change is to reach; may be given several times [default: 1 10]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=200))]
    gateways: Vec<u32>,
    /// Routes of the configuration; may be given several times [default: 1000 10000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(10..=200_000))]
    routes: Vec<u32>,
    /// Changes of each measurement
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    changes: u32,
    /// Simulated sessions; 0 leaves that part out
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    sessions: u32,
    /// Cores of control plane and gateways, as a list for `taskset`
    #[arg(long, default_value = "0,1")]
    cores: String,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let executable = match &args.sallyport {
        Some(path) => std::path::absolute(path).context("--sallyport")?,
        None => peer::build()?,
    };
    println!("{}", machine::describe(None, &[])?);
    let or = |given: &[u32], default: &[u32]| match given.is_empty() {
        true => default.to_vec(),
        false => given.to_vec(),
    };
    for gateways in or(&args.gateways, &[1, 10]) {
        propagation(args, &executable, gateways)?;
    }
    for routes in or(&args.routes, &[1_000, 10_000]) {
        cost(args, &executable, routes)?;
    }
    if args.sessions > 0 {
        sessions::run(args, &executable)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Threads that ask gateways: a few, so that both cores have something to do.
const ASKERS: usize = 4;

/// Between two changes whose way is measured: longer than gateways wait before they write to the
/// disk and report.
const REST: Duration = Duration::from_millis(300);

/// A control plane with so many routes.
struct Lab {
    temp: tempfile::TempDir,
    control: Control,
    routes: Routes,
    echo: Echo,
}

impl Lab {
    fn start(args: &Args, executable: &Path, count: u32) -> anyhow::Result<Lab> {
        let temp = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        let echo = Echo::start();
        let id = Control::start(Some(&args.cores), executable, temp.path(), None)?.id;
        let database = temp.path().join("control").join("store.sqlite");
        let routes = fill(&database, &id, count, echo.port())?;
        let control = Control::start(Some(&args.cores), executable, temp.path(), None)?;
        Ok(Lab {
            temp,
            control,
            routes,
            echo,
        })
    }

    fn gateway(&self, args: &Args, executable: &Path, number: u32) -> anyhow::Result<Gateway> {
        let dir = self.temp.path().join(format!("gateway-{number}"));
        std::fs::create_dir(&dir).context("could not make a directory")?;
        self.control.gateway(&args.cores, executable, &dir)
    }

    /// Gives a route another path; the path, and the moment of the answer.
    fn change(&self, stream: &mut TcpStream, at: usize) -> anyhow::Result<(String, Instant)> {
        let prefix = format!("/changed-{}", Uuid::new_v4().simple());
        let id = self.routes.ids[at % self.routes.ids.len()];
        let path = format!("{}/routes/{id}", self.control.core_entities());
        let body = json!({"paths": [prefix], "service": {"id": self.routes.service}});
        self.control.call(stream, "PUT", &path, Some(&body))?;
        Ok((prefix, Instant::now()))
    }
}

/// Asks until a path is served; how long that took since `began`.
fn until_served(port: u16, prefix: &str, began: Instant) -> anyhow::Result<Duration> {
    let url = format!("http://127.0.0.1:{port}{prefix}/item");
    asked(prefix, began, || http::get(&url).send())
}

/// The same over a connection that is kept: what is measured is the gateway, not its asker.
fn until_served_over(
    stream: &mut TcpStream,
    prefix: &str,
    began: Instant,
) -> anyhow::Result<Duration> {
    let request = http::get(format!("http://gateway.test{prefix}/item")).keep_alive();
    asked(prefix, began, || request.send_over(stream))
}

/// The same of many: each of a few threads asks its part of them in turn.
fn all_served(
    streams: &mut [TcpStream],
    prefix: &str,
    began: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let each = streams.len().div_ceil(ASKERS).max(1);
    std::thread::scope(|scope| {
        let ask = |stream| until_served_over(stream, prefix, began);
        let parts: Vec<_> = (streams.chunks_mut(each))
            .map(|part| {
                scope.spawn(move || part.iter_mut().map(ask).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let mut all = Vec::new();
        for part in parts {
            all.extend(part.join().expect("an asker panicked")?);
        }
        Ok(all)
    })
}

fn asked(
    prefix: &str,
    began: Instant,
    mut ask: impl FnMut() -> std::io::Result<http::Response>,
) -> anyhow::Result<Duration> {
    let deadline = Deadline::secs(60);
    loop {
        if ask().is_ok_and(|it| it.status == 200) {
            return Ok(began.elapsed());
        }
        if deadline.passed() {
            bail!("{prefix} is not served");
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (share * last as f64).ceil() as usize;
    sorted
        .get(place)
        .map_or(0.0, |it| it.as_secs_f64() * 1_000.0)
}

/// From the answer of the API to the first request that the new route serves, on every gateway.
fn propagation(args: &Args, executable: &Path, count: u32) -> anyhow::Result<()> {
    eprintln!("propagation to {count} gateways");
    let lab = Lab::start(args, executable, 1_000)?;
    let gateways = (0..count).map(|number| lab.gateway(args, executable, number));
    let gateways = gateways.collect::<anyhow::Result<Vec<_>>>()?;
    let mut streams = Vec::new();
    for gateway in &gateways {
        served(gateway.port, &Workload::prefix(999), Deadline::secs(120))?;
        let stream = TcpStream::connect(("127.0.0.1", gateway.port)).context("no connection")?;
        stream.set_nodelay(true).context("no connection")?;
        streams.push(stream);
    }
    let mut stream = lab.control.connect()?;
    let mut took = Vec::new();
    for number in 0..args.changes as usize {
        let (prefix, began) = lab.change(&mut stream, number * 7)?;
        took.extend(all_served(&mut streams, &prefix, began)?);
        // the reports and the disks of this change are not to be in the time of the next
        std::thread::sleep(REST);
    }
    took.sort_unstable();
    println!(
        "propagation, {count} gateways: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms ({} changes; {ASKERS} askers)",
        at(&took, 0.5),
        at(&took, 0.99),
        at(&took, 1.0),
        args.changes
    );
    Ok(())
}

/// CPU of one gateway and of the control plane for one changed route, at a size; then the start of
/// that gateway from its disk.
fn cost(args: &Args, executable: &Path, count: u32) -> anyhow::Result<()> {
    eprintln!("cost of a change at {count} routes");
    let lab = Lab::start(args, executable, count)?;
    let gateway = lab.gateway(args, executable, 0)?;
    served(
        gateway.port,
        &Workload::prefix(count - 1),
        Deadline::secs(300),
    )?;
    let mut stream = lab.control.connect()?;
    let (warm, began) = lab.change(&mut stream, 1)?;
    until_served(gateway.port, &warm, began)?;
    let pids = [gateway.server.0.pid(), lab.control.server.0.pid()];
    let before = pids.map(cpu);
    let mut last = String::new();
    for number in 0..args.changes as usize {
        let (prefix, began) = lab.change(&mut stream, 2 + number * 7)?;
        // without asking, which would cost the gateway more than the change
        std::thread::sleep(Duration::from_millis(15).saturating_sub(began.elapsed()));
        last = prefix;
    }
    until_served(gateway.port, &last, Instant::now())?;
    let after = pids.map(cpu);
    let mut us = Vec::new();
    for (before, after) in before.into_iter().zip(after) {
        let used = after?.total().saturating_sub(before?.total());
        us.push(used.as_secs_f64() * 1e6 / f64::from(args.changes));
    }
    let (rss, _) = memory_kib(pids[0])?;
    println!(
        "change of one route at {count} routes: gateway {:.0} µs CPU, control plane {:.0} µs CPU \
         ({} changes); gateway resident {:.1} MiB",
        us[0],
        us[1],
        args.changes,
        rss as f64 / 1024.0
    );
    // nobody to ask: everything comes from the disk
    let dir = lab.temp.path().join("gateway-0");
    let port = gateway.port;
    drop(gateway);
    drop(lab.control);
    let began = Instant::now();
    let again = Program::new(executable)
        .args(["gateway", "-c"])
        .arg(dir.join("kong.conf"))
        .dir(&dir)
        .try_start()
        .context("could not start a gateway")?;
    let took = until_served(port, &last, began)?;
    drop(again);
    println!(
        "start from last-known-good with {count} routes: {:.2} s to the first byte",
        took.as_secs_f64()
    );
    drop(lab.echo);
    Ok(())
}
