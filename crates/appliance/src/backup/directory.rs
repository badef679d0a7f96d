//! A directory of backups: their names, what is in it, what goes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::create::{create, data_bytes};
use super::retention::{Keep, surplus};
use super::{BackupError, Created, Seal, Sources};

/// How a backup's name begins and ends; between them stand time and node.
const BEGIN: &str = "sallyport-";
const END: &str = ".tar.gz.age";
/// The time in a name, UTC.
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Keeps a second writer out of a directory.
const LOCK: &str = ".sallyport-backup.lock";
/// Free space must be so many times what is backed up.
const SPACE_FACTOR: u64 = 2;

/// A backup in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// When it was begun, to the second.
    pub made_at: Timestamp,
    /// The node that wrote it.
    pub node: String,
    /// Its size.
    pub bytes: u64,
}

/// The name of a backup, such as `sallyport-20260131T120000Z-node1.tar.gz.age`.
///
/// Of the node's name only letters, digits, `.`, `_` and `-` stay.
pub fn name(node: &str, at: Timestamp) -> String {
    let keeps = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let node: String = node.chars().filter(keeps).take(64).collect();
    let at = at.to_zoned(TimeZone::UTC).strftime(TIME).to_string();
    format!("{BEGIN}{at}-{node}{END}")
}

/// When and by which node a backup of this name was written.
fn read_name(name: &str) -> Option<(Timestamp, String)> {
    let (time, node) = name
        .strip_prefix(BEGIN)?
        .strip_suffix(END)?
        .split_once('-')?;
    let time = jiff::fmt::strtime::parse(TIME, time)
        .ok()?
        .to_datetime()
        .ok()?;
    let at = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((at, node.to_owned()))
}

/// Whether a file is a backup, by its name.
pub(super) fn is_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    read_name(&name).is_some() || name == LOCK
}

/// The backups in a directory, oldest first; other files are not looked at.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Listed>, BackupError> {
    let entries = fs::read_dir(directory).map_err(BackupError::read(directory))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BackupError::read(directory))?;
        let Some((made_at, node)) = read_name(&entry.file_name().to_string_lossy()) else {
            continue;
        };
        if let Some(meta) = entry.metadata().ok().filter(|meta| meta.is_file()) {
            found.push(Listed {
                path: entry.path(),
                made_at,
                node,
                bytes: meta.len(),
            });
        }
    }
    found.sort_by(|a, b| (a.made_at, &a.path).cmp(&(b.made_at, &b.path)));
    Ok(found)
}

/// Writes a backup into a directory, which is made if it is not there, and lets old ones of the same
/// node go. The second part of the answer are those that went.
///
/// # Errors
/// See [`BackupError`]. [`BackupError::Space`] if there is not twice the room of what is backed up;
/// [`BackupError::Busy`] if one is being written.
pub fn in_directory(
    sources: &Sources,
    seal: &Seal,
    directory: &Path,
    keep: &Keep,
    now: Timestamp,
) -> Result<(Created, Vec<Listed>), BackupError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(BackupError::write(directory))?;
    let _lock = lock(directory)?;
    remove_partial(directory)?;
    check_space(directory, data_bytes(sources)?)?;
    let created = create(
        sources,
        seal,
        &directory.join(name(&sources.node, now)),
        now,
    )?;
    let gone = remove(directory, keep, Some(&sources.node))?;
    Ok((created, gone))
}

/// Lets old backups of each node go.
///
/// # Errors
/// See [`BackupError`].
pub fn prune(directory: &Path, keep: &Keep) -> Result<Vec<Listed>, BackupError> {
    let _lock = lock(directory)?;
    remove(directory, keep, None)
}

fn remove(directory: &Path, keep: &Keep, node: Option<&str>) -> Result<Vec<Listed>, BackupError> {
    let all = list(directory)?;
    let mut nodes: Vec<&str> = all.iter().map(|it| it.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut gone = Vec::new();
    for name in nodes
        .into_iter()
        .filter(|name| node.is_none_or(|node| node == *name))
    {
        let own: Vec<&Listed> = all.iter().filter(|it| it.node == name).collect();
        let times: Vec<Timestamp> = own.iter().map(|it| it.made_at).collect();
        for at in surplus(&times, keep) {
            let path = &own[at].path;
            fs::remove_file(path).map_err(BackupError::io("remove", path))?;
            gone.push(own[at].clone());
        }
    }
    Ok(gone)
}

fn lock(directory: &Path) -> Result<File, BackupError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(BackupError::write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::Busy(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(BackupError::write(&path)(source)),
    }
}

/// Under the lock nobody writes: what is half written is of a run that was cut short.
fn remove_partial(directory: &Path) -> Result<(), BackupError> {
    let entries = fs::read_dir(directory).map_err(BackupError::read(directory))?;
    for entry in entries {
        let entry = entry.map_err(BackupError::read(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!(".{BEGIN}")) && name.ends_with(".partial") {
            let path = entry.path();
            fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            tracing::warn!(path = %path.display(), "removed what an interrupted backup left");
        }
    }
    Ok(())
}

fn check_space(directory: &Path, data_bytes: u64) -> Result<(), BackupError> {
    let space = rustix::fs::statvfs(directory);
    let space = space.map_err(|error| BackupError::read(directory)(error.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let wanted = data_bytes.saturating_mul(SPACE_FACTOR);
    if free < wanted {
        return Err(BackupError::Space {
            path: directory.to_owned(),
            free_mib: free >> 20,
            wanted_mib: wanted.div_ceil(1 << 20),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_and_by_whom() {
        let at: Timestamp = "2026-01-31T12:00:07.9Z".parse().unwrap();
        let name = name("node-1/../ü", at);
        assert_eq!(name, "sallyport-20260131T120007Z-node-1...tar.gz.age");
        let read = read_name(&name).unwrap();
        assert_eq!(read.0.to_string(), "2026-01-31T12:00:07Z");
        assert_eq!(read.1, "node-1..");
        for other in [
            "sallyport-20260131T120007Z.tar.gz.age",
            "sallyport-2026-x.tar.gz.age",
            "other-20260131T120007Z-x.tar.gz.age",
            ".sallyport-20260131T120007Z-x.tar.gz.age.partial",
        ] {
            assert_eq!(read_name(other), None, "{other}");
        }
    }

    #[test]
    fn there_must_be_twice_the_room() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 1).unwrap();
        let error = check_space(directory.path(), u64::MAX / 4).unwrap_err();
        assert!(matches!(error, BackupError::Space { .. }), "{error}");
    }
}
