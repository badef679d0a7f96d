//! The key that signs the list: one for all processes on a database.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use sallyport_store::{IpAddressesKey, Store};
use tracing::{info, warn};

use super::FeedError;
use super::files::{read, set_aside, write};

/// Seals what the database shall not be able to read.
pub trait Seal: Send + Sync {
    /// Seals `plain`.
    ///
    /// # Errors
    /// Why it cannot, in words.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String>;

    /// Opens what [`Seal::seal`] sealed.
    ///
    /// # Errors
    /// Why it cannot, in words.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

/// The key of this database's list.
///
/// With a seal it is in the database; the first process puts its own there (the one of its file, if
/// it has one), and the others take it. Without a seal it is a file in `directory`, and its public
/// half in the database shows whether all processes have the same.
pub(super) async fn key(
    store: &Store,
    directory: &Path,
    seal: Option<&dyn Seal>,
) -> Result<KeyPair, FeedError> {
    let path = directory.join("ip_addresses.key");
    let file = read(&path)?.map(|pem| parse(&pem, &path)).transpose()?;
    let Some(seal) = seal else {
        return in_file(store, path, file).await;
    };
    let broken = |what: String| FeedError::Key(what);
    let kept = match store.ip_addresses_key().await? {
        Some(kept) => kept,
        None => {
            let key = match &file {
                Some(key) => KeyPair::from_pem(&key.serialize_pem()),
                None => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            };
            let key = key.map_err(|it| FeedError::Key(it.to_string()))?;
            let sealed = seal.seal(key.serialize_pem().as_bytes()).map_err(broken)?;
            let public_key = key.public_key_pem();
            let offered = IpAddressesKey { public_key, sealed };
            store.keep_ip_addresses_key(offered).await?
        }
    };
    let pem = String::from_utf8(seal.open(&kept.sealed).map_err(broken)?);
    let pem = pem.map_err(|_| FeedError::Key("it is no text".to_owned()))?;
    let key = KeyPair::from_pem(&pem).map_err(|it| FeedError::Key(it.to_string()))?;
    if let Some(file) = file {
        let aside = set_aside(&path)?;
        if file.public_key_pem() == key.public_key_pem() {
            info!(file = %aside.display(), "the key of the published list is in the database now");
        } else {
            warn!(
                file = %aside.display(),
                "the published list is signed with the key that another node brought; this node's \
                 own is set aside"
            );
        }
    }
    Ok(key)
}

async fn in_file(
    store: &Store,
    path: PathBuf,
    file: Option<KeyPair>,
) -> Result<KeyPair, FeedError> {
    let key = match file {
        Some(key) => key,
        None => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ED25519);
            let key = key.map_err(|it| FeedError::Key(it.to_string()))?;
            write(&path, &key.serialize_pem(), 0o600)?;
            key
        }
    };
    let offered = IpAddressesKey {
        public_key: key.public_key_pem(),
        sealed: Vec::new(),
    };
    let kept = store.keep_ip_addresses_key(offered).await?;
    if kept.public_key != key.public_key_pem() {
        warn!(
            file = %path.display(),
            "the list in this database was signed with another key first; readers that know that \
             one refuse this one: copy ip_addresses.key from the process that has it"
        );
    }
    Ok(key)
}

fn parse(pem: &str, path: &Path) -> Result<KeyPair, FeedError> {
    KeyPair::from_pem(pem).map_err(|it| FeedError::Key(format!("{}: {it}", path.display())))
}
