//! The measurement itself: fresh processes, right answers first, then load, in turns.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_testkit::{Deadline, free_port};

use crate::machine::Busy;
use crate::peer::{Peer, Plan};
use crate::process::{Server, cpu, memory_kib, own_cpu, pinned};
use crate::workload::Workload;
use crate::{load, peer, tls};

/// How long a server may take until it listens: nginx sorts 50,000 locations for a while.
const START: Duration = Duration::from_secs(180);

/// Lists of cores as `taskset` takes them.
#[derive(Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: String,
    pub(crate) load: String,
}

/// The sizes of a run.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) rounds: u32,
    pub(crate) slices: u32,
    pub(crate) slice_seconds: u32,
    pub(crate) warmup_seconds: u32,
    pub(crate) connections: u32,
    pub(crate) cores: Cores,
}

/// What one measurement of one proxy gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// CPU time per request in microseconds, all processes and threads, user and kernel.
    pub(crate) cpu_us: f64,
    /// The part of it that was spent in the kernel, 0 to 1.
    pub(crate) kernel_part: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Resident memory in KiB at the end of the load.
    pub(crate) rss_kib: f64,
    /// Memory in KiB with shared pages counted by their share.
    pub(crate) pss_kib: f64,
    /// How busy the proxy's core was with the proxy, 0 to 1.
    pub(crate) busy: f64,
    /// The part of the machine that was taken by others (processes, hypervisor), 0 to 1.
    pub(crate) others: f64,
}

impl Sample {
    /// The median of each value; of at least one sample.
    fn medians(samples: &[Sample]) -> Sample {
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        Sample {
            cpu_us: of(|s| s.cpu_us),
            kernel_part: of(|s| s.kernel_part),
            requests_per_second: of(|s| s.requests_per_second),
            p50_us: of(|s| s.p50_us),
            p99_us: of(|s| s.p99_us),
            rss_kib: of(|s| s.rss_kib),
            pss_kib: of(|s| s.pss_kib),
            busy: of(|s| s.busy),
            others: of(|s| s.others),
        }
    }
}

/// The median of at least one value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    (low + high) / 2.0
}

/// A proxy that runs and does its work.
struct Running<'a> {
    label: &'a str,
    port: u16,
    server: Server,
    slices: Vec<Sample>,
}

impl Bench {
    /// One line about the sizes.
    pub(crate) fn describe(&self) -> String {
        let Bench {
            rounds,
            slices,
            slice_seconds,
            warmup_seconds,
            connections,
            cores,
        } = self;
        let Cores { proxy, load } = cores;
        format!(
            "{rounds} rounds of {slices} slices of {slice_seconds} s in turns, \
             {warmup_seconds} s of warm-up per round, {connections} connections, \
             proxy on core {proxy}, load and backend on core {load}"
        )
    }

    /// About how long so many pairs of workload and peer take, in minutes.
    pub(crate) fn minutes(&self, pairs: usize) -> u64 {
        let one = u64::from(self.slices * self.slice_seconds + self.warmup_seconds + 1);
        (u64::from(self.rounds) * pairs as u64 * one).div_ceil(60)
    }

