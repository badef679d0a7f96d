//! Rows of pinned certificates.

use serde_json::json;
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::control_planes::{Bump, bump, lock, number};
use super::{Outcome, Row, Tx, args};
use crate::{Actor, Certificate, NewCertificate, StoreError};

const SELECT: &str = "SELECT c.id, p.id, c.pem, c.digest, c.title, c.created_s, c.updated_s
                      FROM dp_certificate c JOIN control_plane p USING (cp)";

fn from_row(row: &Row<'_>) -> Outcome<Certificate> {
    Ok(Certificate {
        id: row.uuid(0)?,
        control_plane: row.uuid(1)?,
        pem: row.text(2)?,
        digest: row.digest(3)?,
        title: row.text(4)?,
        created_at: row.int(5)?,
        updated_at: row.int(6)?,
    })
}

pub(crate) async fn pin(
    tx: &mut Tx,
    cp: Uuid,
    actor: Actor,
    new: NewCertificate,
) -> Outcome<Certificate> {
    let number = lock(tx, cp).await?.number;
    is_free(tx, number, &new, None).await?;
    insert(tx, cp, number, &actor, Uuid::new_v4(), new).await
}

/// Refuses a certificate that another pin of the control plane has.
async fn is_free(tx: &mut Tx, number: i64, new: &NewCertificate, own: Option<Uuid>) -> Outcome<()> {
    let holder = tx
        .first(
            "SELECT id FROM dp_certificate WHERE cp = ?1 AND digest = ?2",
            args![number, &new.digest],
            |row| row.uuid(0),
        )
        .await?;
    match holder.filter(|holder| Some(*holder) != own) {
        None => Ok(()),
        Some(holder) => Err(taken("cert", holder).into()),
    }
}

fn taken(field: &str, holder: Uuid) -> StoreError {
    StoreError::UniqueTaken {
        field: field.to_owned(),
        value: holder.to_string(),
    }
}

async fn insert(
    tx: &mut Tx,
    cp: Uuid,
    number: i64,
    actor: &Actor,
    id: Uuid,
    new: NewCertificate,
) -> Outcome<Certificate> {
    let now = tx.now_ms() / 1_000;
    let certificate = Certificate {
        id,
        control_plane: cp,
        pem: new.pem,
        digest: new.digest,
        title: new.title,
        created_at: now,
        updated_at: now,
    };
    tx.run(
        "INSERT INTO dp_certificate (cp, digest, id, pem, title, created_s, updated_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        args![
            number,
            &certificate.digest,
            &certificate.id,
            &certificate.pem,
            &certificate.title,
            now
        ],
    )
    .await?;
    log(tx, actor, number, None, Some(&certificate)).await?;
    Ok(certificate)
}

pub(crate) async fn put(
    tx: &mut Tx,
    cp: Uuid,
    actor: Actor,
    id: Uuid,
    new: NewCertificate,
) -> Outcome<Certificate> {
    let number = lock(tx, cp).await?.number;
    is_free(tx, number, &new, Some(id)).await?;
    let found = tx
        .first(&format!("{SELECT} WHERE c.id = ?1"), args![&id], from_row)
        .await?;
    let Some(before) = found else {
        return insert(tx, cp, number, &actor, id, new).await;
    };
    if before.control_plane != cp {
        return Err(taken("id", id).into());
    }
    let same = before.pem == new.pem && before.title == new.title;
    if same {
        return Ok(before);
    }
    let now = tx.now_ms() / 1_000;
    let after = Certificate {
        pem: new.pem,
        digest: new.digest,
        title: new.title,
        updated_at: now,
        ..before.clone()
    };
    tx.run(
        "UPDATE dp_certificate SET digest = ?2, pem = ?3, title = ?4, updated_s = ?5 WHERE id = ?1",
        args![&id, &after.digest, &after.pem, &after.title, now],
    )
    .await?;
    log(tx, &actor, number, Some(&before), Some(&after)).await?;
    Ok(after)
}

pub(crate) async fn list(tx: &mut Tx, cp: Uuid) -> Outcome<Vec<Certificate>> {
    let number = number(tx, cp).await?;
    let sql = format!("{SELECT} WHERE c.cp = ?1 ORDER BY c.created_s, c.id");
    tx.all(&sql, args![number], from_row).await
}

pub(crate) async fn by_digest(tx: &mut Tx, digest: [u8; 32]) -> Outcome<Vec<Certificate>> {
    tx.all(&by_digest_sql(), args![&digest], from_row).await
}

fn by_digest_sql() -> String {
    format!("{SELECT} WHERE c.digest = ?1 ORDER BY c.created_s, c.id")
}

pub(crate) async fn unpin(tx: &mut Tx, cp: Uuid, actor: Actor, id: Uuid) -> Outcome<()> {
    let number = lock(tx, cp).await?.number;
    let sql = format!("{SELECT} WHERE c.cp = ?1 AND c.id = ?2");
    let certificate = tx.first(&sql, args![number, &id], from_row).await?;
    let certificate = certificate.ok_or(StoreError::NotFound)?;
    tx.run("DELETE FROM dp_certificate WHERE id = ?1", args![&id])
        .await?;
    log(tx, &actor, number, Some(&certificate), None).await
}

async fn log(
    tx: &mut Tx,
    actor: &Actor,
    number: i64,
    before: Option<&Certificate>,
    after: Option<&Certificate>,
) -> Outcome<()> {
    let Some(certificate) = after.or(before) else {
        return Ok(());
    };
    let cp = certificate.control_plane;
    let revision = bump(tx, actor, cp, number, Bump::Trust).await?.revision;
    let body = |it: &Certificate| json!({"id": it.id, "cert": it.pem, "title": it.title});
    let (before, after) = (before.map(body), after.map(body));
    let row = LogRow {
        cp: Some(cp),
        revision,
        actor,
        kind: "dp_certificate",
        id: certificate.id,
        before: before.as_ref(),
        after: after.as_ref(),
    };
    change_log::append(tx, &row).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anybody can have these looked up, by a handshake with a certificate made for it.
    #[test]
    fn who_calls_is_found_by_an_index_and_not_by_reading_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite");
        drop(crate::sqlite::Engine::open(&path).unwrap());
        let conn = rusqlite::Connection::open(&path).unwrap();
        let by_prefix = super::super::control_planes::by_prefix_sql();
        for sql in [by_digest_sql(), by_prefix] {
            let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.query_map([[0_u8; 32]], |row| row.get::<_, String>(3));
            let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
            let searches = |step: &String| step.starts_with("SEARCH") || step.contains("ORDER BY");
            assert!(
                !steps.is_empty() && steps.iter().all(searches),
                "{sql}: {steps:?}"
            );
        }
    }
}
