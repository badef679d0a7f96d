//! What this machine is, and how busy others keep it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_testkit::{Deadline, Program};

use crate::peer::Peer;
use crate::process;

/// Programs that a run needs, with their Debian packages.
const PROGRAMS: [(&str, &str); 4] = [
    ("nginx", "nginx"),
    ("wrk", "wrk"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Checks that everything foreign is installed: what every run needs, and `more` (files with
/// their Debian packages, by name or by path).
pub(crate) fn need_programs(more: &[(&str, &str)]) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let there = |program: &str| dirs.iter().any(|dir| dir.join(program).is_file());
    let needed = PROGRAMS.iter().chain(more);
    let missing = needed.filter(|(program, _)| !there(program));
    let missing: Vec<_> = missing
        .map(|(program, pkg)| format!("{program} ({pkg})"))
        .collect();
    if !missing.is_empty() {
        bail!(
            "not on the PATH: {}; these are (Debian packages)",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The cores that this process may use.
pub(crate) fn cores() -> anyhow::Result<Vec<u32>> {
    let status = fs::read_to_string("/proc/self/status").context("could not read /proc")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_cores(
        list.context("no Cpus_allowed_list in /proc/self/status")?
            .trim(),
    )
}

fn parse_cores(list: &str) -> anyhow::Result<Vec<u32>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse::<u32>()
                .with_context(|| format!("cores {list:?}"))
        };
        cores.extend(number(first)?..=number(last)?);
    }
    Ok(cores)
}

/// One line: date, processor, kernel, and the versions of everything that took part.
pub(crate) fn describe(date: Option<String>, peers: &[Box<dyn Peer>]) -> anyhow::Result<String> {
    let date = date.unwrap_or_else(|| jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let memory = memory
        .and_then(|m| m.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or_default();
    let mut parts = vec![
        date,
        format!(
            "{} × {}",
            cores()?.len(),
            processor.unwrap_or("unknown processor".into())
        ),
        format!("{:.0} GiB", memory as f64 / 1024.0 / 1024.0),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        first_line("wrk", "-v")?,
    ];
    for peer in peers {
        let version = peer.version()?;
        if !parts.contains(&version) {
            parts.push(version);
        }
    }
    Ok(parts.join(" · "))
}

/// The first line that `program` says about its version, on either stream.
pub(crate) fn first_line(program: impl AsRef<Path>, arg: &str) -> anyhow::Result<String> {
    let program = program.as_ref();
    let launch = Program::new(program).arg(arg);
    let mut run = launch
        .try_start()
        .with_context(|| format!("could not run {program:?}"))?;
    run.wait(Deadline::secs(20)); // some end with a status above 0 here
    let output = run.output();
    let line = output
        .lines()
        .next()
        .with_context(|| format!("{program:?} {arg} says nothing"))?;
    Ok(line.split(" [epoll]").next().unwrap_or(line).to_owned())
}

/// Time that all cores of the machine together have spent so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Busy {
    /// In processes of any kind.
    pub(crate) processes: Duration,
    /// Taken away by the hypervisor.
    pub(crate) stolen: Duration,
}

impl Busy {
    /// Reads the counters of the whole machine.
    pub(crate) fn now() -> anyhow::Result<Busy> {
        // Not the sums of /proc/stat: kernels differ in whether a process is charged for the
        // network work done in its name, and there they do not say.
        let processes = process::everything()?;
        let text = fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
        // cpu user nice system idle iowait irq softirq steal
        let steal = text
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().nth(8));
        let steal = steal.and_then(|ticks| ticks.parse::<u32>().ok());
        let steal = steal.context("could not understand /proc/stat")?;
        Ok(Busy {
            processes,
            stolen: process::TICK * steal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cores("0").unwrap(), [0]);
        assert_eq!(parse_cores("0-2,5").unwrap(), [0, 1, 2, 5]);
        assert!(parse_cores("a").is_err());
    }

    #[test]
    fn this_machine_has_been_busy() {
        assert!(!Busy::now().unwrap().processes.is_zero());
        assert!(!cores().unwrap().is_empty());
    }
}
