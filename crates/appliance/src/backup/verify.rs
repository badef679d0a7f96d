//! Whether a backup can be restored: by restoring it into an instance that is thrown away.

use std::path::Path;

use sallyport_store::dump::{Database, Piece, dump};

use super::archive::{Counted, Counter, Header, Manifest};
use super::unpack::{self, Places};
use super::{BackupError, Opener};

/// A backup that can be restored.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it is.
    pub header: Header,
    /// What is in it: all of it came out again with these counts and digests.
    pub manifest: Manifest,
}

/// Restores a backup into a temporary directory below `scratch`, dumps the database there again and
/// compares all counts and digests; then `check` may look at that data directory, with the node's
/// identity in it, before it is gone.
///
/// # Errors
/// See [`BackupError`]; an error of `check` means that the backup is damaged.
pub fn verify(
    path: &Path,
    opener: &Opener,
    scratch: &Path,
    check: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<Verified, BackupError> {
    let opened = unpack::open(path, opener)?;
    let scratch = tempfile::Builder::new()
        .prefix("sallyport-verify-")
        .tempdir_in(scratch)
        .map_err(BackupError::write(scratch))?;
    let places = Places {
        data: scratch.path(),
        database: None,
        identity: true,
    };
    let (header, manifest, database) = opened.unpack(&places)?;
    // An older schema was moved on by the restore, and is not the same any more.
    if let Some(again) = counted(&database, header.schema_version)? {
        compare(&manifest.tables, &again)?;
    }
    check(scratch.path()).map_err(|detail| BackupError::damaged(path, detail))?;
    Ok(Verified { header, manifest })
}

/// The tables of a database, if it has this schema version.
fn counted(database: &Database, version: i64) -> Result<Option<Vec<Counted>>, BackupError> {
    let (mut tables, mut table, mut same) = (Vec::new(), None::<Counter>, false);
    dump(database, &mut |piece| {
        match piece {
            Piece::Schema(found) => same = found == version,
            Piece::Table(next) => {
                tables.extend(table.take().map(Counter::end));
                table = Some(Counter::new(next.name.clone()));
            }
            Piece::Rows { lines, rows } => {
                if let Some(table) = &mut table {
                    table.add(rows, lines);
                }
            }
        }
        Ok(())
    })?;
    tables.extend(table.take().map(Counter::end));
    Ok(same.then_some(tables))
}

fn compare(wanted: &[Counted], found: &[Counted]) -> Result<(), BackupError> {
    for wanted in wanted {
        let detail = match found.iter().find(|it| it.name == wanted.name) {
            Some(found) if found == wanted => continue,
            Some(found) if found.count != wanted.count => {
                format!("{} rows instead of {}", found.count, wanted.count)
            }
            Some(_) => "rows have other values".to_owned(),
            None => "it is missing".to_owned(),
        };
        return Err(BackupError::Differs {
            table: wanted.name.clone(),
            detail,
        });
    }
    Ok(())
}
