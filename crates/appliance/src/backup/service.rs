//! Backups on a schedule, inside a running node.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{BackupError, Created, Settings, Sources, in_directory, list};

/// After a backup that failed the next one is tried so much later.
const RETRY: SignedDuration = SignedDuration::from_mins(15);
/// The clock is looked at so often: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(20);

/// How backups go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the last one was made that is whole.
    pub last: Option<Timestamp>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
    /// One is being made.
    pub running: bool,
}

/// Makes backups when they are due, until `stop`; one that has begun is waited for.
///
/// What is there already counts, so a restart makes no backup too many, and none is skipped because
/// the node was down when it was due.
pub async fn run(
    sources: Sources,
    settings: Settings,
    status: watch::Sender<Status>,
    stop: CancellationToken,
) {
    let sources = Sources {
        settings: [sources.settings, settings.include.clone()].concat(),
        ..sources
    };
    let last = last(&sources, &settings);
    let mut due = settings.schedule.due(last);
    status.send_modify(|status| status.last = last);
    loop {
        let now = Timestamp::now();
        if now < due {
            let wait = due.duration_since(now);
            let wait = Duration::try_from(wait).unwrap_or(LOOK).min(LOOK);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => continue,
            }
        }
        if stop.is_cancelled() {
            return;
        }
        status.send_modify(|status| status.running = true);
        let (own, to) = (sources.clone(), settings.clone());
        let made = tokio::task::spawn_blocking(move || once(&own, &to, now)).await;
        let failure = match made {
            Ok(Ok(created)) => {
                let bytes = created.bytes;
                info!(path = %created.path.display(), bytes, "backup made");
                due = settings.schedule.due(Some(now));
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &failure {
            error!(%error, retry_in_min = RETRY.as_mins(), "no backup could be made");
            due = now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
        }
        status.send_modify(|status| {
            if failure.is_none() {
                status.last = Some(now);
            }
            status.failure = failure;
            status.running = false;
        });
    }
}

/// When this node wrote the newest backup that is there.
fn last(sources: &Sources, settings: &Settings) -> Option<Timestamp> {
    let node = super::name(&sources.node, Timestamp::UNIX_EPOCH);
    let own = |name: &str| super::name(name, Timestamp::UNIX_EPOCH) == node;
    let there = list(&settings.to).unwrap_or_default();
    let own = there.iter().filter(|it| own(&it.node));
    own.map(|it| it.made_at).max()
}

fn once(sources: &Sources, settings: &Settings, now: Timestamp) -> Result<Created, BackupError> {
    let (to, keep) = (&settings.to, &settings.keep);
    let (created, gone) = in_directory(sources, &settings.seal, to, keep, now)?;
    for old in gone {
        info!(path = %old.path.display(), "old backup removed");
    }
    Ok(created)
}
