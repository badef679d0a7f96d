//! What comes out of a backup, and whether it is all that went in.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use sallyport_store::dump::{Database, DumpError, Loaded, Other, Table, load};
use serde::de::DeserializeOwned;

use super::archive::{
    Counter, DATA, DATABASE, FORMAT, HEADER, Header, IDENTITY, MANIFEST, Manifest, SETTINGS, TABLE,
    below,
};
use super::keys::OpenFailure;
use super::{BackupError, KeyError, Opener};

/// The largest piece that is held in memory: rows of a table, or the manifest.
const PIECE_BYTES_MAX: u64 = 256 << 20;
/// How every file in age's format begins.
const MAGIC: &[u8] = b"age-encryption.org/v1";
/// Where settings from elsewhere are put in the data directory.
pub(super) const RESTORED_SETTINGS: &str = "restored-settings";

type Input = age::stream::StreamReader<BufReader<File>>;

/// A reader with two holders: the archive, and who makes sure that it was read to its end.
#[derive(Clone)]
struct Shared(Rc<RefCell<GzDecoder<BufReader<Input>>>>);

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(into)
    }
}

/// A backup that was opened.
pub(super) struct Opened {
    path: PathBuf,
    input: Shared,
    archive: tar::Archive<Shared>,
}

/// Where the parts of a backup go.
pub(super) struct Places<'p> {
    /// An empty directory for the files.
    pub(super) data: &'p Path,
    /// URL of the database; without it a file among the others.
    pub(super) database: Option<&'p str>,
    /// Whether files that make the node this node are wanted.
    pub(super) identity: bool,
}

/// Opens a backup.
pub(super) fn open(path: &Path, opener: &Opener) -> Result<Opened, BackupError> {
    let file = File::open(path).map_err(BackupError::read(path))?;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let head = file.fill_buf().map_err(BackupError::read(path))?;
    let known = head.len().min(MAGIC.len());
    if head.is_empty() || head[..known] != MAGIC[..known] {
        return Err(KeyError::NoBackup("it is not in age's format".to_owned()).into());
    }
    let opened = opener.open(file);
    let opened = opened.map_err(|failure| match failure {
        OpenFailure::Key(error) => BackupError::Key(error),
        OpenFailure::Damaged(detail) => BackupError::damaged(path, detail),
        OpenFailure::Io(error) => BackupError::read(path)(error),
    })?;
    let input = GzDecoder::new(BufReader::with_capacity(1 << 18, opened));
    let input = Shared(Rc::new(RefCell::new(input)));
    Ok(Opened {
        path: path.to_owned(),
        archive: tar::Archive::new(input.clone()),
        input,
    })
}

type Entry<'a> = tar::Entry<'a, Shared>;

impl Opened {
    /// Puts everything where it belongs. When this fails the places hold nothing of use.
    pub(super) fn unpack(
        mut self,
        places: &Places<'_>,
    ) -> Result<(Header, Manifest, Database), BackupError> {
        let path = self.path.clone();
        let mut entries = self.archive.entries().map_err(broken(&path))?;
        let header = header(&path, entries.next())?;
        let database = match places.database {
            Some(url) => Database::Url(url.to_owned()),
            None => {
                let file = below(&header.database_file);
                let bad = || BackupError::damaged(&path, "its database belongs nowhere");
                let file = places.data.join(file.ok_or_else(bad)?);
                make_parent(&file)?;
                Database::File(file)
            }
        };
        let mut unpacking = Unpacking {
            path: &path,
            places,
            seen: Manifest::default(),
            table: None,
            names: HashSet::new(),
            manifest: None,
        };
        let mut input = self.input.clone();
        let mut next = || -> Result<Option<Loaded>, BackupError> {
            for entry in entries.by_ref() {
                let entry = entry.map_err(broken(&path))?;
                if let Some(piece) = unpacking.entry(entry)? {
                    return Ok(Some(piece));
                }
            }
            // The end is sealed as well: a backup that was cut is noticed here at the latest.
            std::io::copy(&mut input, &mut std::io::sink()).map_err(broken(&path))?;
            unpacking.check()?;
            Ok(None)
        };
        let mut next = || next().map_err(|error| -> Other { Box::new(error) });
        match load(&database, header.schema_version, &mut next) {
            Ok(()) => {}
            Err(DumpError::Other(error)) => {
                return Err(match error.downcast::<BackupError>() {
                    Ok(own) => *own,
                    Err(other) => BackupError::damaged(&path, other.to_string()),
                });
            }
            Err(DumpError::Damaged(detail)) => return Err(BackupError::damaged(&path, detail)),
            Err(error) => return Err(error.into()),
        }
        let manifest = unpacking.manifest.unwrap_or_default();
        Ok((header, manifest, database))
    }
}

