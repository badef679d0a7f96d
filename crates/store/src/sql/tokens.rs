//! Rows of access tokens, and what their owners may.

use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::account;
use super::identity::{PERSON, PERSON_COLUMNS, log, user};
use super::teams::role;
use super::{Outcome, Row, Tx, args};
use crate::{Actor, Bearer, NewToken, Owner, StoreError, Token};

/// Columns before those of the owner.
const OWN: &str = "t.id, t.name, t.created_ms, t.updated_ms, t.expires_ms, t.last_used_ms, \
                   t.revoked_ms, t.revoked_by";
const OWN_COLUMNS: usize = 8;

fn select(rest: &str) -> String {
    format!(
        "SELECT {OWN}, {PERSON}, a.id, a.name, a.description, a.created_ms, a.updated_ms
         FROM access_token t LEFT JOIN person p ON p.id = t.person
         LEFT JOIN system_account a ON a.id = t.account {rest}"
    )
}

fn token(row: &Row<'_>) -> Outcome<Token> {
    // a person has an address, so its absence means an account
    let owner = match row.text_or_null(OWN_COLUMNS + 1)? {
        Some(_) => Owner::User(user(row, OWN_COLUMNS)?),
        None => Owner::SystemAccount(account(row, OWN_COLUMNS + PERSON_COLUMNS)?),
    };
    Ok(Token {
        id: row.uuid(0)?,
        name: row.text(1)?,
        owner,
        created_at_ms: row.int(2)?,
        updated_at_ms: row.int(3)?,
        expires_at_ms: row.int_or_null(4)?,
        last_used_at_ms: row.int_or_null(5)?,
        revoked_at_ms: row.int_or_null(6)?,
        revoked_by: row.text_or_null(7)?.map(str::to_owned),
    })
}

fn logged(token: &Token) -> Value {
    json!({
        "name": token.name,
        "owner_id": token.owner.id(),
        "expires_at_ms": token.expires_at_ms,
        "revoked_at_ms": token.revoked_at_ms,
    })
}

