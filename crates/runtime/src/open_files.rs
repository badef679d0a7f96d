//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Raises the limit to the most that the system lets this process have; how many that are, if the
/// system tells and allows it.
///
/// A shell gives 1,024 so that programs of old do not fail in `select`, which nothing here uses.
pub fn raise() -> Option<u64> {
    // asked as a file: a filter of system calls, as in the unit of a node, may forbid the call
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let maximum = maximum(&limits)?;
    let raised = Rlimit {
        current: Some(maximum),
        maximum: Some(maximum),
    };
    setrlimit(Resource::Nofile, raised).ok()?;
    Some(maximum)
}

/// The hard limit of open files in the text of `/proc/self/limits`.
fn maximum(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|it| it.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_greatest_afterwards() {
        let raised = raise().expect("this system tells its limits");
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(maximum(&limits), Some(raised));
        let line = format!("Max open files            {raised}");
        assert!(limits.contains(&line), "{limits}");
    }

    #[test]
    fn what_is_told_otherwise_is_left_alone() {
        let text = "Limit Soft Hard Units\nMax open files            1024      524288      files\n";
        assert_eq!(maximum(text), Some(524_288));
        assert_eq!(maximum("Max open files 1 unlimited files"), None);
        assert_eq!(maximum(""), None);
    }
}
