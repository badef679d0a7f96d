//! Dump and load of a SQLite file.

use std::fs::File;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::beside::{Pieces, beside};
use super::line::{self, Cell};
use super::{Chunks, Column, ColumnKind, DumpError, Known, Loaded, Other, Piece, Table};
use super::{fitting, kind, order, quoted, shown};
use crate::OpenError;
use crate::sqlite::{migrations, reader};

impl From<rusqlite::Error> for DumpError {
    fn from(error: rusqlite::Error) -> DumpError {
        DumpError::Engine(error.to_string())
    }
}

/// Opens a file that is there, to read it beside whoever writes it.
fn open(path: &Path) -> Result<Connection, DumpError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    File::open(path).map_err(io)?;
    let unusable = |error: rusqlite::Error| OpenError::Engine {
        database: shown(path),
        detail: error.to_string(),
    };
    let conn = reader(path).map_err(unusable)?;
    conn.execute_batch("BEGIN").map_err(unusable)?;
    // The state that is read is fixed by the first statement.
    migrations::found(&conn).map_err(unusable)?;
    Ok(conn)
}

pub(super) fn dump(
    path: &Path,
    sink: &mut dyn FnMut(Piece<'_>) -> Result<(), Other>,
) -> Result<(), DumpError> {
    let conn = open(path)?;
    let version = migrations::found(&conn)?;
    if version > migrations::known() {
        return Err(OpenError::TooNew {
            database: shown(path),
            found: version,
            known: migrations::known(),
        }
        .into());
    }
    let mut chunks = Chunks::new(sink);
    chunks.begin(Piece::Schema(version))?;
    for known in tables(&conn)? {
        chunks.begin(Piece::Table(&known.table))?;
        rows(&conn, &known, &mut chunks)?;
    }
    chunks.flush()
}

fn rows(conn: &Connection, known: &Known, chunks: &mut Chunks<'_>) -> Result<(), DumpError> {
    let mut statement = conn.prepare(&known.select())?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line = &mut chunks.lines;
        for (at, column) in known.table.columns.iter().enumerate() {
            line.push(if at == 0 { b'[' } else { b',' });
            match (row.get_ref(at)?, column.kind) {
                (ValueRef::Null, _) => line.extend_from_slice(b"null"),
                (ValueRef::Integer(number), ColumnKind::Int) => line::push_int(line, number),
                (ValueRef::Text(text), ColumnKind::Text) => {
                    let text = std::str::from_utf8(text);
                    let bad = |_| damaged(&known.table.name, column, "text that is no UTF-8");
                    line::push_text(line, text.map_err(bad)?);
                }
                (ValueRef::Blob(bytes), ColumnKind::Bytes) => line::push_bytes(line, bytes),
                (other, _) => {
                    let found = format!("{:?}", other.data_type());
                    return Err(damaged(&known.table.name, column, &found));
                }
            }
        }
        line.push(b']');
        chunks.end_line()?;
    }
    Ok(())
}

fn damaged(table: &str, column: &Column, found: &str) -> DumpError {
    DumpError::Damaged(format!(
        "column {} of table {table} is to hold {:?} and holds {found}",
        column.name, column.kind
    ))
}

fn tables(conn: &Connection) -> Result<Vec<Known>, DumpError> {
    let names: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let known = names.into_iter().map(|name| table(conn, name));
    Ok(order::by_reference(known.collect::<Result<_, _>>()?))
}

