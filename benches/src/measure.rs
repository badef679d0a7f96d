//! The measurement itself: fresh processes, right answers first, then load, in turns.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_testkit::{Deadline, free_port, http};

use crate::machine::Busy;
use crate::peer::{Peer, Plan};
use crate::process::{Server, cpu, memory_kib, own_cpu, pinned};
use crate::workload::Workload;
use crate::{peer, wrk};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

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
    pub(crate) seconds: u32,
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

impl Bench {
    /// One line about the sizes.
    pub(crate) fn describe(&self) -> String {
        let Bench {
            rounds,
            seconds,
            warmup_seconds,
            connections,
            cores,
        } = self;
        let Cores { proxy, load } = cores;
        format!(
            "{rounds} rounds in turns × {seconds} s after {warmup_seconds} s of warm-up, \
             {connections} connections, proxy on core {proxy}, load and backend on core {load}"
        )
    }

    /// About how long so many measurements per round take, in minutes.
    pub(crate) fn minutes(&self, per_round: usize) -> u64 {
        let one = u64::from(self.seconds + self.warmup_seconds + 1);
        (u64::from(self.rounds) * per_round as u64 * one).div_ceil(60)
    }

    /// Measures every peer once per round; the result has one list per peer, in round order.
    pub(crate) fn run(
        &self,
        workload: &Workload,
        peers: &[Box<dyn Peer>],
    ) -> anyhow::Result<Vec<Vec<Sample>>> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); peers.len()];
        for round in 0..self.rounds {
            // A B, B A, A B, …: a machine that gets slower or faster then favours nobody.
            let mut order: Vec<usize> = (0..peers.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let peer = &peers[at];
                let sample = self.measure(workload, peer.as_ref());
                let sample = sample.with_context(|| format!("measuring {}", peer.label()))?;
                let (name, label) = (workload.name, peer.label());
                eprintln!(
                    "{name} {}/{} {label}: {:.2} µs CPU, {:.0} requests/s, p99 {:.2} ms, \
                     core {:.0} % busy, others {:.1} %",
                    round + 1,
                    self.rounds,
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

    /// One measurement with fresh processes: where a process happens to lie in memory moves its
    /// speed, so that every round draws anew.
    fn measure(&self, workload: &Workload, peer: &dyn Peer) -> anyhow::Result<Sample> {
        let dir = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        let dir = dir.path();
        let backend_port = free_port();
        let backend = peer::nginx::backend(dir, backend_port, workload)?;
        let backend = start(&self.cores.load, backend, dir, backend_port).context("backend")?;
        let port = free_port();
        let command = peer.prepare(&Plan {
            workload,
            dir,
            port,
            backend: backend_port,
        })?;
        let proxy = start(&self.cores.proxy, command, dir, port)?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if let Err(error) = workload.verify(addr) {
            bail!("it does not do the work: {error:#}\n{}", proxy.0.output());
        }
        let script = workload.script();
        let mut load = wrk::Run {
            cores: &self.cores.load,
            connections: self.connections,
            seconds: self.warmup_seconds,
            dir,
            script: &script,
            port,
        };
        wrk::run(&load).context("warm-up")?;
        load.seconds = self.seconds;

        let (busy, own) = (Busy::now()?, own_cpu()?);
        let (backend_cpu, proxy_cpu) = (cpu(backend.0.pid())?, cpu(proxy.0.pid())?);
        let started = Instant::now();
        let counts = wrk::run(&load).context("load")?;
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
}

/// Starts a server and waits until it answers anything on `port`.
fn start(
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
        if http::get(format!("http://127.0.0.1:{port}/"))
            .send()
            .is_ok()
        {
            return Ok(server);
        }
        if !server.0.is_running() || deadline.passed() {
            bail!(
                "{name} does not answer on port {port}:\n{}",
                server.0.output()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
