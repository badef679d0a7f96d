//! Files of the data directory.

use std::io;
use std::path::{Path, PathBuf};

use super::FeedError;

pub(super) fn read(path: &Path) -> Result<Option<String>, FeedError> {
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
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), FeedError> {
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

/// Gives a file that is not used any more the ending `.old`; its new name.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, FeedError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    let aside = PathBuf::from(name);
    match std::fs::rename(path, &aside) {
        Ok(()) => Ok(aside),
        Err(source) => Err(FeedError::File {
            path: path.to_owned(),
            source,
        }),
    }
}
