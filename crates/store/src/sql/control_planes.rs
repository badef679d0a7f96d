//! Rows of control planes and of their heads.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::{Fail, Outcome, Row, Tx, args, groups, to_json, unsigned};
use crate::{Actor, ControlPlane, ControlPlaneUpdate, Head, NewControlPlane, StoreError};

/// Columns of a control plane `c`, for [`from_row`].
pub(super) const COLUMNS: &str = "c.id, c.name, c.prefix, c.description, c.labels, \
     c.cluster_type, c.auth_type, c.cloud_gateway, c.proxy_urls, c.created_ms, c.updated_ms";
/// How many they are.
pub(super) const COLUMNS_COUNT: usize = 11;

pub(super) fn from_row(row: &Row<'_>) -> Outcome<ControlPlane> {
    Ok(ControlPlane {
        id: row.uuid(0)?,
        name: row.text(1)?,
        prefix: row.text(2)?,
        description: row.text(3)?,
        labels: row.json(4)?,
        cluster_type: row.json(5)?,
        auth_type: row.json(6)?,
        cloud_gateway: row.int(7)? != 0,
        proxy_urls: row.json(8)?,
        created_at_ms: row.int(9)?,
        updated_at_ms: row.int(10)?,
    })
}

/// The control plane as the change log shows it.
fn logged(cp: &ControlPlane) -> Value {
    json!({
        "id": cp.id,
        "name": cp.name,
        "description": cp.description,
        "labels": cp.labels,
        "prefix": cp.prefix,
        "cluster_type": cp.cluster_type,
        "auth_type": cp.auth_type,
        "cloud_gateway": cp.cloud_gateway,
        "proxy_urls": cp.proxy_urls,
    })
}

/// The number that stands for a control plane inside the database.
pub(super) async fn number(tx: &mut Tx, id: Uuid) -> Outcome<i64> {
    let sql = "SELECT cp FROM control_plane WHERE id = ?1";
    let found = tx.first(sql, args![&id], |row| row.int(0)).await?;
    found.ok_or(Fail::Refused(StoreError::NoControlPlane(id)))
}

/// A control plane that no other transaction changes before this one ends.
#[derive(Clone, Copy)]
pub(crate) struct Locked {
    pub(super) number: i64,
    pub(super) head: Head,
}

/// Locks the head of a control plane. Every write inside of one starts here, so that what it reads
/// afterwards stays true, and so that revisions are given out in the order of commits.
pub(super) async fn lock(tx: &mut Tx, id: Uuid) -> Outcome<Locked> {
    if let Some((_, locked)) = tx.locked.filter(|(cp, _)| *cp == id) {
        return Ok(locked);
    }
    let sql = format!(
        "SELECT h.cp, h.revision, h.trust FROM cp_head h JOIN control_plane p ON p.cp = h.cp
         WHERE p.id = ?1{}",
        tx.lock_rows("h")
    );
    let found = tx
        .first(&sql, args![&id], |row| {
            Ok(Locked {
                number: row.int(0)?,
                head: head(row, 1)?,
            })
        })
        .await?;
    let locked = found.ok_or(Fail::Refused(StoreError::NoControlPlane(id)))?;
    tx.keep_locked(id, locked);
    Ok(locked)
}

fn head(row: &Row<'_>, first: usize) -> Outcome<Head> {
    Ok(Head {
        revision: unsigned(row.int(first)?),
        trust: unsigned(row.int(first + 1)?),
    })
}

const HEADS: &str =
    "SELECT p.id, h.revision, h.trust FROM control_plane p JOIN cp_head h ON h.cp = p.cp";

pub(crate) async fn heads(tx: &mut Tx) -> Outcome<BTreeMap<Uuid, Head>> {
    let found = tx.all(HEADS, &[], |row| Ok((row.uuid(0)?, head(row, 1)?)));
    Ok(found.await?.into_iter().collect())
}

/// Where one control plane stands; `None` if it does not exist.
pub(crate) async fn head_of(tx: &mut Tx, id: Uuid) -> Outcome<Option<Head>> {
    let sql = format!("{HEADS} WHERE p.id = ?1");
    tx.first(&sql, args![&id], |row| head(row, 1)).await
}

