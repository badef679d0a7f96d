//! The schema, forward only, as of `migrations/postgres`.

use tokio_postgres::Client;

use super::session::Session;
use super::told;
use crate::OpenError;

/// Step n leads from schema version n to n + 1.
const STEPS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_tables.sql"),
    include_str!("../../migrations/postgres/0002_history.sql"),
    include_str!("../../migrations/postgres/0003_cluster.sql"),
    include_str!("../../migrations/postgres/0004_identity.sql"),
    include_str!("../../migrations/postgres/0005_nodes.sql"),
    include_str!("../../migrations/postgres/0006_ip_addresses.sql"),
    include_str!("../../migrations/postgres/0007_cluster_keys.sql"),
];

/// Two processes that start at once on an empty database: the number stands for this lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7311970014)";

/// The newest schema version of this build.
pub(crate) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The schema version of a database; nothing if it has no schema yet.
pub(crate) async fn found(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    let there = "SELECT to_regclass('schema_version') IS NOT NULL";
    if !client.query_one(there, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one("SELECT version FROM schema_version", &[]);
    Ok(Some(row.await?.get(0)))
}

/// Keeps others from making the schema until the transaction ends.
pub(crate) async fn lock(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(LOCK).await
}

/// Makes the schema of a version that this build knows, where there is none.
pub(crate) async fn make(client: &Client, version: i64) -> Result<(), tokio_postgres::Error> {
    let wanted = usize::try_from(version).unwrap_or(0);
    let make = format!(
        "CREATE TABLE schema_version (version BIGINT NOT NULL);
         INSERT INTO schema_version VALUES ({version})"
    );
    client.batch_execute(&make).await?;
    for step in STEPS.iter().take(wanted) {
        client.batch_execute(step).await?;
    }
    Ok(())
}

/// Brings the schema up to date, all steps in one transaction.
pub(crate) async fn migrate(session: &mut Session, database: &str) -> Result<(), OpenError> {
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
