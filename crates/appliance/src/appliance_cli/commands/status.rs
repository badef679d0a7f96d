//! `status` and `logs`: how the node is.

use std::sync::Arc;

use sallyport_store::dump::Database;
use sallyport_wire::appliance_cli::Reply;
use serde_json::{Value, json};

use super::{Backups, Entry, Site, entry};

/// Lines of the log that are asked for at most.
const LINES_MAX: usize = 2_000;

pub(super) fn entries(site: &Arc<Site>, backups: &Arc<Backups>) -> Vec<Entry> {
    let (own, logs, backups) = (Arc::clone(site), Arc::clone(site), Arc::clone(backups));
    vec![
        entry("status", "how the node is", &[], move |_| {
            let (site, backups) = (Arc::clone(&own), Arc::clone(&backups));
            Box::pin(async move {
                let facts = tokio::task::spawn_blocking(move || facts(&site, &backups)).await;
                match facts {
                    Ok(facts) => Reply {
                        message: "running".to_owned(),
                        arguments: facts.as_object().cloned().unwrap_or_default(),
                        error: None,
                    },
                    Err(error) => Reply::refused("failed", error.to_string()),
                }
            })
        }),
        entry(
            "logs",
            "the last lines of the node's log",
            &[("lines?", "how many, 1 to 2000 [default: 100]")],
            move |call| {
                let lines = call.get("lines").unwrap_or("100").parse::<usize>();
                let site = Arc::clone(&logs);
                Box::pin(async move {
                    match lines.ok().filter(|lines| (1..=LINES_MAX).contains(lines)) {
                        None => Reply::refused("bad_arguments", "lines is 1 to 2000"),
                        Some(lines) => {
                            let lines = (site.logs)(lines);
                            Reply::new(format!("{} lines", lines.len())).with("lines", lines)
                        }
                    }
                })
            },
        ),
    ]
}

/// What is known of the node and its machine.
pub(super) fn facts(site: &Site, backups: &Backups) -> Value {
    let data = &site.sources.data;
    let (engine, database) = match &site.sources.database {
        Database::File(path) => ("sqlite", path.display().to_string()),
        Database::Url(_) => ("postgresql", "***".to_owned()),
    };
    let disk = rustix::fs::statvfs(data).ok().map(|it| {
        json!({
            "free_bytes": it.f_bavail.saturating_mul(it.f_frsize),
            "total_bytes": it.f_blocks.saturating_mul(it.f_frsize),
        })
    });
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let load = read("/proc/loadavg");
    let load: Vec<f64> = load
        .split_whitespace()
        .take(3)
        .filter_map(|it| it.parse().ok())
        .collect();
    json!({
        "node": site.node,
        "role": site.role,
        "version": site.version,
        "uptime_s": site.started.elapsed().as_secs(),
        "data": data.display().to_string(),
        "database": {"engine": engine, "at": database},
        "disk": disk,
        "memory_kib": {"total": kib("MemTotal"), "available": kib("MemAvailable")},
        "load": load,
        "backup": backups.facts(),
    })
}
