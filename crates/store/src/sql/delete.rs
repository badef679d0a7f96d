//! Deletion with everything that cascades from it.

use std::collections::BTreeSet;

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::control_planes::{Bump, bump, lock};
use super::{Fail, Outcome, Row, Tx, args, entities};
use crate::{Actor, Deleted, StoreError};

/// An entity that goes.
pub(super) struct Doomed {
    pub(super) eid: i64,
    pub(super) kind: Kind,
    pub(super) id: Uuid,
    pub(super) body: Value,
}

pub(crate) async fn delete(
    tx: &mut Tx,
    cp: Uuid,
    actor: Actor,
    kind: Kind,
    id: Uuid,
) -> Outcome<Deleted> {
    let number = lock(tx, cp).await?.number;
    let (eid, body) = entities::row(tx, number, kind, id)
        .await?
        .ok_or(StoreError::NotFound)?;
    let first = Doomed {
        eid,
        kind,
        id,
        body,
    };
    let doomed = closure(tx, first).await?;
    refuse_if_held(tx, &doomed, "AND cascades = 0").await?;
    let revision = bump(tx, &actor, cp, number, Bump::Revision).await?.revision;
    // Dependents first: nothing may refer to a row that is gone.
    for entity in doomed.iter().rev() {
        tx.run(
            "DELETE FROM entity_ref WHERE from_eid = ?1",
            args![entity.eid],
        )
        .await?;
    }
    remove(tx, cp, &actor, revision, &doomed).await?;
    Ok(Deleted {
        count: doomed.len(),
        revision,
    })
}

/// Deletes the rows of entities that nothing refers to any more, and logs it.
pub(super) async fn remove(
    tx: &mut Tx,
    cp: Uuid,
    actor: &Actor,
    revision: u64,
    doomed: &[Doomed],
) -> Outcome<()> {
    for entity in doomed.iter().rev() {
        tx.run("DELETE FROM entity WHERE eid = ?1", args![entity.eid])
            .await?;
        let row = LogRow {
            cp: Some(cp),
            revision,
            actor,
            kind: entity.kind.table(),
            id: entity.id,
            before: Some(&entity.body),
            after: None,
        };
        change_log::append(tx, &row).await?;
    }
    Ok(())
}

/// `first` and everything that cascades from it, what is referred to before what refers.
async fn closure(tx: &mut Tx, first: Doomed) -> Outcome<Vec<Doomed>> {
    let mut seen = BTreeSet::from([first.eid]);
    let mut doomed = vec![first];
    let mut next = 0;
    while let Some(entity) = doomed.get(next) {
        let found = tx
            .all(
                "SELECT eid, kind, id, body FROM entity_ref JOIN entity ON eid = from_eid
                 WHERE to_eid = ?1 AND cascades = 1",
                args![entity.eid],
                |row| {
                    Ok(Doomed {
                        eid: row.int(0)?,
                        kind: kind_at(row, 1)?,
                        id: row.uuid(2)?,
                        body: row.json(3)?,
                    })
                },
            )
            .await?;
        doomed.extend(found.into_iter().filter(|entity| seen.insert(entity.eid)));
        next += 1;
    }
    Ok(doomed)
}

/// Refuses if an entity that would stay refers to one that would go; `which` narrows the
/// references that count.
pub(super) async fn refuse_if_held(tx: &mut Tx, doomed: &[Doomed], which: &str) -> Outcome<()> {
    let going: BTreeSet<i64> = doomed.iter().map(|entity| entity.eid).collect();
    let sql = format!(
        "SELECT eid, kind, id FROM entity_ref JOIN entity ON eid = from_eid
         WHERE to_eid = ?1 {which} ORDER BY eid"
    );
    for entity in doomed {
        let holders = tx
            .all(&sql, args![entity.eid], |row| {
                Ok((row.int(0)?, kind_at(row, 1)?, row.uuid(2)?))
            })
            .await?;
        let held = holders.into_iter().find(|(eid, ..)| !going.contains(eid));
        if let Some((_, by, id)) = held {
            return Err(StoreError::StillReferenced { by, id }.into());
        }
    }
    Ok(())
}

/// A stored kind.
pub(super) fn kind_at(row: &Row<'_>, column: usize) -> Outcome<Kind> {
    let name = row.str(column)?;
    Kind::from_table(name)
        .ok_or_else(|| Fail::Damaged(format!("this build does not know the kind {name}")))
}
