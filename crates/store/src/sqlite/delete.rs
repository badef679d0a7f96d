//! Deletion with everything that cascades from it.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::change_log::{self, Row};
use super::control_planes::{Bump, bump, number};
use super::{Outcome, WriteTx, damaged, entities, json, uuid};
use crate::{Actor, Deleted, StoreError};

/// An entity that goes.
struct Doomed {
    eid: i64,
    kind: Kind,
    id: Uuid,
    body: Value,
}

pub(crate) fn delete(
    tx: &mut WriteTx<'_>,
    cp: Uuid,
    actor: &Actor,
    kind: Kind,
    id: Uuid,
) -> Outcome<Deleted> {
    let number = number(tx, cp)?;
    let (eid, body) = entities::row(tx, number, kind, id)?.ok_or(StoreError::NotFound)?;
    let doomed = closure(
        tx,
        Doomed {
            eid,
            kind,
            id,
            body,
        },
    )?;
    refuse_if_held(tx, &doomed)?;
    let revision = bump(tx, cp, number, Bump::Revision)?.revision;
    // Dependents first: nothing may refer to a row that is gone.
    for entity in doomed.iter().rev() {
        tx.prepare_cached("DELETE FROM entity_ref WHERE from_eid = ?1")?
            .execute([entity.eid])?;
    }
    for entity in doomed.iter().rev() {
        tx.prepare_cached("DELETE FROM entity WHERE eid = ?1")?
            .execute([entity.eid])?;
        let row = Row {
            cp: Some(cp),
            revision,
            actor,
            kind: entity.kind.table(),
            id: entity.id,
            before: Some(&entity.body),
            after: None,
        };
        change_log::append(tx, &row)?;
    }
    Ok(Deleted {
        count: doomed.len(),
        revision,
    })
}

/// `first` and everything that cascades from it, what is referred to before what refers.
fn closure(tx: &Connection, first: Doomed) -> Outcome<Vec<Doomed>> {
    let mut seen = BTreeSet::from([first.eid]);
    let mut doomed = vec![first];
    let mut select = tx.prepare_cached(
        "SELECT eid, kind, id, body FROM entity_ref JOIN entity ON eid = from_eid
         WHERE to_eid = ?1 AND cascades = 1",
    )?;
    let mut next = 0;
    while let Some(entity) = doomed.get(next) {
        let rows = select.query_map(params![entity.eid], |row| {
            Ok(Doomed {
                eid: row.get(0)?,
                kind: kind_at(row, 1)?,
                id: uuid(row, 2)?,
                body: json(row, 3)?,
            })
        })?;
        let found: Vec<Doomed> = rows.collect::<rusqlite::Result<_>>()?;
        doomed.extend(found.into_iter().filter(|entity| seen.insert(entity.eid)));
        next += 1;
    }
    Ok(doomed)
}

/// Refuses if an entity that would stay refers to one that would go.
fn refuse_if_held(tx: &Connection, doomed: &[Doomed]) -> Outcome<()> {
    let going: BTreeSet<i64> = doomed.iter().map(|entity| entity.eid).collect();
    let mut select = tx.prepare_cached(
        "SELECT eid, kind, id FROM entity_ref JOIN entity ON eid = from_eid
         WHERE to_eid = ?1 AND cascades = 0 ORDER BY eid",
    )?;
    for entity in doomed {
        let mut rows = select.query([entity.eid])?;
        while let Some(row) = rows.next()? {
            if !going.contains(&row.get(0)?) {
                let held = StoreError::StillReferenced {
                    by: kind_at(row, 1)?,
                    id: uuid(row, 2)?,
                };
                return Err(held.into());
            }
        }
    }
    Ok(())
}

/// A stored kind.
pub(super) fn kind_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    let name = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| damaged(column, error))?;
    Kind::from_table(name).ok_or_else(|| {
        damaged(
            column,
            std::io::Error::other(format!("this build does not know the kind {name}")),
        )
    })
}