fn table(conn: &Connection, name: String) -> Result<Known, DumpError> {
    let declared: Vec<(String, String, i64)> = conn
        .prepare("SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid")?
        .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let refers: Vec<String> = conn
        .prepare("SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)")?
        .query_map([&name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut columns = Vec::with_capacity(declared.len());
    for (column, declared, _) in &declared {
        columns.push(Column {
            name: column.clone(),
            kind: kind(&name, column, declared)?,
        });
    }
    let mut key: Vec<(i64, String)> = declared
        .iter()
        .filter(|(_, _, pk)| *pk > 0)
        .map(|(column, _, pk)| (*pk, column.clone()))
        .collect();
    key.sort();
    let mut key: Vec<String> = key.into_iter().map(|(_, column)| column).collect();
    if key.is_empty() {
        key = columns.iter().map(|column| column.name.clone()).collect();
    }
    Ok(Known {
        table: Table { name, columns },
        key,
        refers,
    })
}

pub(super) fn load(
    path: &Path,
    version: i64,
    next: &mut dyn FnMut() -> Result<Option<Loaded>, Other>,
) -> Result<(), DumpError> {
    if version > migrations::known() {
        return Err(DumpError::TooNew {
            found: version,
            known: migrations::known(),
        });
    }
    if path.exists() {
        return Err(DumpError::NotEmpty(shown(path)));
    }
    beside(next, |pieces| write(path, version, pieces))
}

fn write(path: &Path, version: i64, mut pieces: Pieces) -> Result<(), DumpError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    crate::sqlite::private_file(path).map_err(io)?;
    let mut conn = Connection::open(path)?;
    // Nothing is lost with a file that is thrown away when this fails; it is synced at the end.
    conn.pragma_update(None, "journal_mode", "OFF")?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "foreign_keys", "OFF")?;
    conn.pragma_update(None, "cache_size", -256 * 1024)?;
    migrations::migrate_to(&mut conn, &shown(path), version)?;
    let known = tables(&conn)?;
    // An index that is made of all rows at once costs a fraction of one that grows row by row.
    let indexes = strip(&conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut insert: Option<(rusqlite::Statement<'_>, Vec<ColumnKind>)> = None;
    while let Some(piece) = pieces.wait()? {
        match piece {
            Loaded::Table(table) => {
                fitting(&known, &table)?;
                let sql = insert_into(&table);
                let kinds = table.columns.iter().map(|column| column.kind).collect();
                insert = Some((tx.prepare(&sql)?, kinds));
            }
            Loaded::Rows(lines) => {
                let (statement, kinds) = insert
                    .as_mut()
                    .ok_or_else(|| DumpError::Damaged("there are rows of no table".to_owned()))?;
                for line in lines
                    .split(|byte| *byte == b'\n')
                    .filter(|it| !it.is_empty())
                {
                    let cells = line::cells(line, kinds)?;
                    statement.execute(params_from_iter(cells.iter()))?;
                }
            }
        }
    }
    drop(insert);
    for make in &indexes {
        tx.execute_batch(make)?;
    }
    tx.commit()?;
    let broken: Option<String> = {
        let mut check = conn.prepare("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1")?;
        let mut rows = check.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if let Some(table) = broken {
        return Err(DumpError::Damaged(format!(
            "a row of table {table} refers to one that is not there"
        )));
    }
    drop(conn);
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(io)?;
    // Opens as the store does, in its journal mode, and moves the schema on.
    crate::sqlite::Engine::open(path)?;
    Ok(())
}

/// Takes the indexes that belong to no key, as the statements that make them again.
fn strip(conn: &Connection) -> Result<Vec<String>, DumpError> {
    let found = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let indexes: Vec<(String, String)> = conn
        .prepare(found)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, _) in &indexes {
        conn.execute_batch(&format!("DROP INDEX {}", quoted(name)))?;
    }
    Ok(indexes.into_iter().map(|(_, make)| make).collect())
}

fn insert_into(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|it| quoted(&it.name)).collect();
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({})",
        quoted(&table.name),
        columns.join(", "),
        places.join(", ")
    )
}

impl rusqlite::ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ToSqlOutput;
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(*number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn size_bytes(path: &Path) -> u64 {
    let log = {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        std::path::PathBuf::from(name)
    };
    let size = |path: &Path| path.metadata().map_or(0, |it| it.len());
    size(path) + size(&log)
}

/// Copies a SQLite file as it is at one moment, whoever writes to it meanwhile.
///
/// `to` must not be there; it is made readable by its owner only and is synced.
///
/// # Errors
/// The file is none of SQLite, or `to` cannot be written.
pub fn snapshot_file(from: &Path, to: &Path) -> Result<(), DumpError> {
    let io = |source| OpenError::Io {
        path: to.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(from, flags)?;
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    crate::sqlite::private_file(to).map_err(io)?;
    let name = to
        .to_str()
        .ok_or_else(|| DumpError::Engine(format!("the path {} is no text", to.display())))?;
    conn.execute("VACUUM INTO ?1", [name])?;
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(io)?;
    Ok(())
}
