//! Rows of the organisation, people and settings.

use serde_json::{Value, json};
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::{Outcome, Row, Tx, args, to_json};
use crate::{Actor, NewOrganization, Organization, StoreError, User, UserUpdate};

/// Columns of a person, for [`user`].
pub(super) const PERSON: &str =
    "p.id, p.email, p.full_name, p.preferred_name, p.active, p.created_ms, p.updated_ms";
/// How many they are.
pub(super) const PERSON_COLUMNS: usize = 7;

pub(super) fn user(row: &Row<'_>, first: usize) -> Outcome<User> {
    Ok(User {
        id: row.uuid(first)?,
        email: row.text(first + 1)?,
        full_name: row.text(first + 2)?,
        preferred_name: row.text_or_null(first + 3)?.map(str::to_owned),
        active: row.int(first + 4)? != 0,
        created_at_ms: row.int(first + 5)?,
        updated_at_ms: row.int(first + 6)?,
    })
}

fn logged(user: &User) -> Value {
    json!({
        "email": user.email,
        "full_name": user.full_name,
        "preferred_name": user.preferred_name,
        "active": user.active,
    })
}

pub(crate) async fn organization(tx: &mut Tx) -> Outcome<Option<Organization>> {
    let sql = format!(
        "SELECT o.id, o.name, o.created_ms, o.updated_ms, {PERSON}
         FROM organization o JOIN person p ON p.id = o.owner"
    );
    tx.first(&sql, &[], |row| {
        Ok(Organization {
            id: row.uuid(0)?,
            name: row.text(1)?,
            created_at_ms: row.int(2)?,
            updated_at_ms: row.int(3)?,
            owner: user(row, 4)?,
        })
    })
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
    let owner = insert_user(tx, new.owner_email, new.owner_full_name).await?;
    let organization = Organization {
        id: Uuid::new_v4(),
        name: new.name,
        owner,
        created_at_ms: now,
        updated_at_ms: now,
    };
    let owner = &organization.owner;
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

async fn insert_user(tx: &mut Tx, email: String, full_name: String) -> Outcome<User> {
    let now = tx.now_ms();
    let made = User {
        id: Uuid::new_v4(),
        email,
        full_name,
        preferred_name: None,
        active: true,
        created_at_ms: now,
        updated_at_ms: now,
    };
    tx.run(
        "INSERT INTO person (id, email, full_name, active, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, 1, ?4, ?4)",
        args![&made.id, &made.email, &made.full_name, now],
    )
    .await?;
    Ok(made)
}

pub(crate) async fn users(tx: &mut Tx) -> Outcome<Vec<User>> {
    let sql = format!("SELECT {PERSON} FROM person p ORDER BY p.created_ms, p.id");
    tx.all(&sql, &[], |row| user(row, 0)).await
}

/// Those in a team.
pub(super) async fn users_in_team(tx: &mut Tx, team: Uuid) -> Outcome<Vec<User>> {
    let sql = format!(
        "SELECT {PERSON} FROM person p JOIN team_member m ON m.member = p.id
         WHERE m.team = ?1 ORDER BY p.created_ms, p.id"
    );
    tx.all(&sql, args![&team], |row| user(row, 0)).await
}

pub(crate) async fn user_by_id(tx: &mut Tx, id: Uuid) -> Outcome<User> {
    let sql = format!("SELECT {PERSON} FROM person p WHERE p.id = ?1");
    let found = tx.first(&sql, args![&id], |row| user(row, 0)).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

pub(crate) async fn create_user(
    tx: &mut Tx,
    actor: Actor,
    email: String,
    full_name: String,
) -> Outcome<User> {
    tx.lock_installation().await?;
    let sql = "SELECT 1 FROM person WHERE email = ?1";
    let taken = tx.first(sql, args![&email], |_| Ok(())).await?;
    if taken.is_some() {
        return Err(StoreError::UniqueTaken {
            field: "email".to_owned(),
            value: email,
        }
        .into());
    }
    let made = insert_user(tx, email, full_name).await?;
    log(tx, &actor, "user", made.id, None, Some(&logged(&made))).await?;
    Ok(made)
}

pub(crate) async fn update_user(
    tx: &mut Tx,
    actor: Actor,
    id: Uuid,
    update: UserUpdate,
) -> Outcome<User> {
    tx.lock_installation().await?;
    let before = user_by_id(tx, id).await?;
    let mut after = before.clone();
    after.full_name = update.full_name.unwrap_or(after.full_name);
    after.preferred_name = update.preferred_name.unwrap_or(after.preferred_name);
    after.active = update.active.unwrap_or(after.active);
    if after == before {
        return Ok(after);
    }
    after.updated_at_ms = tx.now_ms();
    tx.run(
        "UPDATE person SET full_name = ?2, preferred_name = ?3, active = ?4, updated_ms = ?5
         WHERE id = ?1",
        args![
            &id,
            &after.full_name,
            &after.preferred_name,
            after.active,
            after.updated_at_ms,
        ],
    )
    .await?;
    let (was, is) = (logged(&before), logged(&after));
    log(tx, &actor, "user", id, Some(&was), Some(&is)).await?;
    Ok(after)
}

pub(crate) async fn delete_user(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let before = user_by_id(tx, id).await?;
    let sql = "SELECT 1 FROM organization WHERE owner = ?1";
    if tx.first(sql, args![&id], |_| Ok(())).await?.is_some() {
        return Err(StoreError::NotFound.into());
    }
    forget_holder(tx, id).await?;
    tx.run("DELETE FROM person WHERE id = ?1", args![&id])
        .await?;
    log(tx, &actor, "user", id, Some(&logged(&before)), None).await
}

/// Removes roles and memberships of somebody who goes.
pub(super) async fn forget_holder(tx: &mut Tx, id: Uuid) -> Outcome<()> {
    tx.run("DELETE FROM assigned_role WHERE holder = ?1", args![&id])
        .await?;
    tx.run("DELETE FROM team_member WHERE member = ?1", args![&id])
        .await?;
    Ok(())
}

pub(crate) async fn setting(tx: &mut Tx, name: String) -> Outcome<Option<Value>> {
    let sql = "SELECT value FROM setting WHERE name = ?1";
    tx.first(sql, args![&name], |row| row.json(0)).await
}

pub(crate) async fn set_setting(
    tx: &mut Tx,
    actor: Actor,
    name: String,
    value: Value,
) -> Outcome<()> {
    tx.lock_installation().await?;
    let before = setting(tx, name.clone()).await?;
    if before.as_ref() == Some(&value) {
        return Ok(());
    }
    let (text, now) = (to_json(&value), tx.now_ms());
    tx.run(
        "INSERT INTO setting (name, value, updated_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_ms = excluded.updated_ms",
        args![&name, &text, now],
    )
    .await?;
    let kind = format!("setting {name}");
    log(
        tx,
        &actor,
        &kind,
        Uuid::nil(),
        before.as_ref(),
        Some(&value),
    )
    .await
}

/// A row of the change log outside of any control plane.
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
