//! `ip_addresses`: the published list of addresses, its change log, signature and RSS feed.
//!
//! Served without a token under the contract's host of this name, for firewalls and people. The shape
//! of the list is [`PublishedList`]; docs/ip_addresses.md describes all documents.

mod api;
mod history;
mod rss;
mod sources;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, SigningKey};
use sallyport_contract::PublishedList;
use sha2::{Digest, Sha256};

pub(crate) use api::in_front_of;
pub use history::HistoryError;
pub use sources::SourcesError;

use history::History;
use sources::Sources;
use tracing::error;

/// What is published: the documents of this moment, made anew when a planned change comes into
/// force.
#[derive(Debug)]
pub struct Feed {
    source: Source,
    current: Mutex<Arc<Documents>>,
}

/// What the documents are made of.
#[derive(Debug)]
struct Source {
    sources: Sources,
    base_domain: String,
    directory: PathBuf,
    key: KeyPair,
}

/// The documents from one change to the next.
#[derive(Clone, Debug)]
struct Documents {
    list: String,
    etag: String,
    signature: Vec<u8>,
    public_key: String,
    rss: String,
    history: History,
    /// Unix second of the next planned change.
    until: Option<i64>,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The description of the addresses cannot be used.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The change log cannot be used.
    #[error("{path}: {source}")]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signing key cannot be used.
    #[error("the signing key cannot be used: {0}")]
    Key(String),
}

impl Feed {
    /// Publishes the addresses that `sources` (TOML) describes, for names below `base_domain`.
    ///
    /// `directory` keeps the change log (`ip_addresses.json`) and the signing key
    /// (`ip_addresses.key`); both are made when they are missing. If the addresses differ from the last
    /// ones published, a version of the Unix second `now` is added.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub fn open(
        sources: &str,
        base_domain: &str,
        directory: &Path,
        now: i64,
    ) -> Result<Feed, FeedError> {
        let source = Source {
            sources: sources::read(sallyport_contract::catalogue(), sources, base_domain)?,
            base_domain: base_domain.to_owned(),
            directory: directory.to_owned(),
            key: key(&directory.join("ip_addresses.key"))?,
        };
        let documents = source.documents(now)?;
        Ok(Feed {
            source,
            current: Mutex::new(Arc::new(documents)),
        })
    }

    /// The documents of this moment.
    fn now(&self) -> Arc<Documents> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.at(now.map_or(0, |it| it.as_secs().cast_signed()))
    }

    /// The documents of the Unix second `now`.
    fn at(&self, now: i64) -> Arc<Documents> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.until.is_some_and(|until| until <= now) {
            match self.source.documents(now) {
                Ok(documents) => *current = Arc::new(documents),
                // the list of before is served on; the next request tries again
                Err(error) => {
                    error!(%error, "a planned change of addresses could not be published");
                }
            }
        }
        current.clone()
    }
}

impl Source {
    fn documents(&self, now: i64) -> Result<Documents, FeedError> {
        let path = self.directory.join("ip_addresses.json");
        let mut history = match read(&path)? {
            Some(text) => History::parse(&text).map_err(|source| FeedError::History {
                path: path.clone(),
                source,
            })?,
            None => History::default(),
        };
        let coming = self.sources.after(now);
        let changed = history.publish(self.sources.at(now).clone(), now);
        if history.announce(coming, now) || changed {
            write(&path, &history.json(), 0o644)?;
        }
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
        let key = &self.key;
        let signature = key
            .sign(list.as_bytes())
            .map_err(|it| FeedError::Key(it.to_string()))?;
        let host = format!("ip-addresses.origin.{}", self.base_domain);
        Ok(Documents {
            etag: format!("\"{digits}\""),
            signature,
            public_key: key.public_key_pem(),
            rss: rss::rss(&history, &host),
            list,
            history,
            until: coming.first().map(|(from, _)| *from),
        })
    }
}

fn key(path: &Path) -> Result<KeyPair, FeedError> {
    let bad = |error: rcgen::Error| FeedError::Key(format!("{}: {error}", path.display()));
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(bad);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(bad)?;
    write(path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<String>, FeedError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FeedError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), FeedError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("new");
    let written = || {
        let _ = std::fs::remove_file(&new); // of a start that was cut short
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    written().map_err(|source| FeedError::File {
        path: path.to_owned(),
        source,
    })
}
