//! `ip_addresses`: the published list of addresses, its change log, signature and RSS feed.
//!
//! Served without a token under the contract's host of this name, for firewalls and people. The shape
//! of the list is [`PublishedList`]; docs/ip_addresses.md describes all documents. What the list is
//! made of and its history are in the database, so that all processes on it publish the same bytes:
//! each puts there what it contributes ([`Contribution`]) and whoever sees a change first writes the
//! version.

mod api;
mod contribution;
mod files;
mod history;
mod key;
mod rss;
mod sources;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, SigningKey};
use sallyport_contract::PublishedList;
use sallyport_store::{Store, StoreError};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub(crate) use api::in_front_of;
pub use contribution::Contribution;
pub use history::HistoryError;
pub use key::Seal;
pub use sources::SourcesError;

use history::{History, VERSIONS_MAX};

/// Between looks at what other processes changed, and whether a planned change is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Times that a version is written anew because another process was faster.
const TRIES_MAX: usize = 16;

/// Who contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contributor {
    /// A control plane that is no node: what the last one that started says counts.
    ControlPlane,
    /// A node of the cluster with this id: until it is removed.
    Node(Uuid),
}

/// What is published: the documents of this moment, the same for all processes on the database.
pub struct Feed {
    store: Store,
    base_domain: String,
    key: KeyPair,
    current: Mutex<Arc<Documents>>,
}

