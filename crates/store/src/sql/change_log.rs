//! Who changed what, when, from what to what.

use serde_json::Value;
use uuid::Uuid;

use super::{Outcome, Tx, args, signed, to_json, unsigned};
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

pub(super) async fn append(tx: &mut Tx, row: &Row<'_>) -> Outcome<()> {
    let operation = match (row.before, row.after) {
        (None, _) => "create",
        (Some(_), Some(_)) => "update",
        (Some(_), None) => "delete",
    };
    let now = tx.now_ms();
    let id = row.id.to_string();
    let (before, after) = (row.before.map(to_json), row.after.map(to_json));
    tx.run(
        "INSERT INTO change_log (cp, revision, at_ms, actor, operation, kind, id, before, after)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        args![
            row.cp.as_ref(),
            signed(row.revision),
            now,
            &row.actor.0,
            operation,
            row.kind,
            &id,
            &before,
            &after,
        ],
    )
    .await?;
    Ok(())
}

/// Rows of what belongs to the control plane itself; those of a group tell of its members.
pub(crate) async fn since(tx: &mut Tx, cp: Uuid, after: u64, limit: usize) -> Outcome<Vec<Change>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.all(
        "SELECT revision, actor, at_ms, operation, kind, id, before, after FROM change_log
         WHERE cp = ?1 AND revision > ?2 AND kind NOT IN ('group', 'group_member')
         ORDER BY revision, seq LIMIT ?3",
        args![&cp, signed(after), limit],
        |row| {
            Ok(Change {
                revision: unsigned(row.int(0)?),
                actor: row.text(1)?,
                at_ms: row.int(2)?,
                operation: row.text(3)?,
                kind: row.text(4)?,
                id: row.text(5)?,
                before: row.json_or_null(6)?,
                after: row.json_or_null(7)?,
            })
        },
    )
    .await
}
