//! The schema, forward only, as of `migrations/postgres`.

use super::session::Session;
use super::told;
use crate::OpenError;

/// Step n leads from schema version n to n + 1.
const STEPS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_tables.sql"),
    include_str!("../../migrations/postgres/0002_history.sql"),
    include_str!("../../migrations/postgres/0004_identity.sql"),
];

/// Two processes that start at once on an empty database: the number stands for this lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7311970014)";

/// Brings the schema up to date, all steps in one transaction.
pub(super) async fn migrate(session: &mut Session, database: &str) -> Result<(), OpenError> {
    let engine = |error: tokio_postgres::Error| OpenError::Engine {
        database: database.to_owned(),
        detail: told(&error),
    };
    let client = &mut session.client;
    let tx = client.transaction().await.map_err(engine)?;
    tx.batch_execute(LOCK).await.map_err(engine)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let there = tx
        .query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[])
        .await
        .map_err(engine)?;
    let found: i64 = if there.get(0) {
        let row = tx.query_one("SELECT version FROM schema_version", &[]);
        row.await.map_err(engine)?.get(0)
    } else {
        let make = "CREATE TABLE schema_version (version BIGINT NOT NULL);
                    INSERT INTO schema_version VALUES (0)";
        tx.batch_execute(make).await.map_err(engine)?;
        0
    };
    let done = usize::try_from(found).ok().filter(|_| found <= known);
    let Some(done) = done else {
        return Err(OpenError::TooNew {
            database: database.to_owned(),
            found,
            known,
        });
    };
    for step in STEPS.iter().skip(done) {
        tx.batch_execute(step).await.map_err(engine)?;
    }
    if found < known {
        tx.execute("UPDATE schema_version SET version = $1", &[&known])
            .await
            .map_err(engine)?;
    }
    tx.commit().await.map_err(engine)?;
    if found < known {
        tracing::info!(schema_version = known, "database schema brought up to date");
    }
    Ok(())
}
