//! Rows of control planes and of their heads.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::{Fail, Head, Outcome, WriteTx, json as stored, to_json, unsigned, uuid};
use crate::{Actor, ControlPlane, ControlPlaneUpdate, NewControlPlane, StoreError};

const COLUMNS: &str = "id, name, prefix, description, labels, cluster_type, auth_type, \
                       cloud_gateway, proxy_urls, created_ms, updated_ms";

fn from_row(row: &Row<'_>) -> rusqlite::Result<ControlPlane> {
    Ok(ControlPlane {
        id: uuid(row, 0)?,
        name: row.get(1)?,
        prefix: row.get(2)?,
        description: row.get(3)?,
        labels: stored(row, 4)?,
        cluster_type: stored(row, 5)?,
        auth_type: stored(row, 6)?,
        cloud_gateway: row.get(7)?,
        proxy_urls: stored(row, 8)?,
        created_at_ms: row.get(9)?,
        updated_at_ms: row.get(10)?,
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
pub(super) fn number(tx: &Connection, id: Uuid) -> Outcome<i64> {
    let mut select = tx.prepare_cached("SELECT cp FROM control_plane WHERE id = ?1")?;
    let found = select
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    found.ok_or(Fail::Refused(StoreError::NoControlPlane(id)))
}

pub(super) fn heads(conn: &Connection) -> rusqlite::Result<BTreeMap<Uuid, Head>> {
    let mut select =
        conn.prepare("SELECT id, revision, trust FROM control_plane JOIN cp_head USING (cp)")?;
    let rows = select.query_map([], |row| {
        let head = Head {
            revision: unsigned(row.get(1)?),
            trust: unsigned(row.get(2)?),
        };
        Ok((uuid(row, 0)?, head))
    })?;
    rows.collect()
}

/// What a change moves forward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bump {
    Revision,
    Trust,
    Neither,
}

/// Moves the head of a control plane, tells watchers, and answers with where it stands.
pub(super) fn bump(tx: &mut WriteTx<'_>, id: Uuid, number: i64, bump: Bump) -> Outcome<Head> {
    let head = {
        let mut update = tx.prepare_cached(
            "UPDATE cp_head SET revision = revision + ?2, trust = trust + ?3 WHERE cp = ?1
             RETURNING revision, trust",
        )?;
        let steps = (
            i64::from(bump == Bump::Revision),
            i64::from(bump == Bump::Trust),
        );
        update.query_row(params![number, steps.0, steps.1], |row| {
            Ok(Head {
                revision: unsigned(row.get(0)?),
                trust: unsigned(row.get(1)?),
            })
        })?
    };
    if bump != Bump::Neither {
        tx.announce(id, Some(head));
    }
    Ok(head)
}

pub(crate) fn create(
    tx: &mut WriteTx<'_>,
    actor: &Actor,
    new: NewControlPlane,
) -> Outcome<ControlPlane> {
    name_is_free(tx, &new.name, None)?;
    let cp = ControlPlane {
        id: Uuid::new_v4(),
        name: new.name,
        description: new.description,
        labels: new.labels,
        prefix: free_prefix(tx)?,
        cluster_type: new.cluster_type,
        auth_type: new.auth_type,
        cloud_gateway: new.cloud_gateway,
        proxy_urls: new.proxy_urls,
        created_at_ms: tx.now_ms(),
        updated_at_ms: tx.now_ms(),
    };
    tx.execute(
        "INSERT INTO control_plane (id, name, prefix, description, labels, cluster_type, auth_type,
         cloud_gateway, proxy_urls, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        params![
            cp.id.as_bytes(),
            cp.name,
            cp.prefix,
            cp.description,
            to_json(&cp.labels),
            to_json(&cp.cluster_type),
            to_json(&cp.auth_type),
            cp.cloud_gateway,
            to_json(&cp.proxy_urls),
            cp.created_at_ms,
        ],
    )?;
    let number = tx.last_insert_rowid();
    tx.execute(
        "INSERT INTO cp_head (cp, revision, trust) VALUES (?1, 0, 0)",
        [number],
    )?;
    tx.announce(cp.id, Some(Head::default()));
    log(tx, actor, cp.id, 0, None, Some(&cp))?;
    Ok(cp)
}

pub(crate) fn list(tx: &Connection) -> Outcome<Vec<ControlPlane>> {
    let sql = format!("SELECT {COLUMNS} FROM control_plane ORDER BY created_ms, id");
    let mut select = tx.prepare_cached(&sql)?;
    let rows = select.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn get(tx: &Connection, id: Uuid) -> Outcome<Option<ControlPlane>> {
    let sql = format!("SELECT {COLUMNS} FROM control_plane WHERE id = ?1");
    Ok(tx
        .prepare_cached(&sql)?
        .query_row([id.as_bytes()], from_row)
        .optional()?)
}

pub(crate) fn by_prefix(tx: &Connection, prefix: &str) -> Outcome<Option<ControlPlane>> {
    let sql = format!("SELECT {COLUMNS} FROM control_plane WHERE prefix = ?1");
    Ok(tx
        .prepare_cached(&sql)?
        .query_row([prefix], from_row)
        .optional()?)
}

pub(crate) fn update(
    tx: &mut WriteTx<'_>,
    actor: &Actor,
    id: Uuid,
    update: ControlPlaneUpdate,
) -> Outcome<ControlPlane> {
    let before = get(tx, id)?.ok_or(StoreError::NoControlPlane(id))?;
    let mut after = before.clone();
    if let Some(name) = update.name {
        name_is_free(tx, &name, Some(id))?;
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
    tx.execute(
        "UPDATE control_plane SET name = ?2, description = ?3, labels = ?4, auth_type = ?5,
         proxy_urls = ?6, updated_ms = ?7 WHERE id = ?1",
        params![
            id.as_bytes(),
            after.name,
            after.description,
            to_json(&after.labels),
            to_json(&after.auth_type),
            to_json(&after.proxy_urls),
            after.updated_at_ms,
        ],
    )?;
    let moved = if after.auth_type == before.auth_type {
        Bump::Neither
    } else {
        Bump::Trust
    };
    let number = number(tx, id)?;
    let head = bump(tx, id, number, moved)?;
    log(tx, actor, id, head.revision, Some(&before), Some(&after))?;
    Ok(after)
}

pub(crate) fn delete(tx: &mut WriteTx<'_>, actor: &Actor, id: Uuid) -> Outcome<()> {
    let before = get(tx, id)?.ok_or(StoreError::NoControlPlane(id))?;
    let number = number(tx, id)?;
    let head = bump(tx, id, number, Bump::Revision)?;
    // References between entities restrict; with all of them gone first the rest cascades.
    tx.execute(
        "DELETE FROM entity_ref WHERE from_eid IN (SELECT eid FROM entity WHERE cp = ?1)",
        [number],
    )?;
    tx.execute("DELETE FROM control_plane WHERE cp = ?1", [number])?;
    tx.announce(id, None);
    log(tx, actor, id, head.revision, Some(&before), None)
}

fn log(
    tx: &WriteTx<'_>,
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
    change_log::append(tx, &row)
}

fn name_is_free(tx: &Connection, name: &str, own: Option<Uuid>) -> Outcome<()> {
    let mut select = tx.prepare_cached("SELECT id FROM control_plane WHERE name = ?1")?;
    let holder = select.query_row([name], |row| uuid(row, 0)).optional()?;
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
fn free_prefix(tx: &Connection) -> Outcome<String> {
    loop {
        let mut bytes = [0; 5];
        getrandom::fill(&mut bytes)
            .map_err(|error| crate::StorageFailure::Engine(format!("no randomness: {error}")))
            .map_err(StoreError::Storage)?;
        let prefix: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if by_prefix(tx, &prefix)?.is_none() {
            return Ok(prefix);
        }
    }
}
