//! One look a minute at everything, kept 29 days: a file a day, a line a minute.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan, Zoned, civil::Date, tz::TimeZone};
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::checks::{Check, ask};
use super::machine::Memory;
use crate::node::{Fatal, State};

const EVERY: Duration = Duration::from_secs(60);
const KEPT_DAYS: i32 = 29;
/// Samples in one answer: a day and some.
pub(super) const ANSWER_MAX: usize = 1_500;

fn directory(state: &State) -> PathBuf {
    state.settings.data.join("health")
}

/// Samples until `stop`.
pub(crate) async fn sample(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(EVERY) => {}
        }
        let line = take(&state).await.to_string();
        let (dir, now) = (directory(&state), Timestamp::now());
        let kept = tokio::task::spawn_blocking(move || keep(&dir, now, &line)).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not keep a sample of health"),
            Err(error) => warn!(%error, "keeping a sample of health panicked"),
        }
    }
}

/// A look at everything.
pub(super) async fn take(state: &Arc<State>) -> Value {
    let mut checks = Map::new();
    for check in Check::ALL {
        let answer = ask(state, check).await;
        let answer = serde_json::to_value(answer).unwrap_or_default();
        checks.insert(check.as_str().to_owned(), answer);
    }
    let (serving, why_not) = state.serving();
    json!({
        "time": Timestamp::now().to_string(),
        "node": state.identity.name,
        "serving": serving,
        "why_not": why_not,
        "state": state.duty().as_str(),
        "cpu_percent": state.vitals.borrow().cpu_percent,
        "memory_available_kib": Memory::now().map(|it| it.available),
        "checks": checks,
    })
}

fn day(at: Timestamp) -> Date {
    Zoned::new(at, TimeZone::UTC).date()
}

/// Appends a sample, and forgets days that are too old.
fn keep(dir: &Path, now: Timestamp, line: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join(format!("{}.jsonl", day(now)));
    let new = !file.exists();
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.create(true).append(true).mode(0o600).open(file)?;
    out.write_all(format!("{line}\n").as_bytes())?;
    if new {
        let oldest = day(now).saturating_sub(KEPT_DAYS.days());
        for (date, path) in days(dir)? {
            if date < oldest {
                std::fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// The days that are kept, oldest first.
fn days(dir: &Path) -> std::io::Result<Vec<(Date, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|it| it.to_str());
        if let Some(date) = stem.and_then(|it| it.parse::<Date>().ok()) {
            found.push((date, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The samples of one day, oldest first; of today if none is named.
pub(super) fn of_day(state: &State, date: Option<&str>) -> Result<Vec<Value>, String> {
    let date = match date {
        None => day(Timestamp::now()),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{text:?} is no day, such as 2026-11-29"))?,
    };
    let file = directory(state).join(format!("{date}.jsonl"));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.to_string()),
    };
    // A line that a crash cut is left out.
    let lines = text.lines().filter_map(|it| serde_json::from_str(it).ok());
    Ok(lines.take(ANSWER_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_kept_29_days() {
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        keep(dir.path(), at("2026-10-31T12:00:00Z"), "{}").unwrap();
        keep(dir.path(), at("2026-11-01T12:00:00Z"), "{}").unwrap();
        keep(dir.path(), at("2026-11-30T00:00:00Z"), "{}").unwrap();
        keep(dir.path(), at("2026-11-30T00:01:00Z"), "{}").unwrap();
        let left: Vec<String> = days(dir.path())
            .unwrap()
            .into_iter()
            .map(|(date, _)| date.to_string())
            .collect();
        assert_eq!(left, ["2026-11-01", "2026-11-30"]);
        let lines = std::fs::read_to_string(dir.path().join("2026-11-30.jsonl")).unwrap();
        assert_eq!(lines, "{}\n{}\n");
    }
}
