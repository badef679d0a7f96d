//! Rows of the organisation, people and tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::{Outcome, WriteTx, uuid};
use crate::{Actor, NewOrganization, NewToken, Organization, StoreError, Token, User};

const TOKEN: &str = "SELECT t.id, t.name, t.created_ms, p.id, p.email, p.full_name, p.created_ms,
                     p.updated_ms FROM access_token t JOIN person p ON p.id = t.person";

fn user(row: &Row<'_>, first: usize) -> rusqlite::Result<User> {
    Ok(User {
        id: uuid(row, first)?,
        email: row.get(first + 1)?,
        full_name: row.get(first + 2)?,
        created_at_ms: row.get(first + 3)?,
        updated_at_ms: row.get(first + 4)?,
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: uuid(row, 0)?,
        name: row.get(1)?,
        created_at_ms: row.get(2)?,
        user: user(row, 3)?,
    })
}

pub(crate) fn organization(tx: &Connection) -> Outcome<Option<Organization>> {
    let mut select = tx.prepare_cached(
        "SELECT o.id, o.name, o.created_ms, o.updated_ms, p.id, p.email, p.full_name,
             p.created_ms, p.updated_ms
         FROM organization o JOIN person p ON p.id = o.owner",
    )?;
    let found = select.query_row([], |row| {
        Ok(Organization {
            id: uuid(row, 0)?,
            name: row.get(1)?,
            created_at_ms: row.get(2)?,
            updated_at_ms: row.get(3)?,
            owner: user(row, 4)?,
        })
    });
    Ok(found.optional()?)
}

pub(crate) fn ensure(
    tx: &mut WriteTx<'_>,
    actor: &Actor,
    new: NewOrganization,
) -> Outcome<Organization> {
    if let Some(organization) = organization(tx)? {
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
    tx.execute(
        "INSERT INTO person (id, email, full_name, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        params![owner.id.as_bytes(), owner.email, owner.full_name, now],
    )?;
    tx.execute(
        "INSERT INTO organization (id, name, owner, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        params![
            organization.id.as_bytes(),
            organization.name,
            owner.id.as_bytes(),
            now
        ],
    )?;
    let after =
        json!({"name": organization.name, "owner_id": owner.id, "owner_email": owner.email});
    log(
        tx,
        actor,
        "organization",
        organization.id,
        None,
        Some(&after),
    )?;
    Ok(organization)
}

pub(crate) fn create_token(tx: &mut WriteTx<'_>, actor: &Actor, new: NewToken) -> Outcome<Token> {
    let mut select =
        tx.prepare_cached("SELECT name FROM access_token WHERE name = ?1 OR digest = ?2")?;
    let clash: Option<String> = select
        .query_row(params![new.name, new.digest], |row| row.get(0))
        .optional()?;
    drop(select);
    if let Some(name) = clash {
        let field = if name == new.name { "name" } else { "token" };
        return Err(StoreError::UniqueTaken {
            field: field.to_owned(),
            value: name,
        }
        .into());
    }
    let known: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM person WHERE id = ?1)",
        [new.user.as_bytes()],
        |row| row.get(0),
    )?;
    if !known {
        return Err(StoreError::NotFound.into());
    }
    let id = Uuid::new_v4();
    tx.execute(
        "INSERT INTO access_token (id, name, digest, person, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id.as_bytes(), new.name, new.digest, new.user.as_bytes(), tx.now_ms()],
    )?;
    log(
        tx,
        actor,
        "token",
        id,
        None,
        Some(&json!({"name": new.name, "user_id": new.user})),
    )?;
    let sql = format!("{TOKEN} WHERE t.id = ?1");
    Ok(tx.query_row(&sql, [id.as_bytes()], token)?)
}

pub(crate) fn token_by_digest(tx: &Connection, digest: [u8; 32]) -> Outcome<Option<Token>> {
    let sql = format!("{TOKEN} WHERE t.digest = ?1");
    Ok(tx
        .prepare_cached(&sql)?
        .query_row([digest], token)
        .optional()?)
}

pub(crate) fn tokens(tx: &Connection) -> Outcome<Vec<Token>> {
    let sql = format!("{TOKEN} ORDER BY t.created_ms, t.id");
    let mut select = tx.prepare_cached(&sql)?;
    let rows = select.query_map([], token)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn delete_token(tx: &mut WriteTx<'_>, actor: &Actor, id: Uuid) -> Outcome<()> {
    let name: Option<String> = tx
        .query_row(
            "SELECT name FROM access_token WHERE id = ?1",
            [id.as_bytes()],
            |row| row.get(0),
        )
        .optional()?;
    let name = name.ok_or(StoreError::NotFound)?;
    tx.execute("DELETE FROM access_token WHERE id = ?1", [id.as_bytes()])?;
    log(tx, actor, "token", id, Some(&json!({"name": name})), None)
}

fn log(
    tx: &WriteTx<'_>,
    actor: &Actor,
    kind: &str,
    id: Uuid,
    before: Option<&serde_json::Value>,
    after: Option<&serde_json::Value>,
) -> Outcome<()> {
    change_log::append(
        tx,
        &LogRow {
            cp: None,
            revision: 0,
            actor,
            kind,
            id,
            before,
            after,
        },
    )
}
