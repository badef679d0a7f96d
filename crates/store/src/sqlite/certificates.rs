//! Rows of pinned certificates.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::control_planes::{Bump, bump, number};
use super::{Outcome, WriteTx, damaged, uuid};
use crate::{Actor, Certificate, NewCertificate, StoreError};

const SELECT: &str = "SELECT c.id, p.id, c.pem, c.digest, c.title, c.created_s, c.updated_s
                      FROM dp_certificate c JOIN control_plane p USING (cp)";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    let digest: Vec<u8> = row.get(3)?;
    let digest = <[u8; 32]>::try_from(digest)
        .map_err(|_| damaged(3, std::io::Error::other("a digest that has not 32 bytes")))?;
    Ok(Certificate {
        id: uuid(row, 0)?,
        control_plane: uuid(row, 1)?,
        pem: row.get(2)?,
        digest,
        title: row.get(4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
    })
}

pub(crate) fn pin(
    tx: &mut WriteTx<'_>,
    cp: Uuid,
    actor: &Actor,
    new: NewCertificate,
) -> Outcome<Certificate> {
    let number = number(tx, cp)?;
    let holder = tx
        .prepare_cached("SELECT id FROM dp_certificate WHERE cp = ?1 AND digest = ?2")?
        .query_row(params![number, new.digest], |row| uuid(row, 0))
        .optional()?;
    if let Some(holder) = holder {
        let taken = StoreError::UniqueTaken {
            field: "cert".to_owned(),
            value: holder.to_string(),
        };
        return Err(taken.into());
    }
    let now = tx.now_ms() / 1_000;
    let certificate = Certificate {
        id: Uuid::new_v4(),
        control_plane: cp,
        pem: new.pem,
        digest: new.digest,
        title: new.title,
        created_at: now,
        updated_at: now,
    };
    tx.execute(
        "INSERT INTO dp_certificate (cp, digest, id, pem, title, created_s, updated_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![
            number,
            certificate.digest,
            certificate.id.as_bytes(),
            certificate.pem,
            certificate.title,
            now
        ],
    )?;
    log(tx, actor, number, &certificate, true)?;
    Ok(certificate)
}

pub(crate) fn list(tx: &Connection, cp: Uuid) -> Outcome<Vec<Certificate>> {
    let number = number(tx, cp)?;
    let sql = format!("{SELECT} WHERE c.cp = ?1 ORDER BY c.created_s, c.id");
    let mut select = tx.prepare_cached(&sql)?;
    let rows = select.query_map([number], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn by_digest(tx: &Connection, digest: [u8; 32]) -> Outcome<Vec<Certificate>> {
    let sql = format!("{SELECT} WHERE c.digest = ?1 ORDER BY c.created_s, c.id");
    let mut select = tx.prepare_cached(&sql)?;
    let rows = select.query_map([digest], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn unpin(tx: &mut WriteTx<'_>, cp: Uuid, actor: &Actor, id: Uuid) -> Outcome<()> {
    let number = number(tx, cp)?;
    let sql = format!("{SELECT} WHERE c.cp = ?1 AND c.id = ?2");
    let certificate = tx
        .prepare_cached(&sql)?
        .query_row(params![number, id.as_bytes()], from_row)
        .optional()?
        .ok_or(StoreError::NotFound)?;
    tx.execute("DELETE FROM dp_certificate WHERE id = ?1", [id.as_bytes()])?;
    log(tx, actor, number, &certificate, false)
}

fn log(
    tx: &mut WriteTx<'_>,
    actor: &Actor,
    number: i64,
    certificate: &Certificate,
    added: bool,
) -> Outcome<()> {
    let cp = certificate.control_plane;
    let revision = bump(tx, cp, number, Bump::Trust)?.revision;
    let body = json!({"id": certificate.id, "cert": certificate.pem, "title": certificate.title});
    let (before, after) = if added {
        (None, Some(&body))
    } else {
        (Some(&body), None)
    };
    let id = certificate.id;
    change_log::append(
        tx,
        &LogRow {
            cp: Some(cp),
            revision,
            actor,
            kind: "dp_certificate",
            id,
            before,
            after,
        },
    )
}