/// What a change moves forward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bump {
    Revision,
    Trust,
    Neither,
}

/// Moves the head of a control plane, tells watchers, and answers with where it stands.
pub(super) async fn bump(
    tx: &mut Tx,
    actor: &Actor,
    id: Uuid,
    number: i64,
    bump: Bump,
) -> Outcome<Head> {
    let (revision, trust) = (bump == Bump::Revision, bump == Bump::Trust);
    let (moved, groups) = tx
        .only(
            "UPDATE cp_head SET revision = revision + ?2, trust = trust + ?3 WHERE cp = ?1
             RETURNING revision, trust,
             (SELECT count(*) FROM group_member WHERE group_member.member = cp_head.cp)",
            args![number, revision, trust],
            |row| Ok((head(row, 0)?, row.int(2)?)),
        )
        .await?;
    let head_now = Locked {
        number,
        head: moved,
    };
    tx.keep_locked(id, head_now);
    if bump != Bump::Neither {
        tx.announce(id, Some(moved));
    }
    if bump == Bump::Revision && groups > 0 {
        // Groups serve what their members have; they are in no other groups.
        for (group, group_id) in groups::of(tx, number).await? {
            let sql = "UPDATE cp_head SET revision = revision + 1 WHERE cp = ?1
                       RETURNING revision, trust";
            let theirs = tx.only(sql, args![group], |row| head(row, 0)).await?;
            tx.announce(group_id, Some(theirs));
            groups::log_member(tx, actor, (group_id, theirs.revision), (id, moved.revision))
                .await?;
        }
    }
    Ok(moved)
}

pub(crate) async fn create(
    tx: &mut Tx,
    actor: Actor,
    new: NewControlPlane,
) -> Outcome<ControlPlane> {
    tx.lock_installation().await?;
    name_is_free(tx, &new.name, None).await?;
    let now = tx.now_ms();
    let cp = ControlPlane {
        id: Uuid::new_v4(),
        name: new.name,
        description: new.description,
        labels: new.labels,
        prefix: free_prefix(tx).await?,
        cluster_type: new.cluster_type,
        auth_type: new.auth_type,
        cloud_gateway: new.cloud_gateway,
        proxy_urls: new.proxy_urls,
        created_at_ms: now,
        updated_at_ms: now,
    };
    let number = tx
        .only(
            "INSERT INTO control_plane (id, name, prefix, description, labels, cluster_type,
             auth_type, cloud_gateway, proxy_urls, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) RETURNING cp",
            args![
                &cp.id,
                &cp.name,
                &cp.prefix,
                &cp.description,
                &to_json(&cp.labels),
                &to_json(&cp.cluster_type),
                &to_json(&cp.auth_type),
                cp.cloud_gateway,
                &to_json(&cp.proxy_urls),
                cp.created_at_ms,
            ],
            |row| row.int(0),
        )
        .await?;
    tx.run(
        "INSERT INTO cp_head (cp, revision, trust) VALUES (?1, 0, 0)",
        args![number],
    )
    .await?;
    tx.announce(cp.id, Some(Head::default()));
    log(tx, &actor, cp.id, 0, None, Some(&cp)).await?;
    Ok(cp)
}

pub(crate) async fn list(tx: &mut Tx) -> Outcome<Vec<ControlPlane>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM control_plane c
         WHERE NOT EXISTS (SELECT 1 FROM draft d WHERE d.cp = c.cp) ORDER BY c.created_ms, c.id"
    );
    tx.all(&sql, &[], from_row).await
}

pub(crate) async fn get(tx: &mut Tx, id: Uuid) -> Outcome<Option<ControlPlane>> {
    let sql = format!("SELECT {COLUMNS} FROM control_plane c WHERE c.id = ?1");
    tx.first(&sql, args![&id], from_row).await
}

pub(crate) async fn by_prefix(tx: &mut Tx, prefix: String) -> Outcome<Option<ControlPlane>> {
    tx.first(&by_prefix_sql(), args![&prefix], from_row).await
}

pub(super) fn by_prefix_sql() -> String {
    format!("SELECT {COLUMNS} FROM control_plane c WHERE c.prefix = ?1")
}

