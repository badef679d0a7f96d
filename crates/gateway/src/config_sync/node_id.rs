//! The node's identity across restarts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;
use uuid::Uuid;

use crate::last_known_good::{sync_directory, write};

/// The node id could not be read or stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the node id in {path} (change prefix, or set node_id): {source}")]
pub struct NodeIdError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The node's UUID: `fixed` if given, else the one in `<prefix>/kong.id`, which is made at the
/// first start. `prefix` is created if it is missing.
///
/// # Errors
/// The file can be neither read nor written.
pub fn node_id(prefix: &Path, fixed: Option<Uuid>) -> Result<Uuid, NodeIdError> {
    if let Some(fixed) = fixed {
        return Ok(fixed);
    }
    let path = prefix.join("kong.id");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(id) => return Ok(id),
            Err(_) => warn!(path = %path.display(), "the node id is not a UUID, a new one is made"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(NodeIdError { path, source }),
    }
    let id = Uuid::new_v4();
    let store = || {
        fs::create_dir_all(prefix)?;
        let new = prefix.join("kong.id.new");
        write(&new, id.to_string().as_bytes())?;
        fs::rename(&new, &path)?;
        sync_directory(prefix)
    };
    match store() {
        Ok(()) => Ok(id),
        Err(source) => Err(NodeIdError { path, source }),
    }
}

/// The machine's host name as the kernel knows it; `localhost` if it cannot be read.
pub fn hostname() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_and_a_broken_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("new").join("prefix");
        let first = node_id(&prefix, None).unwrap();
        assert_eq!(node_id(&prefix, None).unwrap(), first);
        let fixed = Uuid::new_v4();
        assert_eq!(node_id(&prefix, Some(fixed)).unwrap(), fixed);
        fs::write(prefix.join("kong.id"), "broken").unwrap();
        let second = node_id(&prefix, None).unwrap();
        assert_ne!(second, first);
        assert_eq!(node_id(&prefix, None).unwrap(), second);
    }

    #[test]
    fn an_unusable_prefix_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = node_id(&file, None).unwrap_err().to_string();
        assert!(error.contains("kong.id"), "{error}");
    }
}
