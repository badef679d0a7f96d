//! Rows of teams, their members, and of roles.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{forget_holder, log, user_by_id, users_in_team};
use super::{Outcome, Row, Tx, accounts, args, to_json};
use crate::{
    Actor, AssignedRole, Holder, NameUpdate, NewRole, StoreError, SystemAccount, Team, User,
};

const TEAM: &str =
    "t.id, t.name, t.description, t.labels, t.predefined, t.created_ms, t.updated_ms";

fn team(row: &Row<'_>) -> Outcome<Team> {
    Ok(Team {
        id: row.uuid(0)?,
        name: row.text(1)?,
        description: row.text(2)?,
        labels: row.json(3)?,
        predefined: row.int(4)? != 0,
        created_at_ms: row.int(5)?,
        updated_at_ms: row.int(6)?,
    })
}

fn logged(team: &Team) -> Value {
    json!({"name": team.name, "description": team.description, "labels": team.labels})
}

pub(crate) async fn list(tx: &mut Tx) -> Outcome<Vec<Team>> {
    let sql = format!("SELECT {TEAM} FROM team t ORDER BY t.created_ms, t.id");
    tx.all(&sql, &[], team).await
}

pub(crate) async fn get(tx: &mut Tx, id: Uuid) -> Outcome<Team> {
    let sql = format!("SELECT {TEAM} FROM team t WHERE t.id = ?1");
    let found = tx.first(&sql, args![&id], team).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

async fn insert(tx: &mut Tx, actor: &Actor, made: &Team) -> Outcome<()> {
    tx.run(
        "INSERT INTO team (id, name, description, labels, predefined, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        args![
            &made.id,
            &made.name,
            &made.description,
            &to_json(&made.labels),
            made.predefined,
            made.created_at_ms,
        ],
    )
    .await?;
    log(tx, actor, "team", made.id, None, Some(&logged(made))).await
}

fn fresh(tx: &Tx, name: String, description: String) -> Team {
    Team {
        id: Uuid::new_v4(),
        name,
        description,
        labels: BTreeMap::new(),
        predefined: false,
        created_at_ms: tx.now_ms(),
        updated_at_ms: tx.now_ms(),
    }
}

pub(crate) async fn ensure(tx: &mut Tx, actor: Actor, teams: Vec<(String, String)>) -> Outcome<()> {
    tx.lock_installation().await?;
    let known = list(tx).await?;
    for (name, description) in teams {
        if known
            .iter()
            .any(|team| team.predefined && team.name == name)
        {
            continue;
        }
        let mut made = fresh(tx, name, description);
        made.predefined = true;
        insert(tx, &actor, &made).await?;
    }
    Ok(())
}

pub(crate) async fn create(
    tx: &mut Tx,
    actor: Actor,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
) -> Outcome<Team> {
    let mut made = fresh(tx, name, description);
    made.labels = labels;
    insert(tx, &actor, &made).await?;
    Ok(made)
}

pub(crate) async fn update(
    tx: &mut Tx,
    actor: Actor,
    id: Uuid,
    update: NameUpdate,
) -> Outcome<Team> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    let mut after = before.clone();
    after.name = update.name.unwrap_or(after.name);
    after.description = update.description.unwrap_or(after.description);
    after.labels = update.labels.unwrap_or(after.labels);
    if after == before {
        return Ok(after);
    }
    after.updated_at_ms = tx.now_ms();
    tx.run(
        "UPDATE team SET name = ?2, description = ?3, labels = ?4, updated_ms = ?5 WHERE id = ?1",
        args![
            &id,
            &after.name,
            &after.description,
            &to_json(&after.labels),
            after.updated_at_ms,
        ],
    )
    .await?;
    let (was, is) = (logged(&before), logged(&after));
    log(tx, &actor, "team", id, Some(&was), Some(&is)).await?;
    Ok(after)
}

pub(crate) async fn delete(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let before = get(tx, id).await?;
    forget_holder(tx, id).await?;
    tx.run("DELETE FROM team WHERE id = ?1", args![&id]).await?;
    log(tx, &actor, "team", id, Some(&logged(&before)), None).await
}

pub(crate) async fn users(tx: &mut Tx, id: Uuid) -> Outcome<Vec<User>> {
    get(tx, id).await?;
    users_in_team(tx, id).await
}

pub(crate) async fn accounts(tx: &mut Tx, id: Uuid) -> Outcome<Vec<SystemAccount>> {
    get(tx, id).await?;
    accounts::in_team(tx, id).await
}

