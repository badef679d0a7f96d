//! Rows of the organisation, people and tokens.

use serde_json::{Value, json};
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::{Outcome, Row, Tx, args};
use crate::{Actor, NewOrganization, NewToken, Organization, StoreError, Token, User};

const TOKEN: &str = "SELECT t.id, t.name, t.created_ms, p.id, p.email, p.full_name, p.created_ms,
                     p.updated_ms FROM access_token t JOIN person p ON p.id = t.person";

fn user(row: &Row<'_>, first: usize) -> Outcome<User> {
    Ok(User {
        id: row.uuid(first)?,
        email: row.text(first + 1)?,
        full_name: row.text(first + 2)?,
        created_at_ms: row.int(first + 3)?,
        updated_at_ms: row.int(first + 4)?,
    })
}

fn token(row: &Row<'_>) -> Outcome<Token> {
    Ok(Token {
        id: row.uuid(0)?,
        name: row.text(1)?,
        created_at_ms: row.int(2)?,
        user: user(row, 3)?,
    })
}

pub(crate) async fn organization(tx: &mut Tx) -> Outcome<Option<Organization>> {
    tx.first(
        "SELECT o.id, o.name, o.created_ms, o.updated_ms, p.id, p.email, p.full_name,
             p.created_ms, p.updated_ms
         FROM organization o JOIN person p ON p.id = o.owner",
        &[],
        |row| {
            Ok(Organization {
                id: row.uuid(0)?,
                name: row.text(1)?,
                created_at_ms: row.int(2)?,
                updated_at_ms: row.int(3)?,
                owner: user(row, 4)?,
            })
        },
    )
    .await
}

pub(crate) async fn ensure(
    tx: &mut Tx,
    actor: Actor,
    new: NewOrganization,
) -> Outcome<Organization> {
    tx.lock_installation().await?;
    if let Some(organization) = organization(tx).await? {
        return Ok(organization);
    }
    let now = tx.now_ms();
    let owner = User {
        id: Uuid::new_v4(),
        email: new.owner_email,
        full_name: new.owner_full_name,
        created_at_ms: now,
        updated_at_ms: now,
    };
    let organization = Organization {
        id: Uuid::new_v4(),
        name: new.name,
        owner,
        created_at_ms: now,
        updated_at_ms: now,
    };
    let owner = &organization.owner;
    tx.run(
        "INSERT INTO person (id, email, full_name, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        args![&owner.id, &owner.email, &owner.full_name, now],
    )
    .await?;
    tx.run(
        "INSERT INTO organization (id, name, owner, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        args![&organization.id, &organization.name, &owner.id, now],
    )
    .await?;
    let after =
        json!({"name": organization.name, "owner_id": owner.id, "owner_email": owner.email});
    let id = organization.id;
    log(tx, &actor, "organization", id, None, Some(&after)).await?;
    Ok(organization)
}

pub(crate) async fn create_token(tx: &mut Tx, actor: Actor, new: NewToken) -> Outcome<Token> {
    tx.lock_installation().await?;
    let clash = tx
        .first(
            "SELECT name FROM access_token WHERE name = ?1 OR digest = ?2",
            args![&new.name, &new.digest],
            |row| row.text(0),
        )
        .await?;
    if let Some(name) = clash {
        let field = if name == new.name { "name" } else { "token" };
        return Err(StoreError::UniqueTaken {
            field: field.to_owned(),
            value: name,
        }
        .into());
    }
    let known = tx
        .first(
            "SELECT 1 FROM person WHERE id = ?1",
            args![&new.user],
            |_| Ok(()),
        )
        .await?;
    known.ok_or(StoreError::NotFound)?;
    let id = Uuid::new_v4();
    let now = tx.now_ms();
    tx.run(
        "INSERT INTO access_token (id, name, digest, person, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        args![&id, &new.name, &new.digest, &new.user, now],
    )
    .await?;
    let after = json!({"name": new.name, "user_id": new.user});
    log(tx, &actor, "token", id, None, Some(&after)).await?;
    let sql = format!("{TOKEN} WHERE t.id = ?1");
    tx.only(&sql, args![&id], token).await
}

pub(crate) async fn token_by_digest(tx: &mut Tx, digest: [u8; 32]) -> Outcome<Option<Token>> {
    let sql = format!("{TOKEN} WHERE t.digest = ?1");
    tx.first(&sql, args![&digest], token).await
}

pub(crate) async fn tokens(tx: &mut Tx) -> Outcome<Vec<Token>> {
    let sql = format!("{TOKEN} ORDER BY t.created_ms, t.id");
    tx.all(&sql, &[], token).await
}

pub(crate) async fn delete_token(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let name = tx
        .first(
            "SELECT name FROM access_token WHERE id = ?1",
            args![&id],
            |row| row.text(0),
        )
        .await?;
    let name = name.ok_or(StoreError::NotFound)?;
    tx.run("DELETE FROM access_token WHERE id = ?1", args![&id])
        .await?;
    let before = json!({"name": name});
    log(tx, &actor, "token", id, Some(&before), None).await
}

pub(super) async fn log(
    tx: &mut Tx,
    actor: &Actor,
    kind: &str,
    id: Uuid,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Outcome<()> {
    let row = LogRow {
        cp: None,
        revision: 0,
        actor,
        kind,
        id,
        before,
        after,
    };
    change_log::append(tx, &row).await
}
