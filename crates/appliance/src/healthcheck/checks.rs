//! The questions, and what an answer says.

use std::sync::Arc;
use std::time::Duration;

use sallyport_store::{NodeRole, Wanted};
use serde::Serialize;
use tokio::time::timeout;

use super::machine::{Memory, used_percent};
use super::outside;
use crate::node::State;

const CPU_BUSY_MAX: u64 = 95;
const MEMORY_AVAILABLE_MIN: u64 = 10;
const DISK_USED_MAX: u64 = 90;
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);
const OUTSIDE_TIME_MAX: Duration = Duration::from_secs(5);

/// A question about the health of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// At most 95 % of the processors were busy in the last minute.
    Cpu,
    /// More than 10 % of the memory is available.
    Memory,
    /// No volume is used above 90 %.
    Disk,
    /// Every part of the node runs.
    Services,
    /// Every other node answers an echo.
    Network,
    /// The configured URL answers.
    Internet,
    /// The mail relay greets.
    Email,
    /// A query of the database succeeds.
    Db,
    /// Every node of the cluster is there.
    Replicaset,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It is not.
    Failed,
    /// Not asked for on this node; counts as well.
    Skipped,
}

/// An answer with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What came out.
    pub verdict: Verdict,
    /// In words.
    pub detail: String,
}

impl Answer {
    pub(super) fn of(ok: bool, detail: impl Into<String>) -> Answer {
        Answer {
            verdict: if ok { Verdict::Ok } else { Verdict::Failed },
            detail: detail.into(),
        }
    }

    pub(super) fn skipped(detail: &str) -> Answer {
        Answer {
            verdict: Verdict::Skipped,
            detail: detail.to_owned(),
        }
    }
}

impl Check {
    /// Every check.
    pub const ALL: [Check; 9] = [
        Check::Cpu,
        Check::Memory,
        Check::Disk,
        Check::Services,
        Check::Network,
        Check::Internet,
        Check::Email,
        Check::Db,
        Check::Replicaset,
    ];

    /// Its word in paths and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Cpu => "cpu",
            Check::Memory => "memory",
            Check::Disk => "disk",
            Check::Services => "services",
            Check::Network => "network",
            Check::Internet => "internet",
            Check::Email => "email",
            Check::Db => "db",
            Check::Replicaset => "replicaset",
        }
    }

    /// The check with this word.
    pub fn from_word(word: &str) -> Option<Check> {
        Check::ALL.into_iter().find(|it| it.as_str() == word)
    }
}

/// Asks.
pub(super) async fn ask(state: &Arc<State>, check: Check) -> Answer {
    let health = state.settings.healthcheck.as_ref();
    match check {
        Check::Cpu => cpu(state.vitals.borrow().cpu_percent),
        Check::Memory => memory(Memory::now()),
        Check::Disk => disk(state),
        Check::Services => services(state),
        Check::Network => outside::network(state).await,
        Check::Internet => match health.and_then(|it| it.internet.clone()) {
            None => Answer::skipped("no URL is configured (healthcheck.internet)"),
            Some(url) => bounded(outside::internet(&url)).await,
        },
        Check::Email => match health.and_then(|it| it.smtp.clone()) {
            None => Answer::skipped("no mail relay is configured (healthcheck.smtp)"),
            Some((host, port)) => bounded(outside::email(&host, port)).await,
        },
        Check::Db => database(state).await,
        Check::Replicaset => replicaset(state),
    }
}

async fn bounded(asked: impl Future<Output = Answer>) -> Answer {
    let answer = timeout(OUTSIDE_TIME_MAX, asked).await;
    answer.unwrap_or_else(|_| {
        Answer::of(
            false,
            format!("no answer within {} s", OUTSIDE_TIME_MAX.as_secs()),
        )
    })
}

fn cpu(busy: Option<u64>) -> Answer {
    match busy {
        None => Answer::of(true, "measured from the second minute on"),
        Some(busy) => Answer::of(
            busy <= CPU_BUSY_MAX,
            format!("{busy} % busy in the last minute"),
        ),
    }
}

fn memory(memory: Option<Memory>) -> Answer {
    let Some(memory) = memory else {
        return Answer::of(false, "the kernel tells nothing of its memory");
    };
    let percent = memory.available_percent();
    let (available, total) = (memory.available / 1024, memory.total / 1024);
    Answer::of(
        percent > MEMORY_AVAILABLE_MIN,
        format!("{available} of {total} MiB available ({percent} %)"),
    )
}

fn disk(state: &State) -> Answer {
    let health = state.settings.healthcheck.as_ref();
    let volumes = health.map(|it| it.volumes.as_slice()).unwrap_or_default();
    let mut well = true;
    let told: Vec<String> = std::iter::once(&state.settings.data)
        .chain(volumes)
        .map(|path| match used_percent(path) {
            Ok(percent) => {
                well &= percent <= DISK_USED_MAX;
                format!("{} is used to {percent} %", path.display())
            }
            Err(error) => {
                well = false;
                format!("{}: {error}", path.display())
            }
        })
        .collect();
    Answer::of(well, told.join(", "))
}

fn services(state: &State) -> Answer {
    if state.identity.role == NodeRole::Witness {
        return Answer::of(true, "a witness: membership runs");
    }
    let (runs, duty) = (state.plane.borrow().is_some(), state.duty());
    match (runs, duty) {
        (true, _) => Answer::of(true, "the control plane runs"),
        (false, Wanted::Drained) => Answer::of(true, "drained: the control plane is stopped"),
        (false, _) => Answer::of(false, "the control plane does not run"),
    }
}

/// Whether a query succeeds now.
pub(super) async fn database(state: &State) -> Answer {
    if state.identity.role == NodeRole::Witness {
        return Answer::skipped("a witness has no database");
    }
    let Some(store) = state.store() else {
        return Answer::of(false, "not reached since the node started");
    };
    match timeout(DATABASE_TIME_MAX, store.leader()).await {
        Ok(Ok(_)) => Answer::of(true, "a query succeeded"),
        Ok(Err(error)) => Answer::of(false, error.to_string()),
        Err(_) => Answer::of(
            false,
            format!("no answer within {} s", DATABASE_TIME_MAX.as_secs()),
        ),
    }
}

fn replicaset(state: &State) -> Answer {
    let (members, live) = (state.members(), state.live());
    let gone: Vec<&str> = members
        .iter()
        .filter(|it| !live.contains_key(&it.id))
        .map(|it| it.name.as_str())
        .collect();
    match gone.is_empty() {
        true => Answer::of(true, format!("all {} nodes are there", members.len())),
        false => Answer::of(false, format!("gone: {}", gone.join(", "))),
    }
}
