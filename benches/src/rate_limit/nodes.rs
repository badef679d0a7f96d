//! Three nodes that count together, on one core: every third key is the asked one's own, the others
//! are forwarded; then one key that everybody asks for.

use std::path::Path;
use std::time::{Duration, Instant};

use sallyport_runtime::certs::{LocalCa, NewKey, Request};
use sallyport_testkit::{Deadline, free_ports};

use super::load::{self, Protocol};
use super::sallyport::{Hot, Limitd, serve};
use super::{Args, Sample};
use crate::process::{Server, cpu};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Tokens of the hot bucket, and how many come in a second.
pub(super) const HOT: (u64, u64) = (10_000, 1_000);

/// Three running nodes.
pub(super) struct Nodes {
    servers: Vec<Server>,
    ports: [u16; 3],
}

/// What the run with one key gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct HotSample {
    pub(super) sample: Sample,
    pub(super) granted: u64,
    /// What may be granted at most in the time it took.
    pub(super) bound: u64,
}

impl Nodes {
    /// Starts them and waits until each has reached the others.
    pub(super) fn start(core: &str, executable: &Path, dir: &Path) -> anyhow::Result<Nodes> {
        let ca = LocalCa::create("benchmark nodes", 1)?;
        std::fs::write(dir.join("ca.crt"), &ca.pem().cert)?;
        let ports = free_ports::<3>();
        let mut servers = Vec::new();
        for (name, port) in NAMES.iter().zip(ports) {
            let new = NewKey::create()?;
            let request = Request::parse(&new.request)?;
            let certificate = ca.issue_requested(request, name, &[(*name).to_owned()], 1)?;
            std::fs::write(dir.join(format!("{name}.crt")), certificate)?;
            std::fs::write(dir.join(format!("{name}.key")), &new.key)?;
            let nodes: String = NAMES
                .iter()
                .zip(ports)
                .map(|(name, port)| format!("    {name}: 127.0.0.1:{port}\n"))
                .collect();
            // patient: they share a core
            let cluster = format!(
                "cluster:\n  node: {name}\n  answer_ms: 10000\n  nodes:\n{nodes}  ca: ca.crt\n  \
                 certificate: {name}.crt\n  key: {name}.key\n"
            );
            let file = format!("{name}.yml");
            servers.push(serve(core, executable, port, dir, &file, &cluster)?);
        }
        for (server, own) in servers.iter().zip(NAMES) {
            for other in NAMES.iter().filter(|it| **it != own) {
                let reached = format!("node reached node=\"{other}\"");
                let found = server.0.find_line_after(0, &reached, Deadline::secs(20));
                found.map_err(|_| anyhow::anyhow!("{}", server.0.output()))?;
            }
        }
        Ok(Nodes { servers, ports })
    }

    fn used(&self) -> anyhow::Result<Vec<crate::process::Cpu>> {
        self.servers.iter().map(|it| cpu(it.0.pid())).collect()
    }

    fn per_take(&self, before: &[crate::process::Cpu], takes: u64) -> anyhow::Result<f64> {
        let now = self.used()?;
        let used: Duration = now
            .iter()
            .zip(before)
            .map(|(now, before)| now.since(*before).total())
            .sum();
        Ok(used.as_secs_f64() * 1e6 / takes as f64)
    }

    /// Takes from many keys through one node.
    pub(super) fn spread(&self, args: &Args, window: u32) -> anyhow::Result<Sample> {
        let run = |time| load::run(self.ports[0], &Limitd, args.connections, window, time);
        run(Duration::from_millis(300))?; // warm-up
        let (before, began) = (self.used()?, Instant::now());
        let takes = run(Duration::from_secs(args.slice_seconds.into()))?;
        let wall = began.elapsed();
        Ok(Sample {
            takes_per_second: takes as f64 / wall.as_secs_f64(),
            cpu_us: self.per_take(&before, takes)?,
        })
    }

    /// Takes from one key through all nodes at once.
    pub(super) fn hot(&self, args: &Args, window: u32) -> anyhow::Result<HotSample> {
        let protocol: &dyn Protocol = &Hot;
        let (before, began) = (self.used()?, Instant::now());
        let time = Duration::from_secs(args.slice_seconds.into());
        let (takes, granted) = load::all(&self.ports, protocol, window, time)?;
        let wall = began.elapsed();
        let dripped = u64::try_from(wall.as_millis()).unwrap_or(0) * HOT.1 / 1_000 + 1;
        Ok(HotSample {
            sample: Sample {
                takes_per_second: takes as f64 / wall.as_secs_f64(),
                cpu_us: self.per_take(&before, takes)?,
            },
            granted,
            bound: HOT.0 + dripped,
        })
    }
}
