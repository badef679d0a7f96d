//! Follows the bucket configuration file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::warn_of;
use crate::rate_limit::Limits;
use crate::rate_limit::config::{
    self, ClusterSection, Config, ConfigError, RedisSection, Source, TlsSection,
};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// What a running process does not change.
#[derive(PartialEq)]
pub(super) struct Sections {
    tls: Option<TlsSection>,
    cluster: Option<ClusterSection>,
    redis: Option<RedisSection>,
}

impl Sections {
    pub(super) fn of(config: &Config) -> Sections {
        Sections {
            tls: config.tls.clone(),
            cluster: config.cluster.clone(),
            redis: config.redis.clone(),
        }
    }
}

/// Puts what the file says into force whenever it changes, and when `asked`. With a bad file
/// everything stays as it is.
pub(super) async fn run(
    path: PathBuf,
    sections: Sections,
    limits: Arc<Limits>,
    asked: Arc<Notify>,
    stop: CancellationToken,
) {
    // What was read last, good or bad: a bad file is told of once.
    let mut seen: Option<Vec<Source>> = read(path.clone()).await.ok();
    let mut gone = false;
    loop {
        let forced = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => false,
            () = asked.notified() => true,
        };
        let sources = match read(path.clone()).await {
            Ok(sources) => sources,
            Err(error) => {
                if !gone || forced {
                    warn!(%error, "bucket configuration stays as it was");
                }
                gone = true;
                continue;
            }
        };
        gone = false;
        if !forced && seen.as_ref() == Some(&sources) {
            continue;
        }
        match Config::parse(&sources, limits.now().unix_ms) {
            Err(error) => warn!(%error, "bucket configuration stays as it was"),
            Ok(config) => {
                warn_of(&config.warnings);
                if Sections::of(&config) != sections {
                    warn!("changes of tls, cluster and redis take effect at the next start");
                }
                let types = config.types.len();
                limits.swap(config.types);
                info!(types, "bucket configuration read");
            }
        }
        seen = Some(sources);
    }
}

async fn read(path: PathBuf) -> Result<Vec<Source>, ConfigError> {
    let named = path.clone();
    let read = tokio::task::spawn_blocking(move || config::read(&path)).await;
    read.unwrap_or_else(|error| {
        Err(ConfigError::Read {
            path: named,
            source: std::io::Error::other(error),
        })
    })
}
