//! Rows of enrolment tokens.

use uuid::Uuid;

use super::control_planes::number;
use super::{Outcome, Row, Tx, args, certificates};
use crate::{Actor, Certificate, EnrolmentToken, NewCertificate, NewEnrolmentToken, StoreError};

const SELECT: &str = "SELECT t.id, p.id, t.title, t.created_s, t.expires_s
                      FROM enrolment_token t JOIN control_plane p USING (cp)";

fn from_row(row: &Row<'_>) -> Outcome<EnrolmentToken> {
    Ok(EnrolmentToken {
        id: row.uuid(0)?,
        control_plane: row.uuid(1)?,
        title: row.text(2)?,
        created_at: row.int(3)?,
        expires_at: row.int(4)?,
    })
}

pub(crate) async fn create(
    tx: &mut Tx,
    cp: Uuid,
    new: NewEnrolmentToken,
) -> Outcome<EnrolmentToken> {
    let number = number(tx, cp).await?;
    let token = EnrolmentToken {
        id: Uuid::new_v4(),
        control_plane: cp,
        title: new.title,
        created_at: tx.now_ms() / 1_000,
        expires_at: new.expires_at,
    };
    let NewEnrolmentToken { digest, .. } = new;
    tx.run(
        "INSERT INTO enrolment_token (id, cp, digest, title, created_s, expires_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        args![
            &token.id,
            number,
            &digest,
            &token.title,
            token.created_at,
            token.expires_at
        ],
    )
    .await?;
    Ok(token)
}

pub(crate) async fn list(tx: &mut Tx, cp: Uuid) -> Outcome<Vec<EnrolmentToken>> {
    let number = number(tx, cp).await?;
    let sql = format!("{SELECT} WHERE t.cp = ?1 ORDER BY t.created_s, t.id");
    tx.all(&sql, args![number], from_row).await
}

pub(crate) async fn by_digest(tx: &mut Tx, digest: [u8; 32]) -> Outcome<Option<EnrolmentToken>> {
    let sql = format!("{SELECT} WHERE t.digest = ?1");
    tx.first(&sql, args![&digest], from_row).await
}

pub(crate) async fn delete(tx: &mut Tx, cp: Uuid, id: Uuid) -> Outcome<()> {
    let number = number(tx, cp).await?;
    let sql = "DELETE FROM enrolment_token WHERE cp = ?1 AND id = ?2";
    match tx.run(sql, args![number, &id]).await? {
        0 => Err(StoreError::NotFound.into()),
        _ => Ok(()),
    }
}

pub(crate) async fn enrol(
    tx: &mut Tx,
    cp: Uuid,
    id: Uuid,
    actor: Actor,
    new: NewCertificate,
) -> Outcome<Certificate> {
    delete(tx, cp, id).await?;
    certificates::pin(tx, cp, actor, new).await
}
