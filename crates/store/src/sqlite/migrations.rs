//! The schema, forward only.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::OpenError;
use crate::sql::index_key;

/// What SQL alone cannot do.
type Code = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// Step n leads from schema version n to n + 1, by SQL and then by code.
const STEPS: &[(&str, Code)] = &[
    (
        include_str!("../../migrations/sqlite/0001_tables.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../migrations/sqlite/0002_history.sql"),
        shorten_index_values,
    ),
    (
        include_str!("../../migrations/sqlite/0003_cluster.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../migrations/sqlite/0004_identity.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../migrations/sqlite/0005_nodes.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../migrations/sqlite/0006_ip_addresses.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../migrations/sqlite/0007_cluster_keys.sql"),
        |_| Ok(()),
    ),
];

/// The newest schema version of this build.
pub(crate) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The schema version of a file; 0 if it is new.
pub(crate) fn found(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the schema up to date, one transaction a step.
pub(super) fn migrate(conn: &mut Connection, database: &str) -> Result<(), OpenError> {
    migrate_to(conn, database, known())
}

/// Brings the schema up to a version that this build knows, unless it is there already.
pub(crate) fn migrate_to(
    conn: &mut Connection,
    database: &str,
    version: i64,
) -> Result<(), OpenError> {
    let engine = |error: rusqlite::Error| OpenError::Engine {
        database: database.to_owned(),
        detail: error.to_string(),
    };
    let found = found(conn).map_err(engine)?;
    let done = usize::try_from(found).ok().filter(|_| found <= known());
    let Some(done) = done else {
        return Err(OpenError::TooNew {
            database: database.to_owned(),
            found,
            known: known(),
        });
    };
    let wanted = usize::try_from(version).unwrap_or(0);
    for (at, (sql, code)) in STEPS.iter().enumerate().take(wanted).skip(done) {
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(engine)?;
        tx.execute_batch(sql).map_err(engine)?;
        code(&tx).map_err(engine)?;
        let version = i64::try_from(at + 1).unwrap_or(i64::MAX);
        tx.pragma_update(None, "user_version", version)
            .map_err(engine)?;
        tx.commit().map_err(engine)?;
        tracing::info!(
            schema_version = version,
            "database schema brought up to date"
        );
    }
    Ok(())
}

/// Values of any length stood in the indexes before; PostgreSQL cannot do that.
fn shorten_index_values(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, column) in [("entity_unique", "value"), ("entity_tag", "tag")] {
        let long: Vec<(i64, String)> = tx
            .prepare(&format!(
                "SELECT rowid, {column} FROM {table}
                 WHERE length({column}) > 128 OR {column} LIKE 'sha256:%'"
            ))?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut update = tx.prepare(&format!(
            "UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"
        ))?;
        for (row, value) in long {
            update.execute(params![row, index_key(&value)])?;
        }
    }
    Ok(())
}
