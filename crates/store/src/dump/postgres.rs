//! Dump and load of a PostgreSQL database.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream as _;
use futures_util::SinkExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink};
use tokio_util::task::TaskTracker;

use super::bare::Bare;
use super::beside::{Pieces, beside};
use super::line::{self, Cell};
use super::{Chunks, Column, ColumnKind, DumpError, Known, Loaded, Other, Piece, Table};
use super::{fitting, kind, order, quoted};
use crate::OpenError;
use crate::postgres::address::Address;
use crate::postgres::dial::Dialler;
use crate::postgres::{Session, migrations, told};

impl From<tokio_postgres::Error> for DumpError {
    fn from(error: tokio_postgres::Error) -> DumpError {
        DumpError::Engine(told(&error))
    }
}

/// Runs `work` with a connection of its own, on this thread.
fn with_session<T>(
    url: &str,
    work: impl AsyncFnOnce(Session, String) -> Result<T, DumpError>,
) -> Result<T, DumpError> {
    let address = Address::parse(url).map_err(OpenError::Address)?;
    let shown = address.shown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DumpError::Engine(error.to_string()))?;
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let dialler = Arc::new(Dialler::new(address, tasks.clone())?);
        let session = dialler.connect().await?;
        let outcome = work(session, shown).await;
        drop(dialler);
        tasks.close();
        tasks.wait().await;
        outcome
    })
}

pub(super) fn dump(
    url: &str,
    sink: &mut dyn FnMut(Piece<'_>) -> Result<(), Other>,
) -> Result<(), DumpError> {
    with_session(url, async |session, shown| {
        let client = &session.client;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await?;
        let there = migrations::found(client).await?;
        let Some(version) = there else {
            let detail = "there are no tables of a control plane in it".to_owned();
            return Err(OpenError::Engine {
                database: shown,
                detail,
            }
            .into());
        };
        if version > migrations::known() {
            return Err(OpenError::TooNew {
                database: shown,
                found: version,
                known: migrations::known(),
            }
            .into());
        }
        let mut chunks = Chunks::new(sink);
        chunks.begin(Piece::Schema(version))?;
        for known in tables(client).await? {
            chunks.begin(Piece::Table(&known.table))?;
            rows(client, &known, &mut chunks).await?;
        }
        chunks.flush()
    })
}

async fn rows(client: &Client, known: &Known, chunks: &mut Chunks<'_>) -> Result<(), DumpError> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = client.query_raw(&known.select(), none).await?;
    let mut rows = pin!(rows);
    while let Some(row) = std::future::poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        let row = row?;
        let line = &mut chunks.lines;
        for (at, column) in known.table.columns.iter().enumerate() {
            line.push(if at == 0 { b'[' } else { b',' });
            let there = match column.kind {
                ColumnKind::Int => {
                    let number: Option<i64> = row.try_get(at)?;
                    number.map(|number| line::push_int(line, number))
                }
                ColumnKind::Text => {
                    let text: Option<&str> = row.try_get(at)?;
                    text.map(|text| line::push_text(line, text))
                }
                ColumnKind::Bytes => {
                    let bytes: Option<&[u8]> = row.try_get(at)?;
                    bytes.map(|bytes| line::push_bytes(line, bytes))
                }
            };
            if there.is_none() {
                line.extend_from_slice(b"null");
            }
        }
        line.push(b']');
        chunks.end_line()?;
    }
    Ok(())
}

async fn tables(client: &Client) -> Result<Vec<Known>, DumpError> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let columns = "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
          AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'schema_version'
        ORDER BY c.relname, a.attnum";
    for row in client.query(columns, &[]).await? {
        let (table, column, declared): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let kind = kind(&table, &column, &declared)?;
        let known = known.entry(table.clone()).or_insert_with(|| Known {
            table: Table {
                name: table,
                columns: Vec::new(),
            },
            key: Vec::new(),
            refers: Vec::new(),
        });
        known.table.columns.push(Column { name: column, kind });
    }
    let keys = "SELECT c.relname::text, a.attname::text
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, at)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indisprimary AND c.relnamespace = current_schema()::regnamespace
        ORDER BY c.relname, k.at";
    for row in client.query(keys, &[]).await? {
        if let Some(known) = known.get_mut(row.get::<_, &str>(0)) {
            known.key.push(row.get(1));
        }
    }
    let references = "SELECT DISTINCT c.relname::text, f.relname::text
        FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
        JOIN pg_class f ON f.oid = o.confrelid
        WHERE o.contype = 'f' AND c.relnamespace = current_schema()::regnamespace";
    for row in client.query(references, &[]).await? {
        if let Some(known) = known.get_mut(row.get::<_, &str>(0)) {
            known.refers.push(row.get(1));
        }
    }
    let tables = known.into_values().map(|mut known| {
        if known.key.is_empty() {
            let columns = known.table.columns.iter();
            known.key = columns.map(|column| column.name.clone()).collect();
        }
        known
    });
    Ok(order::by_reference(tables.collect()))
}

