//! Rows of entities and of their indexes.

use rusqlite::{Connection, OptionalExtension, params};
use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::change_log::{self, Row};
use super::control_planes::{Bump, bump, number};
use super::{Outcome, WriteTx, json, to_json, unsigned};
use crate::{Actor, IfExists, OnDelete, Put, Reference, StoreError, Stored};

pub(crate) fn get(tx: &Connection, cp: Uuid, kind: Kind, id: Uuid) -> Outcome<Option<Value>> {
    let number = number(tx, cp)?;
    Ok(row(tx, number, kind, id)?.map(|(_, body)| body))
}

/// The row number and body of an entity.
pub(super) fn row(
    tx: &Connection,
    number: i64,
    kind: Kind,
    id: Uuid,
) -> Outcome<Option<(i64, Value)>> {
    let mut select =
        tx.prepare_cached("SELECT eid, body FROM entity WHERE cp = ?1 AND kind = ?2 AND id = ?3")?;
    let found = select
        .query_row(params![number, kind.table(), id.as_bytes()], |row| {
            Ok((row.get(0)?, json(row, 1)?))
        })
        .optional()?;
    Ok(found)
}

pub(crate) fn find(
    tx: &Connection,
    cp: Uuid,
    kind: Kind,
    field: &str,
    value: &str,
) -> Outcome<Option<Value>> {
    let number = number(tx, cp)?;
    let mut select = tx.prepare_cached(
        "SELECT body FROM entity_unique JOIN entity USING (eid)
         WHERE entity_unique.cp = ?1 AND entity_unique.kind = ?2 AND field = ?3 AND value = ?4",
    )?;
    let found = select
        .query_row(params![number, kind.table(), field, value], |row| {
            json(row, 0)
        })
        .optional()?;
    Ok(found)
}

pub(crate) fn revision(tx: &Connection, cp: Uuid) -> Outcome<u64> {
    let number = number(tx, cp)?;
    let mut select = tx.prepare_cached("SELECT revision FROM cp_head WHERE cp = ?1")?;
    Ok(unsigned(select.query_row([number], |row| row.get(0))?))
}

pub(crate) fn put(tx: &mut WriteTx<'_>, cp: Uuid, actor: &Actor, put: Put) -> Outcome<Stored> {
    let number = number(tx, cp)?;
    let old = row(tx, number, put.kind, put.id)?;
    if old.is_some() && put.if_exists == IfExists::Refuse {
        let taken = StoreError::UniqueTaken {
            field: "id".to_owned(),
            value: put.id.to_string(),
        };
        return Err(taken.into());
    }
    let mut body = put.body;
    if let Some((_, before)) = &old {
        keep_creation(before, &mut body);
        if same_but_for_update_time(before, &body) {
            let revision = revision(tx, cp)?;
            return Ok(Stored {
                body: before.clone(),
                created: false,
                changed: false,
                revision,
            });
        }
    }
    let own = old.as_ref().map(|(eid, _)| *eid);
    unique_is_free(tx, number, put.kind, &put.unique, own)?;
    let targets = resolve(tx, number, &put.foreign)?;
    let eid = match own {
        Some(eid) => {
            let mut update = tx.prepare_cached("UPDATE entity SET body = ?2 WHERE eid = ?1")?;
            update.execute(params![eid, to_json(&body)])?;
            for table in [
                "entity_unique WHERE eid",
                "entity_ref WHERE from_eid",
                "entity_tag WHERE eid",
            ] {
                tx.prepare_cached(&format!("DELETE FROM {table} = ?1"))?
                    .execute([eid])?;
            }
            eid
        }
        None => {
            let mut insert = tx.prepare_cached(
                "INSERT INTO entity (cp, kind, id, created_us, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let id = put.id.as_bytes();
            insert.execute(params![
                number,
                put.kind.table(),
                id,
                tx.now_us,
                to_json(&body)
            ])?;
            tx.last_insert_rowid()
        }
    };
    for (field, value) in &put.unique {
        let mut insert = tx.prepare_cached(
            "INSERT INTO entity_unique (cp, kind, field, value, eid) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        insert.execute(params![number, put.kind.table(), field, value, eid])?;
    }
    for (reference, to_eid) in put.foreign.iter().zip(targets) {
        let mut insert = tx.prepare_cached(
            "INSERT OR IGNORE INTO entity_ref (from_eid, field, to_eid, cascades)
             VALUES (?1, ?2, ?3, ?4)",
        )?;
        let cascades = reference.on_delete == OnDelete::Cascade;
        insert.execute(params![eid, reference.field, to_eid, cascades])?;
    }
    for tag in &put.tags {
        let mut insert =
            tx.prepare_cached("INSERT OR IGNORE INTO entity_tag (eid, tag) VALUES (?1, ?2)")?;
        insert.execute(params![eid, tag])?;
    }
    let revision = bump(tx, cp, number, Bump::Revision)?.revision;
    let before = old.map(|(_, before)| before);
    let row = Row {
        cp: Some(cp),
        revision,
        actor,
        kind: put.kind.table(),
        id: put.id,
        before: before.as_ref(),
        after: Some(&body),
    };
    change_log::append(tx, &row)?;
    Ok(Stored {
        body,
        created: before.is_none(),
        changed: true,
        revision,
    })
}

fn keep_creation(before: &Value, body: &mut Value) {
    if let (Some(created_at), Some(body)) = (before.get("created_at"), body.as_object_mut()) {
        body.insert("created_at".to_owned(), created_at.clone());
    }
}

fn same_but_for_update_time(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let rest = |key: &str| key != "updated_at";
    a.iter()
        .filter(|(key, _)| rest(key))
        .eq(b.iter().filter(|(key, _)| rest(key)))
}

fn unique_is_free(
    tx: &Connection,
    number: i64,
    kind: Kind,
    unique: &[(String, String)],
    own: Option<i64>,
) -> Outcome<()> {
    let mut select = tx.prepare_cached(
        "SELECT eid FROM entity_unique WHERE cp = ?1 AND kind = ?2 AND field = ?3 AND value = ?4",
    )?;
    for (field, value) in unique {
        let holder: Option<i64> = select
            .query_row(params![number, kind.table(), field, value], |row| {
                row.get(0)
            })
            .optional()?;
        if holder.is_some() && holder != own {
            let taken = StoreError::UniqueTaken {
                field: field.clone(),
                value: value.clone(),
            };
            return Err(taken.into());
        }
    }
    Ok(())
}

/// The row numbers of what is referred to, in the order of the references.
fn resolve(tx: &Connection, number: i64, foreign: &[Reference]) -> Outcome<Vec<i64>> {
    let mut select =
        tx.prepare_cached("SELECT eid FROM entity WHERE cp = ?1 AND kind = ?2 AND id = ?3")?;
    let mut targets = Vec::with_capacity(foreign.len());
    for reference in foreign {
        let Reference {
            field, kind, id, ..
        } = reference;
        let found: Option<i64> = select
            .query_row(params![number, kind.table(), id.as_bytes()], |row| {
                row.get(0)
            })
            .optional()?;
        let missing = StoreError::ForeignMissing {
            field: field.clone(),
            kind: *kind,
            id: *id,
        };
        targets.push(found.ok_or(missing)?);
    }
    Ok(targets)
}