pub(crate) async fn update(
    tx: &mut Tx,
    actor: Actor,
    id: Uuid,
    update: ControlPlaneUpdate,
) -> Outcome<ControlPlane> {
    tx.lock_installation().await?;
    let number = lock(tx, id).await?.number;
    let before = get(tx, id).await?.ok_or(StoreError::NoControlPlane(id))?;
    let mut after = before.clone();
    if let Some(name) = update.name {
        name_is_free(tx, &name, Some(id)).await?;
        after.name = name;
    }
    after.description = update.description.unwrap_or(after.description);
    after.labels = update.labels.unwrap_or(after.labels);
    after.auth_type = update.auth_type.unwrap_or(after.auth_type);
    after.proxy_urls = update.proxy_urls.unwrap_or(after.proxy_urls);
    if after == before {
        return Ok(after);
    }
    after.updated_at_ms = tx.now_ms();
    tx.run(
        "UPDATE control_plane SET name = ?2, description = ?3, labels = ?4, auth_type = ?5,
         proxy_urls = ?6, updated_ms = ?7 WHERE id = ?1",
        args![
            &id,
            &after.name,
            &after.description,
            &to_json(&after.labels),
            &to_json(&after.auth_type),
            &to_json(&after.proxy_urls),
            after.updated_at_ms,
        ],
    )
    .await?;
    let moved = if after.auth_type == before.auth_type {
        Bump::Neither
    } else {
        Bump::Trust
    };
    let head = bump(tx, &actor, id, number, moved).await?;
    log(tx, &actor, id, head.revision, Some(&before), Some(&after)).await?;
    Ok(after)
}

pub(crate) async fn delete(tx: &mut Tx, actor: Actor, id: Uuid) -> Outcome<()> {
    let number = lock(tx, id).await?.number;
    let before = get(tx, id).await?.ok_or(StoreError::NoControlPlane(id))?;
    let head = bump(tx, &actor, id, number, Bump::Revision).await?;
    let sql = "SELECT p.cp, p.id FROM draft d JOIN control_plane p ON p.cp = d.cp
               WHERE d.origin = ?1";
    let read = |row: &Row<'_>| Ok((row.int(0)?, row.uuid(1)?));
    for (draft, draft_id) in tx.all(sql, args![number], read).await? {
        remove(tx, draft, draft_id).await?;
    }
    remove(tx, number, id).await?;
    log(tx, &actor, id, head.revision, Some(&before), None).await
}

/// Removes a control plane's rows.
async fn remove(tx: &mut Tx, number: i64, id: Uuid) -> Outcome<()> {
    // References between entities restrict; with all of them gone first the rest cascades.
    tx.run(
        "DELETE FROM entity_ref WHERE from_eid IN (SELECT eid FROM entity WHERE cp = ?1)",
        args![number],
    )
    .await?;
    tx.run("DELETE FROM control_plane WHERE cp = ?1", args![number])
        .await?;
    tx.announce(id, None);
    Ok(())
}

async fn log(
    tx: &mut Tx,
    actor: &Actor,
    id: Uuid,
    revision: u64,
    before: Option<&ControlPlane>,
    after: Option<&ControlPlane>,
) -> Outcome<()> {
    let (before, after) = (before.map(logged), after.map(logged));
    let row = LogRow {
        cp: Some(id),
        revision,
        actor,
        kind: "control_plane",
        id,
        before: before.as_ref(),
        after: after.as_ref(),
    };
    change_log::append(tx, &row).await
}

async fn name_is_free(tx: &mut Tx, name: &str, own: Option<Uuid>) -> Outcome<()> {
    let sql = "SELECT id FROM control_plane WHERE name = ?1";
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

/// Ten random hexadecimal digits that no control plane has.
async fn free_prefix(tx: &mut Tx) -> Outcome<String> {
    loop {
        let mut bytes = [0; 5];
        getrandom::fill(&mut bytes)
            .map_err(|error| crate::StorageFailure::Engine(format!("no randomness: {error}")))?;
        let prefix: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if by_prefix(tx, prefix.clone()).await?.is_none() {
            return Ok(prefix);
        }
    }
}
