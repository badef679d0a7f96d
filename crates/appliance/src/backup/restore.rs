//! A backup made into a data directory again.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::archive::{Header, Manifest};
use super::create::parent;
use super::unpack::{self, Places};
use super::{BackupError, Opener};

/// Where a backup is restored to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The data directory; it is not there yet, or empty.
    pub data: PathBuf,
    /// URL of an empty PostgreSQL database; without it the database becomes a file of the
    /// data directory, whichever engine it came from.
    pub database: Option<String>,
    /// Whether the files that make the node this node are wanted: yes in its place, no for a new
    /// node beside it.
    pub identity: bool,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup is.
    pub header: Header,
    /// What was in it.
    pub manifest: Manifest,
    /// Where files with settings are now, if there are any.
    pub settings: Option<PathBuf>,
}

/// Restores a backup.
///
/// The directory appears when all of it is there and was checked; a PostgreSQL database is filled
/// in one transaction just before. What is interrupted leaves both as they were.
///
/// # Errors
/// See [`BackupError`].
pub fn restore(path: &Path, opener: &Opener, to: &Target) -> Result<Restored, BackupError> {
    let opened = unpack::open(path, opener)?;
    check_empty(&to.data)?;
    let above = parent(&to.data);
    fs::create_dir_all(above).map_err(BackupError::write(above))?;
    let name = to.data.file_name().unwrap_or_default().to_string_lossy();
    let staging = to.data.with_file_name(format!(".{name}.restoring"));
    if staging.exists() {
        // of a run that was cut short
        fs::remove_dir_all(&staging).map_err(BackupError::io("remove", &staging))?;
    }
    let made = fs::DirBuilder::new().mode(0o700).create(&staging);
    made.map_err(BackupError::write(&staging))?;
    let places = Places {
        data: &staging,
        database: to.database.as_deref(),
        identity: to.identity,
    };
    let unpacked = opened.unpack(&places).and_then(|unpacked| {
        if to.data.exists() {
            fs::remove_dir(&to.data).map_err(BackupError::io("replace", &to.data))?;
        }
        fs::rename(&staging, &to.data).map_err(BackupError::write(&to.data))?;
        let synced = File::open(above).and_then(|directory| directory.sync_all());
        synced.map_err(BackupError::write(above))?;
        Ok(unpacked)
    });
    let (header, manifest, _) = unpacked.inspect_err(|_| {
        _ = fs::remove_dir_all(&staging);
    })?;
    let settings = to.data.join(unpack::RESTORED_SETTINGS);
    Ok(Restored {
        header,
        manifest,
        settings: settings.is_dir().then_some(settings),
    })
}

fn check_empty(data: &Path) -> Result<(), BackupError> {
    match fs::read_dir(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::read(data)(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty(data.to_owned())),
        },
    }
}