pub(super) fn load(
    url: &str,
    version: i64,
    next: &mut dyn FnMut() -> Result<Option<Loaded>, Other>,
) -> Result<(), DumpError> {
    if version > migrations::known() {
        return Err(DumpError::TooNew {
            found: version,
            known: migrations::known(),
        });
    }
    beside(next, |pieces| {
        with_session(url, async |session, shown| {
            write(session, shown, version, pieces).await
        })
    })
}

async fn write(
    mut session: Session,
    shown: String,
    version: i64,
    mut pieces: Pieces,
) -> Result<(), DumpError> {
    let client = &session.client;
    client.batch_execute("BEGIN").await?;
    migrations::lock(client).await?;
    let there = "SELECT 1 FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace = current_schema()::regnamespace LIMIT 1";
    if client.query_opt(there, &[]).await?.is_some() {
        return Err(DumpError::NotEmpty(shown));
    }
    migrations::make(client, version).await?;
    let known = tables(client).await?;
    let bare = Bare::strip(client).await?;
    let mut copy: Option<Copy> = None;
    while let Some(piece) = pieces.next().await? {
        match piece {
            Loaded::Table(table) => {
                if let Some(copy) = copy.take() {
                    copy.end().await?;
                }
                fitting(&known, &table)?;
                copy = Some(Copy::begin(client, &table).await?);
            }
            Loaded::Rows(lines) => {
                let no_table = || DumpError::Damaged("there are rows of no table".to_owned());
                copy.as_mut().ok_or_else(no_table)?.rows(&lines).await?;
            }
        }
    }
    if let Some(copy) = copy.take() {
        copy.end().await?;
    }
    // Before references are checked: how that is done depends on how many rows there are.
    client.batch_execute("ANALYZE").await?;
    bare.dress(client).await?;
    count_on(client).await?;
    client.batch_execute("COMMIT").await?;
    migrations::migrate(&mut session, &shown).await?;
    Ok(())
}

/// Lets numbers that the database gives out go on after those that were loaded.
async fn count_on(client: &Client) -> Result<(), DumpError> {
    let identities = "SELECT c.relname::text, a.attname::text
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND a.attidentity <> ''";
    for row in client.query(identities, &[]).await? {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let (table, quoted_column) = (quoted(&table), quoted(&column));
        let set = format!(
            "SELECT setval(pg_get_serial_sequence($1, $2), max({quoted_column})) FROM {table}
             HAVING max({quoted_column}) IS NOT NULL"
        );
        client.query(&set, &[&table, &column]).await?;
    }
    Ok(())
}

/// Rows on their way into a table.
struct Copy {
    sink: std::pin::Pin<Box<CopyInSink<Bytes>>>,
    kinds: Vec<ColumnKind>,
}

impl Copy {
    async fn begin(client: &Client, table: &Table) -> Result<Copy, DumpError> {
        let columns: Vec<String> = table.columns.iter().map(|it| quoted(&it.name)).collect();
        let sql = format!(
            "COPY {} ({}) FROM STDIN",
            quoted(&table.name),
            columns.join(", ")
        );
        Ok(Copy {
            sink: Box::pin(client.copy_in(&sql).await?),
            kinds: table.columns.iter().map(|column| column.kind).collect(),
        })
    }

    async fn rows(&mut self, lines: &[u8]) -> Result<(), DumpError> {
        let mut text = Vec::with_capacity(lines.len());
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|it| !it.is_empty())
        {
            for (at, cell) in line::cells(line, &self.kinds)?.iter().enumerate() {
                if at > 0 {
                    text.push(b'\t');
                }
                push_copied(&mut text, cell);
            }
            text.push(b'\n');
        }
        Ok(self.sink.send(Bytes::from(text)).await?)
    }

    async fn end(mut self) -> Result<(), DumpError> {
        self.sink.as_mut().finish().await?;
        Ok(())
    }
}

/// A value in the text form of `COPY`.
fn push_copied(text: &mut Vec<u8>, cell: &Cell<'_>) {
    match cell {
        Cell::Null => text.extend_from_slice(b"\\N"),
        Cell::Int(number) => line::push_int(text, *number),
        Cell::Text(value) => {
            for byte in value.bytes() {
                match byte {
                    b'\\' => text.extend_from_slice(b"\\\\"),
                    b'\n' => text.extend_from_slice(b"\\n"),
                    b'\r' => text.extend_from_slice(b"\\r"),
                    b'\t' => text.extend_from_slice(b"\\t"),
                    other => text.push(other),
                }
            }
        }
        Cell::Bytes(bytes) => {
            text.extend_from_slice(b"\\\\x");
            line::push_hex(text, bytes);
        }
    }
}

pub(super) fn size_bytes(url: &str) -> Result<u64, DumpError> {
    with_session(url, async |session, _| {
        let size = "SELECT pg_database_size(current_database())";
        let size: i64 = session.client.query_one(size, &[]).await?.get(0);
        Ok(u64::try_from(size).unwrap_or(0))
    })
}
