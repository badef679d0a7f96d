//! The archive inside a backup: what stands in it, and how it is written.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use age::stream::StreamWriter;
use flate2::Compression;
use flate2::write::GzEncoder;
use sallyport_store::dump::Table;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BackupError, Seal};

/// The format of archives that this build writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// The first entry.
pub(super) const HEADER: &str = "sallyport-backup.json";
/// The last one.
pub(super) const MANIFEST: &str = "manifest.json";
/// Below it stands the database, a directory for each table.
pub(super) const DATABASE: &str = "database";
/// Names the columns of a table.
pub(super) const TABLE: &str = "table.json";
/// Below it stand the files of the data directory.
pub(super) const DATA: &str = "data";
/// Below it stand files of the data directory that make the node this node.
pub(super) const IDENTITY: &str = "identity";
/// Below it stand settings from elsewhere.
pub(super) const SETTINGS: &str = "settings";

/// The first entry of an archive: what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of the archive.
    pub format: u32,
    /// The version of the program that wrote it.
    pub made_by: String,
    /// When, RFC 3339, UTC.
    pub made_at: String,
    /// The node that wrote it.
    pub node: String,
    /// The engine of its database.
    pub engine: String,
    /// The schema version of its database.
    pub schema_version: i64,
    /// Where a SQLite database belongs, below the data directory.
    #[serde(default = "store_file")]
    pub database_file: String,
}

fn store_file() -> String {
    "store.sqlite".to_owned()
}

/// How much of something there is, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Name of a table, or path in the archive.
    pub name: String,
    /// Rows of a table, bytes of a file.
    pub count: u64,
    /// SHA-256 over its lines or bytes, hexadecimal.
    pub sha256: String,
}

/// A file from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsFile {
    /// Its path in the archive.
    pub name: String,
    /// Where it was.
    pub was: PathBuf,
}

/// The last entry of an archive: what must have been in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Tables, in the order of the archive.
    pub tables: Vec<Counted>,
    /// Files, in the order of the archive.
    pub files: Vec<Counted>,
    /// Where settings were.
    pub settings: Vec<SettingsFile>,
}

impl Manifest {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.count).sum()
    }
}

/// Counts what goes by, and its digest.
pub(super) struct Counter {
    name: String,
    count: u64,
    digest: Sha256,
}

impl Counter {
    pub(super) fn new(name: String) -> Counter {
        Counter {
            name,
            count: 0,
            digest: Sha256::new(),
        }
    }

    pub(super) fn add(&mut self, count: u64, bytes: &[u8]) {
        self.count += count;
        self.digest.update(bytes);
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn end(self) -> Counted {
        let digest = self.digest.finalize();
        Counted {
            name: self.name,
            count: self.count,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Writes an archive, compressed and sealed.
pub(super) struct Writer<W: Write> {
    tar: tar::Builder<GzEncoder<StreamWriter<W>>>,
    manifest: Manifest,
    table: Option<Counter>,
    chunk: u32,
    made_at_s: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, seal: &Seal, made_at_s: u64) -> std::io::Result<Writer<W>> {
        let sealed = seal.encryptor().wrap_output(out)?;
        Ok(Writer {
            // The text of the database compresses well; more effort gains little.
            tar: tar::Builder::new(GzEncoder::new(sealed, Compression::fast())),
            manifest: Manifest::default(),
            table: None,
            chunk: 0,
            made_at_s,
        })
    }

    pub(super) fn header(&mut self, header: &Header) -> std::io::Result<()> {
        self.json(HEADER, header)
    }

    /// A table begins.
    pub(super) fn table(&mut self, table: &Table) -> std::io::Result<()> {
        self.end_table();
        let directory = format!("{DATABASE}/{}", table.name);
        self.json(&format!("{directory}/{TABLE}"), table)?;
        self.table = Some(Counter::new(table.name.clone()));
        self.chunk = 0;
        Ok(())
    }

    /// Rows of the table that has begun.
    pub(super) fn rows(&mut self, rows: u64, lines: &[u8]) -> std::io::Result<()> {
        let table = self.table.as_mut().expect("rows come after their table");
        table.add(rows, lines);
        self.chunk += 1;
        let path = format!("{DATABASE}/{}/{:06}.jsonl", table.name, self.chunk);
        self.entry(&path, 0o600, lines.len() as u64, lines)
    }

    fn end_table(&mut self) {
        self.manifest
            .tables
            .extend(self.table.take().map(Counter::end));
    }

    /// A file of `size` bytes; what the reader has beyond them is left out.
    pub(super) fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        mut from: impl Read,
    ) -> std::io::Result<()> {
        self.end_table();
        let mut counter = Counter::new(path.to_owned());
        let counting = Counting {
            from: &mut from,
            left: size,
            counter: &mut counter,
        };
        self.entry(path, mode, size, counting)?;
        self.manifest.files.push(counter.end());
        Ok(())
    }

    /// Notes where the file that was written last comes from.
    pub(super) fn was(&mut self, path: &Path) {
        if let Some(file) = self.manifest.files.last() {
            self.manifest.settings.push(SettingsFile {
                name: file.name.clone(),
                was: path.to_owned(),
            });
        }
    }

    /// Writes the manifest and ends everything; what is below, and what was in the archive.
    pub(super) fn finish(mut self) -> std::io::Result<(W, Manifest)> {
        self.end_table();
        let manifest = std::mem::take(&mut self.manifest);
        self.json(MANIFEST, &manifest)?;
        let out = self.tar.into_inner()?.finish()?.finish()?;
        Ok((out, manifest))
    }

    fn json(&mut self, path: &str, value: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.entry(path, 0o600, text.len() as u64, &text[..])
    }

    fn entry(&mut self, path: &str, mode: u32, size: u64, from: impl Read) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_mtime(self.made_at_s);
        header.set_size(size);
        self.tar.append_data(&mut header, path, from)
    }
}

/// Reads exactly so many bytes, and counts them.
struct Counting<'c, R> {
    from: &'c mut R,
    left: u64,
    counter: &'c mut Counter,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut into[..most])?;
        if read == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the file has become shorter while it was read; try again",
            ));
        }
        self.counter.add(read as u64, &into[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}

/// A path of the archive in words of the operating system, if it stays below its root.
pub(super) fn below(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    (path.components().all(normal) && path.components().next().is_some()).then_some(path)
}

impl BackupError {
    pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> BackupError {
        BackupError::Damaged {
            path: path.to_owned(),
            detail: detail.into(),
        }
    }
}
