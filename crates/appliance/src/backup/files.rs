//! The files of a data directory that belong into a backup.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::BackupError;

/// Endings of files that are of one process, or of a write that is under way.
const PASSING: [&str; 6] = [".lock", "-wal", "-shm", "-journal", ".new", ".partial"];
/// How a file of SQLite begins.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";
/// Deeper directories are a mistake.
const DEPTH_MAX: usize = 16;

/// A file of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path below the directory.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// It is a database that may be written meanwhile.
    pub(super) sqlite: bool,
}

/// Every file below `root`, in order, but for those in `without` (full paths).
pub(super) fn below(root: &Path, without: &[PathBuf]) -> Result<Vec<Found>, BackupError> {
    let mut found = Vec::new();
    walk(root, Path::new(""), without, 0, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(
    root: &Path,
    at: &Path,
    without: &[PathBuf],
    depth: usize,
    found: &mut Vec<Found>,
) -> Result<(), BackupError> {
    let directory = root.join(at);
    let entries = fs::read_dir(&directory).map_err(BackupError::read(&directory))?;
    for entry in entries {
        let entry = entry.map_err(BackupError::read(&directory))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(BackupError::read(&path))?;
        let passing = PASSING
            .iter()
            .any(|end| name.to_string_lossy().ends_with(end));
        if passing || without.contains(&path) {
            continue;
        }
        let below = at.join(&name);
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(root, &below, without, depth + 1, found)?;
        } else if kind.is_file() {
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // it was one of a write that has ended
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(BackupError::read(&path)(error)),
            };
            found.push(Found {
                path: below,
                size: meta.len(),
                mode: meta.mode() & 0o777,
                sqlite: is_sqlite(&path),
            });
        } else if !kind.is_socket() {
            tracing::warn!(path = %path.display(), "not a file, not backed up");
        }
    }
    Ok(())
}

fn is_sqlite(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *SQLITE
}