async fn get(tx: &mut Tx, id: Uuid) -> Outcome<Token> {
    let sql = select("WHERE t.id = ?1");
    let found = tx.first(&sql, args![&id], token).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

async fn name_is_free(tx: &mut Tx, owner: Uuid, name: &str, own: Option<Uuid>) -> Outcome<()> {
    let sql = "SELECT id FROM access_token WHERE name = ?1 AND (person = ?2 OR account = ?2)";
    let holder = tx
        .first(sql, args![name, &owner], |row| row.uuid(0))
        .await?;
    match holder {
        Some(holder) if Some(holder) != own => Err(StoreError::UniqueTaken {
            field: "name".to_owned(),
            value: name.to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

pub(crate) async fn create(tx: &mut Tx, actor: Actor, new: NewToken) -> Outcome<Token> {
    tx.lock_installation().await?;
    name_is_free(tx, new.owner, &new.name, None).await?;
    let sql = "SELECT name FROM access_token WHERE digest = ?1";
    let twin = tx.first(sql, args![&new.digest], |row| row.text(0)).await?;
    if let Some(value) = twin {
        let field = "token".to_owned();
        return Err(StoreError::UniqueTaken { field, value }.into());
    }
    let mut column = None;
    for (table, owner) in [("person", "person"), ("system_account", "account")] {
        let sql = format!("SELECT 1 FROM {table} WHERE id = ?1");
        let found = tx.first(&sql, args![&new.owner], |_| Ok(())).await?;
        column = column.or(found.map(|()| owner));
    }
    let column = column.ok_or(StoreError::NotFound)?;
    let (id, now) = (Uuid::new_v4(), tx.now_ms());
    let sql = format!(
        "INSERT INTO access_token (id, name, digest, {column}, created_ms, updated_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)"
    );
    tx.run(
        &sql,
        args![
            &id,
            &new.name,
            &new.digest,
            &new.owner,
            now,
            new.expires_at_ms
        ],
    )
    .await?;
    let made = get(tx, id).await?;
    log(tx, &actor, "token", id, None, Some(&logged(&made))).await?;
    Ok(made)
}

pub(crate) async fn bearer(tx: &mut Tx, digest: [u8; 32]) -> Outcome<Option<Bearer>> {
    let sql = select("WHERE t.digest = ?1");
    let Some(token) = tx.first(&sql, args![&digest], token).await? else {
        return Ok(None);
    };
    let (mut is_owner, mut predefined_teams, mut roles) = (false, Vec::new(), Vec::new());
    let mut ip_allow_list = None;
    let owner = token.owner.id();
    tx.each(
        "SELECT 'role', r.id, r.role, r.entity_type, r.entity, r.region FROM assigned_role r
         WHERE r.holder = ?1 OR r.holder IN (SELECT m.team FROM team_member m WHERE m.member = ?1)
         UNION ALL
         SELECT 'team', t.id, t.name, '', '', '' FROM team_member m JOIN team t ON t.id = m.team
         WHERE m.member = ?1 AND t.predefined = 1
         UNION ALL
         SELECT 'owner', o.id, '', '', '', '' FROM organization o WHERE o.owner = ?1
         UNION ALL
         SELECT 'ip_allow_list', o.id, s.value, '', '', '' FROM setting s, organization o
         WHERE s.name = 'ip_allow_list'",
        args![&owner],
        |row| {
            match row.str(0)? {
                "role" => roles.push(role(row, 1)?),
                "team" => predefined_teams.push(row.text(2)?),
                "owner" => is_owner = true,
                _ => ip_allow_list = Some(row.json(2)?),
            }
            Ok(())
        },
    )
    .await?;
    Ok(Some(Bearer {
        token,
        is_owner,
        predefined_teams,
        roles,
        ip_allow_list,
    }))
}

pub(crate) async fn list(tx: &mut Tx, owner: Option<Uuid>) -> Outcome<Vec<Token>> {
    let order = "ORDER BY t.created_ms, t.id";
    match owner {
        None => tx.all(&select(order), &[], token).await,
        Some(owner) => {
            let sql = select(&format!("WHERE t.person = ?1 OR t.account = ?1 {order}"));
            tx.all(&sql, args![&owner], token).await
        }
    }
}

pub(crate) async fn rename(tx: &mut Tx, actor: Actor, id: Uuid, name: String) -> Outcome<Token> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    name_is_free(tx, before.owner.id(), &name, Some(id)).await?;
    if before.name == name {
        return Ok(before);
    }
    let now = tx.now_ms();
    let sql = "UPDATE access_token SET name = ?2, updated_ms = ?3 WHERE id = ?1";
    tx.run(sql, args![&id, &name, now]).await?;
    changed(tx, &actor, &before).await
}

pub(crate) async fn revoke(tx: &mut Tx, actor: Actor, id: Uuid, by: String) -> Outcome<Token> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    if before.revoked_at_ms.is_some() {
        return Ok(before);
    }
    let now = tx.now_ms();
    let sql = "UPDATE access_token SET revoked_ms = ?2, revoked_by = ?3, updated_ms = ?2
               WHERE id = ?1";
    tx.run(sql, args![&id, now, &by]).await?;
    changed(tx, &actor, &before).await
}

async fn changed(tx: &mut Tx, actor: &Actor, before: &Token) -> Outcome<Token> {
    let after = get(tx, before.id).await?;
    let (was, is) = (logged(before), logged(&after));
    log(tx, actor, "token", before.id, Some(&was), Some(&is)).await?;
    Ok(after)
}

pub(crate) async fn delete(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    tx.run("DELETE FROM access_token WHERE id = ?1", args![&id])
        .await?;
    log(tx, &actor, "token", id, Some(&logged(&before)), None).await
}

pub(crate) async fn used(tx: &mut Tx, id: Uuid) -> Outcome<()> {
    let now = tx.now_ms();
    let sql = "UPDATE access_token SET last_used_ms = ?2 WHERE id = ?1";
    tx.run(sql, args![&id, now]).await?;
    Ok(())
}
