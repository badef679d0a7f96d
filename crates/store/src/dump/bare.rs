//! Tables of PostgreSQL without what makes loading slow. Keys and indexes that are made of all rows
//! at once cost a fraction of those that grow row by row, and so do references that are checked.

use tokio_postgres::Client;

use super::DumpError;

/// Memory for making indexes, for this transaction; each of its workers has it.
const MEMORY: &str = "SET LOCAL maintenance_work_mem = '128MB'";

/// What was taken from the tables, as the statements that make it again.
pub(super) struct Bare {
    make: Vec<String>,
}

impl Bare {
    /// Takes keys, references and indexes from all tables. Belongs into the transaction of the load.
    pub(super) async fn strip(client: &Client) -> Result<Bare, DumpError> {
        // References first to go and last to come back; what belongs to a constraint goes with it.
        let found = "
            SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
                format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
                    pg_get_constraintdef(oid)),
                CASE contype WHEN 'f' THEN 0 ELSE 1 END AS at
            FROM pg_constraint
            WHERE contype IN ('f', 'p', 'u') AND connamespace = current_schema()::regnamespace
            UNION ALL
            SELECT format('DROP INDEX %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid), 2
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE c.relnamespace = current_schema()::regnamespace
              AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid)
            ORDER BY at";
        let (mut drop, mut make) = (Vec::new(), Vec::new());
        for row in client.query(found, &[]).await? {
            drop.push(row.get::<_, String>(0));
            make.push(row.get::<_, String>(1));
        }
        client.batch_execute(&drop.join(";\n")).await?;
        make.reverse();
        Ok(Bare { make })
    }

    /// Makes all of it again, which checks the rows.
    ///
    /// # Errors
    /// The rows break a key or a reference.
    pub(super) async fn dress(self, client: &Client) -> Result<(), DumpError> {
        client.batch_execute(MEMORY).await?;
        for statement in &self.make {
            client.batch_execute(statement).await?;
        }
        Ok(())
    }
}