    /// Measures every peer in every round; the result has one list per peer, in round order.
    pub(crate) fn run(
        &self,
        workload: &Workload,
        peers: &[Box<dyn Peer>],
    ) -> anyhow::Result<Vec<Vec<Sample>>> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); peers.len()];
        for number in 1..=self.rounds {
            let round = self.round(workload, peers)?;
            for (at, (peer, sample)) in peers.iter().zip(round).enumerate() {
                eprintln!(
                    "{} {number}/{} {}: {:.2} µs CPU, {:.0} requests/s, p99 {:.2} ms, \
                     core {:.0} % busy, others {:.1} %",
                    workload.label(),
                    self.rounds,
                    peer.label(),
                    sample.cpu_us,
                    sample.requests_per_second,
                    sample.p99_us / 1_000.0,
                    sample.busy * 100.0,
                    sample.others * 100.0
                );
                samples[at].push(sample);
            }
        }
        Ok(samples)
    }

    /// One round: fresh processes of all peers, because where a process happens to lie in memory
    /// moves its speed; then load for one after the other in short slices, because the machine's
    /// own speed moves within seconds. A peer without load uses no CPU.
    fn round(&self, workload: &Workload, peers: &[Box<dyn Peer>]) -> anyhow::Result<Vec<Sample>> {
        let temp = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        let dir = temp.path();
        let backend_port = free_port();
        let backend = peer::nginx::backend(dir, backend_port, workload)?;
        let backend = start(&self.cores.load, backend, dir, backend_port).context("backend")?;
        let tls = match workload.name.is_tls() {
            true => Some(tls::files(dir)?),
            false => None,
        };
        let mut running = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let dir = dir.join(at.to_string());
            std::fs::create_dir(&dir).with_context(|| format!("could not make {dir:?}"))?;
            let proxy = self.start(workload, peer.as_ref(), &dir, backend_port, tls.clone());
            running.push(proxy.with_context(|| format!("starting {}", peer.label()))?);
        }
        let script = workload.script();
        for proxy in &running {
            let load = self.load(workload, dir, &script, proxy.port, self.warmup_seconds);
            load::run(&load).with_context(|| format!("warming up {}", proxy.label))?;
        }
        for slice in 0..self.slices {
            // A B, B A, A B, …: a machine that gets slower or faster then favours nobody.
            for turn in 0..running.len() {
                let at = if slice % 2 == 0 {
                    turn
                } else {
                    running.len() - 1 - turn
                };
                let proxy = &mut running[at];
                let load = self.load(workload, dir, &script, proxy.port, self.slice_seconds);
                let sample = measure(&load, &proxy.server, &backend);
                let sample = sample.with_context(|| format!("measuring {}", proxy.label))?;
                proxy.slices.push(sample);
            }
        }
        Ok(running
            .iter()
            .map(|proxy| Sample::medians(&proxy.slices))
            .collect())
    }

    fn start<'a>(
        &self,
        workload: &Workload,
        peer: &'a dyn Peer,
        dir: &Path,
        backend: u16,
        tls: Option<tls::Files>,
    ) -> anyhow::Result<Running<'a>> {
        let port = free_port();
        let command = peer.prepare(&Plan {
            workload,
            dir,
            port,
            backend,
            tls,
        })?;
        let server = start(&self.cores.proxy, command, dir, port)?;
        if let Err(error) = workload.verify(SocketAddr::from(([127, 0, 0, 1], port))) {
            bail!("it does not do the work: {error:#}\n{}", server.0.output());
        }
        Ok(Running {
            label: peer.label(),
            port,
            server,
            slices: Vec::new(),
        })
    }

    fn load<'a>(
        &'a self,
        workload: &Workload,
        dir: &'a Path,
        script: &'a str,
        port: u16,
        seconds: u32,
    ) -> load::Run<'a> {
        load::Run {
            workload: workload.name,
            cores: &self.cores.load,
            connections: self.connections,
            seconds,
            dir,
            script,
            port,
        }
    }
}

/// Runs the load once and reads what it cost.
fn measure(load: &load::Run<'_>, proxy: &Server, backend: &Server) -> anyhow::Result<Sample> {
    let (busy, own) = (Busy::now()?, own_cpu()?);
    let (backend_cpu, proxy_cpu) = (cpu(backend.0.pid())?, cpu(proxy.0.pid())?);
    let started = Instant::now();
    let counts = load::run(load)?;
    let wall = started.elapsed();
    let used = cpu(proxy.0.pid())?.since(proxy_cpu);
    let ours = used.total()
        + cpu(backend.0.pid())?.since(backend_cpu).total()
        + own_cpu()?.saturating_sub(own);
    let now = Busy::now()?;
    let processes = now
        .processes
        .saturating_sub(busy.processes)
        .saturating_sub(ours);
    let others = processes + now.stolen.saturating_sub(busy.stolen);
    let (rss_kib, pss_kib) = memory_kib(proxy.0.pid())?;
    let requests = counts.requests as f64;
    let machine = wall.as_secs_f64() * crate::machine::cores()?.len() as f64;
    Ok(Sample {
        cpu_us: used.total().as_secs_f64() * 1e6 / requests,
        kernel_part: used.system.as_secs_f64() / used.total().as_secs_f64().max(1e-9),
        requests_per_second: requests * 1e6 / counts.duration_us as f64,
        p50_us: counts.p50_us as f64,
        p99_us: counts.p99_us as f64,
        rss_kib: rss_kib as f64,
        pss_kib: pss_kib as f64,
        busy: used.total().as_secs_f64() / wall.as_secs_f64(),
        others: others.as_secs_f64() / machine,
    })
}

/// Starts a server and waits until it takes connections on `port`.
pub(crate) fn start(
    cores: &str,
    command: Vec<std::ffi::OsString>,
    dir: &Path,
    port: u16,
) -> anyhow::Result<Server> {
    let name = command
        .first()
        .map(|program| program.display().to_string())
        .unwrap_or_default();
    let launch = pinned(cores, command).dir(dir);
    let mut server = Server(
        launch
            .try_start()
            .with_context(|| format!("could not run {name}"))?,
    );
    let deadline = Deadline::after(START);
    loop {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(server);
        }
        if !server.0.is_running() || deadline.passed() {
            bail!(
                "{name} does not listen on port {port}:\n{}",
                server.0.output()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
