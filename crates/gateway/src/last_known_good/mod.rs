//! The configuration a gateway restarts from when its control plane is gone.
//!
//! The last configuration put in force lies in `<prefix>/last_known_good`, the one before in
//! `<prefix>/last_known_good.previous`. A file is replaced as a whole (written beside it, synced,
//! renamed, directory synced), so a crash at any moment leaves one of the two good. Both are
//! readable by their owner only, because configurations hold keys.
//!
//! What changed since then may lie beside each of them in a file of changes ([`changes`]), to
//! which records are only ever added.

pub mod changes;
pub(crate) mod format;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::Reconfigure;
use sallyport_wire::config_sync::delta::SyncVersion;

use changes::{Changes, Record};

pub use format::FormatError;

const NAME: &str = "last_known_good";
const CHANGES: &str = "last_known_good.changes";
const PREVIOUS_CHANGES: &str = "last_known_good.previous.changes";

/// A configuration and the hash under which it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The hash to report: the payload's, or zeros if it holds no entity.
    pub hash: ConfigHash,
    /// The version that the control plane calls it by, if it came in changes.
    pub version: Option<SyncVersion>,
    /// The configuration as it came.
    pub payload: Reconfigure,
}

/// A configuration that was read back.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub saved: Saved,
    /// What was wrong with the newest file, if this is the previous one. To be logged.
    pub newest_problem: Option<FileError>,
    /// Changes that may follow on it, oldest first. Those that do not start from where the ones
    /// before have led are of another time, and to be skipped.
    pub changes: Vec<Record>,
}

/// One file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// It holds something else.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Neither file can be used.
#[derive(Debug, thiserror::Error)]
#[error("no last-known-good configuration can be used: {newest}; {previous}")]
pub struct LoadError {
    /// The newest file.
    pub newest: Box<FileError>,
    /// The one before.
    pub previous: Box<FileError>,
}

/// A configuration could not be stored; the files are as before.
#[derive(Debug, thiserror::Error)]
#[error("cannot store the last-known-good configuration: {step} {path}: {source}")]
pub struct StoreError {
    /// What was being done.
    pub step: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The two files in a gateway's prefix. One process uses them at a time.
#[derive(Clone, Debug)]
pub struct LastKnownGood {
    prefix: PathBuf,
}

impl LastKnownGood {
    /// The files in `prefix`, which is created when something is stored.
    pub fn new(prefix: &Path) -> LastKnownGood {
        LastKnownGood {
            prefix: prefix.to_owned(),
        }
    }

    /// Reads the newest usable configuration; `None` if nothing was ever stored.
    ///
    /// # Errors
    /// There are files, and none of them can be used.
    pub fn load(&self) -> Result<Option<Loaded>, LoadError> {
        let newest = match read(self.path(NAME)) {
            Ok(saved) => {
                return Ok(Some(self.loaded(saved, None)));
            }
            Err(error) => error,
        };
        match read(self.previous()) {
            Ok(saved) => Ok(Some(self.loaded(saved, Some(newest)))),
            Err(previous) => match (&newest.problem, &previous.problem) {
                (FileProblem::Missing, FileProblem::Missing) => Ok(None),
                _ => Err(LoadError {
                    newest: Box::new(newest),
                    previous: Box::new(previous),
                }),
            },
        }
    }

    fn loaded(&self, saved: Saved, newest_problem: Option<FileError>) -> Loaded {
        // The second name is the newest one's for a moment while a configuration is stored.
        let names = [PREVIOUS_CHANGES, CHANGES];
        let changes = match saved.version {
            Some(_) => names.map(|name| changes::read(&self.path(name))).concat(),
            None => Vec::new(),
        };
        Loaded {
            saved,
            newest_problem,
            changes,
        }
    }

    /// The file of changes since the newest configuration, to add to.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn changes(&self) -> Result<Changes, StoreError> {
        let path = self.path(CHANGES);
        step("opening", &path, Changes::open(&path, &self.prefix))
    }

    /// Stores a configuration as the newest one; the newest so far becomes the previous one,
    /// unless it is damaged. Blocks until the disk has it.
    ///
    /// # Errors
    /// The disk is full, read-only, …; what was stored before is still there.
    pub fn store(&self, saved: &Saved) -> Result<(), StoreError> {
        let (newest, previous) = (self.path(NAME), self.previous());
        let (new, kept) = (
            self.path("last_known_good.new"),
            self.path("last_known_good.kept"),
        );
        step("creating", &self.prefix, fs::create_dir_all(&self.prefix))?;
        let is_first = !newest.exists();
        step("writing", &new, write(&new, &format::encode(saved)))?;
        if fs::read(&newest).is_ok_and(|bytes| format::verify(&bytes).is_ok()) {
            // By a second name, so that the newest file is never absent.
            step("keeping", &newest, link(&newest, &kept))?;
            step("replacing", &previous, fs::rename(&kept, &previous))?;
            let (changes, old) = (self.path(CHANGES), self.path(PREVIOUS_CHANGES));
            let moved = match fs::rename(&changes, &old) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove(&old),
                moved => moved,
            };
            step("keeping", &changes, moved)?;
        }
        step("replacing", &newest, fs::rename(&new, &newest))?;
        step("syncing", &self.prefix, sync_directory(&self.prefix))?;
        if is_first {
            // The prefix itself may be new. Where one above it may not be read, it was there before.
            for above in self.prefix.ancestors().skip(1) {
                _ = sync_directory(above);
            }
        }
        Ok(())
    }

    /// Bytes of the newest stored configuration; 0 if there is none.
    pub fn newest_bytes(&self) -> u64 {
        fs::metadata(self.path(NAME)).map_or(0, |it| it.len())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.prefix.join(name)
    }

    fn previous(&self) -> PathBuf {
        self.path("last_known_good.previous")
    }
}

fn read(path: PathBuf) -> Result<Saved, FileError> {
    let problem = match fs::read(&path) {
        Ok(bytes) => match format::decode(&bytes) {
            Ok(saved) => return Ok(saved),
            Err(error) => FileProblem::Format(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileProblem::Missing,
        Err(error) => FileProblem::Read(error),
    };
    Err(FileError { path, problem })
}

fn step<T>(step: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError {
        step,
        path: path.to_owned(),
        source,
    })
}

/// Writes a new file, readable by its owner only, and waits for the disk.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the disk has the names in a directory.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let is_here = path.as_os_str().is_empty();
    let path = if is_here { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// A second name for a file, or a copy where the file system has no links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::hard_link(from, to).or_else(|_| write(to, &fs::read(from)?))
}

/// Removes what a crash may have left.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
