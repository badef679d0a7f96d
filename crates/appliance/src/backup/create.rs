//! A new backup.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sallyport_store::dump::{Database, Piece, dump, size_bytes, snapshot_file};

use super::archive::{self, DATA, FORMAT, Header, IDENTITY, Manifest, SETTINGS, Writer};
use super::unpack::RESTORED_SETTINGS;
use super::{BackupError, Seal, Sources, files};

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub manifest: Manifest,
}

/// Writes a backup of what there is at `now` to the file `out`, which appears under its name only
/// when all of it is on disk.
///
/// The database is read first, from one state, then the files of the data directory, so that the
/// audit log has every change that is in the database. Nothing is locked: the control plane runs on.
///
/// # Errors
/// See [`BackupError`]; then there is no file `out`.
pub fn create(
    sources: &Sources,
    seal: &Seal,
    out: &Path,
    now: Timestamp,
) -> Result<Created, BackupError> {
    let partial = partial(out);
    let written = write(sources, seal, &partial, now);
    let manifest = written.inspect_err(|_| {
        _ = fs::remove_file(&partial);
    })?;
    let bytes = fs::metadata(&partial)
        .map_err(BackupError::read(&partial))?
        .len();
    fs::rename(&partial, out).map_err(BackupError::write(out))?;
    let directory = parent(out);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(BackupError::write(directory))?;
    Ok(Created {
        path: out.to_owned(),
        bytes,
        manifest,
    })
}

/// The directory of a file.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What a file is called until it is whole.
pub(super) fn partial(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.partial"))
}

/// About how many bytes there are to back up.
pub(super) fn data_bytes(sources: &Sources) -> Result<u64, BackupError> {
    let files = files::below(&sources.data, &[])?;
    let files: u64 = files.iter().map(|file| file.size).sum();
    match &sources.database {
        // one that is in the directory was counted
        Database::File(path) if path.starts_with(&sources.data) => Ok(files),
        database => Ok(files + size_bytes(database)?),
    }
}

fn write(
    sources: &Sources,
    seal: &Seal,
    partial: &Path,
    now: Timestamp,
) -> Result<Manifest, BackupError> {
    _ = fs::remove_file(partial); // of a run that was cut short
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(partial);
    let file = file.map_err(BackupError::write(partial))?;
    let out = BufWriter::with_capacity(1 << 18, file);
    let made_at_s = u64::try_from(now.as_second()).unwrap_or(0);
    let writer = Writer::new(out, seal, made_at_s).map_err(BackupError::write(partial))?;
    let mut run = Run {
        sources,
        partial,
        writer,
    };
    run.database(now)?;
    run.data()?;
    run.settings()?;
    let finished = || -> std::io::Result<Manifest> {
        let (mut out, manifest) = run.writer.finish()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(manifest)
    };
    finished().map_err(BackupError::write(partial))
}

/// A backup under way.
struct Run<'r, W: Write> {
    sources: &'r Sources,
    partial: &'r Path,
    writer: Writer<W>,
}

impl<W: Write> Run<'_, W> {
    fn database(&mut self, now: Timestamp) -> Result<(), BackupError> {
        let (sources, writer) = (self.sources, &mut self.writer);
        let engine = match &sources.database {
            Database::File(_) => "sqlite",
            Database::Url(_) => "postgresql",
        };
        dump(&sources.database, &mut |piece| {
            match piece {
                Piece::Schema(schema_version) => writer.header(&Header {
                    format: FORMAT,
                    made_by: env!("CARGO_PKG_VERSION").to_owned(),
                    made_at: format!("{now:.0}"),
                    node: sources.node.clone(),
                    engine: engine.to_owned(),
                    schema_version,
                    database_file: sources.database_file.to_string_lossy().into_owned(),
                }),
                Piece::Table(table) => writer.table(table),
                Piece::Rows { lines, rows } => writer.rows(rows, lines),
            }?;
            Ok(())
        })?;
        Ok(())
    }

    fn data(&mut self) -> Result<(), BackupError> {
        let data = &self.sources.data;
        let mut without = vec![self.partial.to_owned()];
        if let Database::File(path) = &self.sources.database {
            without.push(path.clone());
        }
        for file in files::below(data, &without)? {
            // Backups that lie in the data directory do not go into each other, nor do settings
            // that an earlier restore put there: those in force are backed up.
            if super::directory::is_name(&file.path) || file.path.starts_with(RESTORED_SETTINGS) {
                continue;
            }
            let is_identity = |it: &PathBuf| file.path.starts_with(it);
            let place = match self.sources.identity.iter().any(is_identity) {
                true => IDENTITY,
                false => DATA,
            };
            let name = file.path.to_str().ok_or_else(|| {
                let error = std::io::Error::other("its name is not text");
                BackupError::read(&data.join(&file.path))(error)
            })?;
            let name = format!("{place}/{name}");
            let path = data.join(&file.path);
            if file.sqlite {
                self.sqlite(&name, &path, file.mode)?;
            } else {
                self.file(&name, &path, file.mode)?;
            }
        }
        Ok(())
    }

    /// A database as it is at one moment; the copy lies beside the backup meanwhile.
    fn sqlite(&mut self, name: &str, path: &Path, mode: u32) -> Result<(), BackupError> {
        let mut copy = self.partial.as_os_str().to_owned();
        copy.push(".sqlite.partial");
        let copy = PathBuf::from(copy);
        _ = fs::remove_file(&copy);
        let copied = snapshot_file(path, &copy).map_err(BackupError::from);
        let written = copied.and_then(|()| self.file(name, &copy, mode));
        _ = fs::remove_file(&copy);
        written
    }

    fn settings(&mut self) -> Result<(), BackupError> {
        for (at, path) in self.sources.settings.iter().enumerate() {
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            self.file(&format!("{SETTINGS}/{at}-{own}"), path, 0o600)?;
            let full = std::path::absolute(path).map_err(BackupError::read(path))?;
            self.writer.was(&full);
        }
        Ok(())
    }

    fn file(&mut self, name: &str, path: &Path, mode: u32) -> Result<(), BackupError> {
        debug_assert!(archive::below(name).is_some(), "{name}");
        let file = File::open(path).map_err(BackupError::read(path))?;
        let size = file.metadata().map_err(BackupError::read(path))?.len();
        let written = self.writer.file(name, mode, size, file);
        written.map_err(BackupError::io("back up", path))
    }
}
