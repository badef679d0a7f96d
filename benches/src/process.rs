//! Pinned processes and what the kernel says about them: CPU time and memory of a whole tree.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use sallyport_testkit::{Deadline, Launch, Program};

/// The kernel's unit of CPU time in `/proc`: `USER_HZ`, 100 on every architecture of Linux that
/// we build for.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Prepares `command` (program and arguments) to run on these cores only, and to end when this
/// process does, however it ends. To be started from the main thread: the kernel looks at the
/// thread that started it.
pub(crate) fn pinned(
    cores: &str,
    command: impl IntoIterator<Item = impl Into<OsString>>,
) -> Launch {
    Program::new("setpriv")
        .args(["--pdeathsig", "TERM", "--", "taskset", "--cpu-list", cores])
        .args(command.into_iter().map(Into::into))
}

/// A server under measurement: asked to end when dropped, so that its workers end too.
pub(crate) struct Server(pub(crate) Program);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.terminate();
        let deadline = Deadline::secs(15);
        // Whatever is left then is killed with the program.
        while self.0.is_running() && !deadline.passed() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// CPU time, summed over processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// Time in user space.
    pub(crate) user: Duration,
    /// Time in the kernel.
    pub(crate) system: Duration,
}

impl Cpu {
    /// User and kernel time.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// The time since an earlier reading.
    pub(crate) fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// CPU time of this process and everything under it: all their threads, also ended ones.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let mut sum = Cpu::default();
    for pid in tree(pid)? {
        let stat = Stat::of(pid).with_context(|| format!("process {pid} is gone"))?;
        sum.user += stat.user;
        sum.system += stat.system;
    }
    Ok(sum)
}

/// CPU time of this process itself and of its children that have ended.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    let stat = Stat::of(std::process::id()).context("could not read /proc/self/stat")?;
    Ok(stat.user + stat.system + stat.ended_children)
}

/// Resident and proportional memory in KiB, summed over this process and everything under it.
pub(crate) fn memory_kib(pid: u32) -> anyhow::Result<(u64, u64)> {
    let (mut rss, mut pss) = (0, 0);
    for pid in tree(pid)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        rss += field_kib(&text, "Rss:").with_context(|| format!("no Rss in {path}"))?;
        pss += field_kib(&text, "Pss:").with_context(|| format!("no Pss in {path}"))?;
    }
    Ok((rss, pss))
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// CPU time of everything that runs on the machine, with children that have ended.
///
/// An ended child's time moves to its parent, so that the difference of two readings is what was
/// spent between them, whatever started and ended in the meantime.
pub(crate) fn everything() -> anyhow::Result<Duration> {
    Ok(all()?
        .map(|(_, stat)| stat.user + stat.system + stat.ended_children)
        .sum())
}

/// The process and its children, and theirs.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, stat) in all()? {
        children.entry(stat.parent).or_default().push(pid);
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// Every process of the machine.
fn all() -> anyhow::Result<impl Iterator<Item = (u32, Stat)>> {
    let entries = fs::read_dir("/proc").context("could not read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid: u32| Some((pid, Stat::of(pid)?))))
}

/// The parts of `/proc/<pid>/stat` that matter here.
struct Stat {
    parent: u32,
    user: Duration,
    system: Duration,
    ended_children: Duration,
}

impl Stat {
    /// `None` if there is no such process any more.
    fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        // The name, in brackets, may hold blanks and brackets itself.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| -> Option<Duration> {
            let ticks: u32 = fields.get(at)?.parse().ok()?;
            Some(TICK * ticks)
        };
        Some(Stat {
            parent: fields.get(1)?.parse().ok()?,
            user: ticks(11)?,
            system: ticks(12)?,
            ended_children: ticks(13)? + ticks(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_name() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194304 9 0 0 0 250 50 4 2 20 0 3 0 1 2 3";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.parent, 3);
        assert_eq!(stat.user, Duration::from_millis(2_500));
        assert_eq!(stat.system, Duration::from_millis(500));
        assert_eq!(stat.ended_children, Duration::from_millis(60));
        assert!(Stat::parse("7 (a").is_none());
    }

    #[test]
    fn a_tree_counts_its_children() {
        let script = "sleep 1000 & echo up; wait";
        let mut shell = Program::new("sh").args(["-c", script]).start();
        shell.wait_for_line("up", Deadline::secs(20));
        let found = tree(shell.pid()).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(memory_kib(shell.pid()).unwrap().0 > 0);
        cpu(shell.pid()).unwrap();
        for pid in &found[1..] {
            let pid = pid.to_string();
            Program::new("sh")
                .args(["-c", r#"kill "$0""#, &pid])
                .run(Deadline::secs(20))
                .success();
        }
        assert!(shell.wait(Deadline::secs(20)).success());
    }

    #[test]
    fn memory_lines_are_read() {
        let text = "0-1 rollup\nRss:    \t 1234 kB\nPss:  99 kB\nPss_Anon: 5 kB\n";
        assert_eq!(
            (field_kib(text, "Rss:"), field_kib(text, "Pss:")),
            (Some(1234), Some(99))
        );
        assert_eq!(field_kib(text, "Swap:"), None);
    }
}