/// The first entry, which says whether the rest can be read.
fn header(path: &Path, first: Option<std::io::Result<Entry<'_>>>) -> Result<Header, BackupError> {
    let first = first.ok_or_else(|| BackupError::damaged(path, "it is empty"))?;
    let first = first.map_err(broken(path))?;
    if first.path_bytes()[..] != *HEADER.as_bytes() {
        return Err(BackupError::damaged(
            path,
            format!("{HEADER} is not its first entry"),
        ));
    }
    // A newer format may have another header: these two stay what they are.
    #[derive(serde::Deserialize)]
    struct Always {
        format: u32,
        #[serde(default)]
        made_by: String,
    }
    let text = bytes(path, first)?;
    let bad = |error: serde_json::Error| BackupError::damaged(path, format!("{HEADER}: {error}"));
    let always: Always = serde_json::from_slice(&text).map_err(bad)?;
    if always.format > FORMAT {
        return Err(BackupError::TooNew {
            path: path.to_owned(),
            found: always.format,
            known: FORMAT,
            made_by: always.made_by,
        });
    }
    serde_json::from_slice(&text).map_err(bad)
}

/// A backup on its way to its places.
struct Unpacking<'u> {
    path: &'u Path,
    places: &'u Places<'u>,
    seen: Manifest,
    table: Option<Counter>,
    names: HashSet<String>,
    manifest: Option<Manifest>,
}

