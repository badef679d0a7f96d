//! Who changed what, when, from what to what.

use rusqlite::{Connection, params};
use serde_json::Value;
use uuid::Uuid;

use super::{Outcome, WriteTx, json, to_json, unsigned};
use crate::{Actor, Change};

/// A row to append; revision is the control plane's after the change, 0 outside of one.
pub(super) struct Row<'a> {
    pub(super) cp: Option<Uuid>,
    pub(super) revision: u64,
    pub(super) actor: &'a Actor,
    pub(super) kind: &'a str,
    pub(super) id: Uuid,
    pub(super) before: Option<&'a Value>,
    pub(super) after: Option<&'a Value>,
}

pub(super) fn append(tx: &WriteTx<'_>, row: &Row<'_>) -> Outcome<()> {
    let operation = match (row.before, row.after) {
        (None, _) => "create",
        (Some(_), Some(_)) => "update",
        (Some(_), None) => "delete",
    };
    let mut insert = tx.prepare_cached(
        "INSERT INTO change_log (cp, revision, at_ms, actor, operation, kind, id, before, after)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(params![
        row.cp.as_ref().map(Uuid::as_bytes),
        i64::try_from(row.revision).unwrap_or(i64::MAX),
        tx.now_ms(),
        row.actor.0,
        operation,
        row.kind,
        row.id.to_string(),
        row.before.map(to_json),
        row.after.map(to_json),
    ])?;
    Ok(())
}

pub(crate) fn since(tx: &Connection, cp: Uuid, after: u64, limit: usize) -> Outcome<Vec<Change>> {
    let mut select = tx.prepare_cached(
        "SELECT revision, actor, at_ms, operation, kind, id, before, after FROM change_log
         WHERE cp = ?1 AND revision > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![cp.as_bytes(), after, limit], |row| {
        let value = |column: usize| -> rusqlite::Result<Option<Value>> {
            match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => Ok(None),
                _ => json(row, column).map(Some),
            }
        };
        Ok(Change {
            revision: unsigned(row.get(0)?),
            actor: row.get(1)?,
            at_ms: row.get(2)?,
            operation: row.get(3)?,
            kind: row.get(4)?,
            id: row.get(5)?,
            before: value(6)?,
            after: value(7)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