/// Refuses a holder that is not there.
async fn is_there(tx: &mut Tx, holder: Holder) -> Outcome<()> {
    match holder {
        Holder::User(id) => user_by_id(tx, id).await.map(drop),
        Holder::Team(id) => get(tx, id).await.map(drop),
        Holder::SystemAccount(id) => accounts::get(tx, id).await.map(drop),
    }
}

pub(crate) async fn of(tx: &mut Tx, member: Holder) -> Outcome<Vec<Team>> {
    is_there(tx, member).await?;
    let sql = format!(
        "SELECT {TEAM} FROM team t JOIN team_member m ON m.team = t.id WHERE m.member = ?1
         ORDER BY t.created_ms, t.id"
    );
    tx.all(&sql, args![&member.id()], team).await
}

async fn is_member(tx: &mut Tx, team: Uuid, member: Uuid) -> Outcome<bool> {
    let sql = "SELECT 1 FROM team_member WHERE team = ?1 AND member = ?2";
    let found = tx.first(sql, args![&team, &member], |_| Ok(())).await?;
    Ok(found.is_some())
}

pub(crate) async fn join(tx: &mut Tx, actor: Actor, team: Uuid, member: Holder) -> Outcome<()> {
    tx.lock_installation().await?;
    get(tx, team).await?;
    is_there(tx, member).await?;
    let member = member.id();
    if is_member(tx, team, member).await? {
        return Ok(());
    }
    let sql = "INSERT INTO team_member (team, member) VALUES (?1, ?2)";
    tx.run(sql, args![&team, &member]).await?;
    let after = json!({"member_id": member});
    log(tx, &actor, "team_member", team, None, Some(&after)).await
}

pub(crate) async fn leave(tx: &mut Tx, actor: Actor, team: Uuid, member: Holder) -> Outcome<()> {
    tx.lock_installation().await?;
    let member = member.id();
    if !is_member(tx, team, member).await? {
        return Err(StoreError::NotFound.into());
    }
    let sql = "DELETE FROM team_member WHERE team = ?1 AND member = ?2";
    tx.run(sql, args![&team, &member]).await?;
    let before = json!({"member_id": member});
    log(tx, &actor, "team_member", team, Some(&before), None).await
}

pub(super) fn role(row: &Row<'_>, first: usize) -> Outcome<AssignedRole> {
    Ok(AssignedRole {
        id: row.uuid(first)?,
        role: NewRole {
            role: row.text(first + 1)?,
            entity_type: row.text(first + 2)?,
            entity: row.text(first + 3)?,
            region: row.text(first + 4)?,
        },
    })
}

fn logged_role(holder: Uuid, role: &NewRole) -> Value {
    json!({
        "holder_id": holder,
        "role": role.role,
        "entity_type": role.entity_type,
        "entity_id": role.entity,
        "region": role.region,
    })
}

pub(crate) async fn roles(tx: &mut Tx, holder: Holder) -> Outcome<Vec<AssignedRole>> {
    is_there(tx, holder).await?;
    let sql = "SELECT id, role, entity_type, entity, region FROM assigned_role WHERE holder = ?1
               ORDER BY created_ms, id";
    tx.all(sql, args![&holder.id()], |row| role(row, 0)).await
}

pub(crate) async fn assign(
    tx: &mut Tx,
    actor: Actor,
    holder: Holder,
    new: NewRole,
) -> Outcome<AssignedRole> {
    tx.lock_installation().await?;
    let held = roles(tx, holder).await?;
    if let Some(same) = held.into_iter().find(|held| held.role == new) {
        return Ok(same);
    }
    let (id, now, holder) = (Uuid::new_v4(), tx.now_ms(), holder.id());
    tx.run(
        "INSERT INTO assigned_role (id, holder, role, entity_type, entity, region, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        args![
            &id,
            &holder,
            &new.role,
            &new.entity_type,
            &new.entity,
            &new.region,
            now
        ],
    )
    .await?;
    let after = logged_role(holder, &new);
    log(tx, &actor, "role", id, None, Some(&after)).await?;
    Ok(AssignedRole { id, role: new })
}

pub(crate) async fn unassign(tx: &mut Tx, actor: Actor, holder: Holder, id: Uuid) -> Outcome<()> {
    tx.lock_installation().await?;
    let held = roles(tx, holder).await?;
    let found = held.into_iter().find(|held| held.id == id);
    let found = found.ok_or(StoreError::NotFound)?;
    tx.run("DELETE FROM assigned_role WHERE id = ?1", args![&id])
        .await?;
    let before = logged_role(holder.id(), &found.role);
    log(tx, &actor, "role", id, Some(&before), None).await
}