impl Unpacking<'_> {
    fn damaged(&self, detail: impl Into<String>) -> BackupError {
        BackupError::damaged(self.path, detail)
    }

    /// Takes one entry; a piece of the database goes on to it.
    fn entry(&mut self, entry: Entry<'_>) -> Result<Option<Loaded>, BackupError> {
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| self.damaged("a name in it is not text"))?;
        if self.manifest.is_some() {
            return Err(self.damaged(format!("{name:?} comes after its end")));
        }
        if entry.header().entry_type() != tar::EntryType::Regular || below(&name).is_none() {
            return Err(self.damaged(format!("{name:?} is not a file below it")));
        }
        if !self.names.insert(name.clone()) {
            return Err(self.damaged(format!("{name:?} is in it twice")));
        }
        match name.split_once('/') {
            None if name == MANIFEST => {
                self.end_table();
                self.manifest = Some(self.json(&name, entry)?);
                Ok(None)
            }
            Some((DATABASE, rest)) => self.database(&name, rest, entry).map(Some),
            Some((place @ (DATA | IDENTITY | SETTINGS), rest)) => {
                self.end_table();
                let into = match place {
                    DATA => Some(self.places.data.join(rest)),
                    IDENTITY if self.places.identity => Some(self.places.data.join(rest)),
                    IDENTITY => None,
                    _ => Some(self.places.data.join(RESTORED_SETTINGS).join(rest)),
                };
                self.file(name, into, entry)?;
                Ok(None)
            }
            _ => Err(self.damaged(format!("{name:?} is nothing that this build knows"))),
        }
    }

    fn database(
        &mut self,
        name: &str,
        rest: &str,
        entry: Entry<'_>,
    ) -> Result<Loaded, BackupError> {
        let Some((table, part)) = rest.split_once('/') else {
            return Err(self.damaged(format!("{name:?} is nothing that this build knows")));
        };
        if part == TABLE {
            self.end_table();
            let read: Table = self.json(name, entry)?;
            if read.name != table {
                return Err(self.damaged(format!("{name:?} names another table")));
            }
            self.table = Some(Counter::new(read.name.clone()));
            return Ok(Loaded::Table(read));
        }
        let lines = bytes(self.path, entry)?;
        let rows = lines.iter().filter(|byte| **byte == b'\n').count();
        match &mut self.table {
            Some(counter) if name.starts_with(&format!("{DATABASE}/{}/", counter.name())) => {
                counter.add(rows as u64, &lines);
                Ok(Loaded::Rows(lines))
            }
            _ => Err(self.damaged(format!("{name:?} is not in its table"))),
        }
    }

    fn file(
        &mut self,
        name: String,
        into: Option<PathBuf>,
        mut entry: Entry<'_>,
    ) -> Result<(), BackupError> {
        let mode = entry.header().mode().unwrap_or(0o600) & 0o755;
        let mut out: Box<dyn Write> = match &into {
            None => Box::new(std::io::sink()),
            Some(path) => {
                make_parent(path)?;
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(mode).open(path);
                Box::new(file.map_err(BackupError::write(path))?)
            }
        };
        let mut counter = Counter::new(name);
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = entry.read(&mut buffer).map_err(broken(self.path))?;
            if read == 0 {
                break;
            }
            counter.add(read as u64, &buffer[..read]);
            let written = out.write_all(&buffer[..read]);
            written.map_err(BackupError::write(into.as_deref().unwrap_or(self.path)))?;
        }
        drop(out);
        if let Some(path) = &into {
            let synced = File::open(path).and_then(|file| file.sync_all());
            synced.map_err(BackupError::write(path))?;
        }
        self.seen.files.push(counter.end());
        Ok(())
    }

    fn end_table(&mut self) {
        self.seen.tables.extend(self.table.take().map(Counter::end));
    }

    /// Whether all that the manifest names has come, and nothing else.
    fn check(&self) -> Result<(), BackupError> {
        let Some(manifest) = &self.manifest else {
            return Err(self.damaged(format!("{MANIFEST} is missing at its end")));
        };
        for (seen, wanted) in [
            (&self.seen.tables, &manifest.tables),
            (&self.seen.files, &manifest.files),
        ] {
            if let Some(other) = wanted.iter().find(|it| !seen.contains(it)) {
                return Err(self.damaged(format!("{} is not as it was written", other.name)));
            }
            if let Some(other) = seen.iter().find(|it| !wanted.contains(it)) {
                return Err(self.damaged(format!("{} was not written with it", other.name)));
            }
        }
        Ok(())
    }

    fn json<T: DeserializeOwned>(&self, name: &str, entry: Entry<'_>) -> Result<T, BackupError> {
        let text = bytes(self.path, entry)?;
        serde_json::from_slice(&text).map_err(|error| self.damaged(format!("{name}: {error}")))
    }
}

fn make_parent(path: &Path) -> Result<(), BackupError> {
    let parent = super::create::parent(path);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent);
    made.map_err(BackupError::write(parent))
}

/// All of an entry that has to fit into memory.
fn bytes(path: &Path, entry: Entry<'_>) -> Result<Vec<u8>, BackupError> {
    let size = entry.size();
    if size > PIECE_BYTES_MAX {
        return Err(BackupError::damaged(
            path,
            format!("a piece of {size} bytes is in it"),
        ));
    }
    let mut text = Vec::new();
    entry
        .take(PIECE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(broken(path))?;
    Ok(text)
}

/// What an error while reading means: age notices every changed byte and a missing end.
fn broken(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |error| match error.raw_os_error() {
        Some(_) => BackupError::read(&path)(error),
        None => BackupError::damaged(
            &path,
            format!("it is cut short or was changed after it was written ({error})"),
        ),
    }
}