/// The documents from one change to the next.
#[derive(Clone, Debug, Default)]
struct Documents {
    /// Empty before anything is published.
    list: String,
    etag: String,
    signature: Vec<u8>,
    public_key: String,
    rss: String,
    history: History,
    /// The database's revision that they are made of.
    revision: u64,
    /// Unix second of the next planned change.
    until: Option<i64>,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The description of the addresses cannot be used.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The history of an older build cannot be used.
    #[error("{path}: {source}")]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// What is in the database cannot be used.
    #[error("what the database holds of published addresses {0}")]
    Stored(String),
    /// The database does not answer, or refuses.
    #[error("the published addresses: {0}")]
    Store(#[from] StoreError),
    /// Other processes publish without an end.
    #[error("the published addresses change too fast")]
    Busy,
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signing key cannot be used.
    #[error("the key that signs the published addresses cannot be used: {0}")]
    Key(String),
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

/// What a description of addresses (TOML, see docs/ip_addresses.md) contributes, for names below
/// `base_domain`.
///
/// # Errors
/// See [`SourcesError`].
pub fn described(text: &str, base_domain: &str) -> Result<Contribution, SourcesError> {
    sources::read(sallyport_contract::catalogue(), text, base_domain)
}

impl Feed {
    /// Contributes to the list in `store`, and publishes it under `base_domain`.
    ///
    /// `directory` is where an older build kept its history (taken over into a database that has
    /// none) and, without a `seal`, where the signing key is (`ip_addresses.key`, made when it is
    /// missing). If the addresses differ from the last ones published, a version of the Unix second
    /// `now` is added.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub async fn open(
        store: Store,
        contributor: Contributor,
        contribution: Contribution,
        base_domain: &str,
        directory: &Path,
        seal: Option<&dyn Seal>,
        now: i64,
    ) -> Result<Feed, FeedError> {
        let key = key::key(&store, directory, seal).await?;
        import(&store, directory).await?;
        let body = serde_json::to_value(&contribution)
            .map_err(|error| FeedError::Stored(error.to_string()))?;
        match contributor {
            Contributor::ControlPlane => store.contribute_ip_addresses("control", body).await?,
            Contributor::Node(id) => store.report_ip_addresses(id, body).await?,
        }
        let feed = Feed {
            store,
            base_domain: base_domain.to_owned(),
            key,
            current: Mutex::default(),
        };
        feed.publish(now).await?;
        Ok(feed)
    }

    /// The documents of this moment.
    fn now(&self) -> Arc<Documents> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Follows what other processes change and what becomes due, until `stop`. While the database
    /// does not answer, the last list is served on.
    pub(crate) async fn follow(self: Arc<Feed>, stop: CancellationToken) {
        let mut told = false;
        let followed = async {
            loop {
                sleep(LOOK_EVERY).await;
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.map_or(0, |it| it.as_secs().cast_signed());
                match self.refresh(now).await {
                    Ok(()) => told = false,
                    Err(error) if !told => {
                        told = true;
                        warn!(%error, "the published addresses stay as they are");
                    }
                    Err(_) => {}
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = followed => {}
        }
    }

    /// Publishes anew if something changed, or is due at the Unix second `now`.
    async fn refresh(&self, now: i64) -> Result<(), FeedError> {
        let known = self.now();
        let due = known.until.is_some_and(|until| until <= now);
        if !due && self.store.ip_addresses_revision().await? == known.revision {
            return Ok(());
        }
        self.publish(now).await
    }

    async fn publish(&self, now: i64) -> Result<(), FeedError> {
        let bad = |error: &dyn std::fmt::Display| FeedError::Stored(error.to_string());
        for _ in 0..TRIES_MAX {
            let there = self.store.ip_addresses().await?;
            let parts = there.sources.into_values().map(serde_json::from_value);
            let parts: Vec<Contribution> =
                parts.collect::<Result<_, _>>().map_err(|it| bad(&it))?;
            let history = History::of_rows(there.versions, there.announced);
            let mut history = history.map_err(|it| bad(&it))?;
            let moment = history.not_before_newest(now);
            let (list, coming) = Contribution::together(&parts).split(moment);
            let new = history.publish(list, now);
            let mut revision = there.revision;
            if history.announce(&coming, now) || new {
                let (versions, announced) = history.rows(usize::from(new));
                let written =
                    self.store
                        .publish_ip_addresses(revision, versions, announced, VERSIONS_MAX);
                if !written.await? {
                    continue; // another process was faster; perhaps it wrote just this
                }
                revision += 1;
            }
            let until = coming.first().map(|it| it.from);
            let documents = self.documents(history, revision, until)?;
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(documents);
            return Ok(());
        }
        Err(FeedError::Busy)
    }

    fn documents(
        &self,
        history: History,
        revision: u64,
        until: Option<i64>,
    ) -> Result<Documents, FeedError> {
        let list = history
            .newest()
            .map(PublishedList::json)
            .unwrap_or_default();
        let digest = Sha256::digest(list.as_bytes());
        let digits: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let signature = self
            .key
            .sign(list.as_bytes())
            .map_err(|it| FeedError::Key(it.to_string()))?;
        let host = format!("ip-addresses.origin.{}", self.base_domain);
        Ok(Documents {
            etag: format!("\"{digits}\""),
            signature,
            public_key: self.key.public_key_pem(),
            rss: rss::rss(&history, &host),
            list,
            history,
            revision,
            until,
        })
    }
}

/// Takes the history of an older build over, unless the database has one.
async fn import(store: &Store, directory: &Path) -> Result<(), FeedError> {
    let path = directory.join("ip_addresses.json");
    let Some(text) = files::read(&path)? else {
        return Ok(());
    };
    let history = History::of_file(&text).map_err(|source| FeedError::History {
        path: path.clone(),
        source,
    })?;
    let there = store.ip_addresses().await?;
    let taken = there.versions.is_empty() && {
        let (versions, announced) = history.rows(history.len());
        let written = store.publish_ip_addresses(there.revision, versions, announced, VERSIONS_MAX);
        written.await?
    };
    let aside = files::set_aside(&path)?;
    match taken {
        true => info!(file = %aside.display(), "history of published addresses taken over"),
        false => info!(
            file = %aside.display(),
            "history of published addresses set aside, the database has one already"
        ),
    }
    Ok(())
}
