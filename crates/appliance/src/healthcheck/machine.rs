//! What the kernel tells of this machine.

use std::path::Path;

/// Time that the processors spent, in ticks since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Reads the first line of `/proc/stat`.
    pub(super) fn parse(stat: &str) -> Option<Ticks> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guests are in user already
        let all = numbers.iter().take(8).sum();
        let idle = numbers.get(3)? + numbers.get(4)?;
        Some(Ticks {
            busy: u64::saturating_sub(all, idle),
            all,
        })
    }

    pub(super) fn now() -> Option<Ticks> {
        Ticks::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Per cent that were busy since `before`; `None` if no time has passed.
    pub(super) fn busy_since(self, before: Ticks) -> Option<u64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some(self.busy.saturating_sub(before.busy) * 100 / all)
    }
}

/// Memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) available: u64,
}

impl Memory {
    /// Reads `/proc/meminfo`.
    pub(super) fn parse(meminfo: &str) -> Option<Memory> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Memory {
            total: field("MemTotal:")?,
            available: field("MemAvailable:")?,
        })
    }

    pub(super) fn now() -> Option<Memory> {
        Memory::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    /// Per cent available.
    pub(super) fn available_percent(self) -> u64 {
        self.available * 100 / self.total.max(1)
    }
}

/// Per cent of a file system that is used, as `df` counts: of what this user could use.
pub(super) fn used_percent(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let usable = used + stat.f_bavail;
    Ok((used * 100).div_ceil(usable.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_computed_from_what_the_kernel_writes() {
        let before = Ticks::parse("cpu  100 0 100 700 100 0 0 0 5 0\ncpu0 1 1").unwrap();
        let after = Ticks::parse("cpu  150 0 125 715 110 0 0 0 5 0\n").unwrap();
        assert_eq!(after.busy_since(before), Some(75));
        assert_eq!(before.busy_since(before), None);
        assert_eq!(Ticks::parse("cpu one"), None);
        assert_eq!(Ticks::parse(""), None);
        let text = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  95 kB\n";
        assert_eq!(Memory::parse(text).unwrap().available_percent(), 9);
        assert_eq!(Memory::parse("MemTotal: 5 kB"), None);
        assert!(used_percent(Path::new("/")).unwrap() <= 100);
        assert!(Ticks::now().is_some() && Memory::now().is_some());
    }
}
