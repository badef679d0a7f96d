//! Rows of system accounts.

use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{forget_holder, log};
use super::{Outcome, Row, Tx, args};
use crate::{Actor, NameUpdate, StoreError, SystemAccount};

const COLUMNS: &str = "a.id, a.name, a.description, a.created_ms, a.updated_ms";

pub(super) fn account(row: &Row<'_>, first: usize) -> Outcome<SystemAccount> {
    Ok(SystemAccount {
        id: row.uuid(first)?,
        name: row.text(first + 1)?,
        description: row.text(first + 2)?,
        created_at_ms: row.int(first + 3)?,
        updated_at_ms: row.int(first + 4)?,
    })
}

fn logged(account: &SystemAccount) -> Value {
    json!({"name": account.name, "description": account.description})
}

pub(crate) async fn list(tx: &mut Tx) -> Outcome<Vec<SystemAccount>> {
    let sql = format!("SELECT {COLUMNS} FROM system_account a ORDER BY a.created_ms, a.id");
    tx.all(&sql, &[], |row| account(row, 0)).await
}

/// Those in a team.
pub(super) async fn in_team(tx: &mut Tx, team: Uuid) -> Outcome<Vec<SystemAccount>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM system_account a JOIN team_member m ON m.member = a.id
         WHERE m.team = ?1 ORDER BY a.created_ms, a.id"
    );
    tx.all(&sql, args![&team], |row| account(row, 0)).await
}

pub(crate) async fn get(tx: &mut Tx, id: Uuid) -> Outcome<SystemAccount> {
    let sql = format!("SELECT {COLUMNS} FROM system_account a WHERE a.id = ?1");
    let found = tx.first(&sql, args![&id], |row| account(row, 0)).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

async fn name_is_free(tx: &mut Tx, name: &str, own: Option<Uuid>) -> Outcome<()> {
    let sql = "SELECT id FROM system_account WHERE name = ?1";
    let holder = tx.first(sql, args![name], |row| row.uuid(0)).await?;
    match holder {
        Some(holder) if Some(holder) != own => Err(StoreError::UniqueTaken {
            field: "name".to_owned(),
            value: name.to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

pub(crate) async fn create(
    tx: &mut Tx,
    actor: Actor,
    name: String,
    description: String,
) -> Outcome<SystemAccount> {
    tx.lock_installation().await?;
    name_is_free(tx, &name, None).await?;
    let now = tx.now_ms();
    let made = SystemAccount {
        id: Uuid::new_v4(),
        name,
        description,
        created_at_ms: now,
        updated_at_ms: now,
    };
    tx.run(
        "INSERT INTO system_account (id, name, description, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        args![&made.id, &made.name, &made.description, now],
    )
    .await?;
    log(
        tx,
        &actor,
        "system_account",
        made.id,
        None,
        Some(&logged(&made)),
    )
    .await?;
    Ok(made)
}

pub(crate) async fn update(
    tx: &mut Tx,
    actor: Actor,
    id: Uuid,
    update: NameUpdate,
) -> Outcome<SystemAccount> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    let mut after = before.clone();
    if let Some(name) = update.name {
        name_is_free(tx, &name, Some(id)).await?;
        after.name = name;
    }
    after.description = update.description.unwrap_or(after.description);
    if after == before {
        return Ok(after);
    }
    after.updated_at_ms = tx.now_ms();
    tx.run(
        "UPDATE system_account SET name = ?2, description = ?3, updated_ms = ?4 WHERE id = ?1",
        args![&id, &after.name, &after.description, after.updated_at_ms],
    )
    .await?;
    let (was, is) = (logged(&before), logged(&after));
    log(tx, &actor, "system_account", id, Some(&was), Some(&is)).await?;
    Ok(after)
}

pub(crate) async fn delete(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    forget_holder(tx, id).await?;
    tx.run("DELETE FROM system_account WHERE id = ?1", args![&id])
        .await?;
    log(
        tx,
        &actor,
        "system_account",
        id,
        Some(&logged(&before)),
        None,
    )
    .await
}
