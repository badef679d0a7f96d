//! Several writes as one change: all of them in one revision, or none.

use std::collections::HashSet;

use uuid::Uuid;

use super::control_planes::{Bump, bump, lock};
use super::delete::{Doomed, refuse_if_held, remove};
use super::entities::{
    self, Prepared, clear_index, log, prepare, resolve, unique_is_free, write_body,
    write_references, write_tags, write_unique,
};
use super::{Outcome, Tx};
use crate::{Actor, Applied, StoreError, Write};

/// In steps over the whole set, so that the order of the writes does not matter: an entity may
/// refer to one that comes later, and take a name that another one gives up.
pub(crate) async fn apply(
    tx: &mut Tx,
    cp: Uuid,
    actor: Actor,
    expected: Option<u64>,
    writes: Vec<Write>,
) -> Outcome<Applied> {
    let locked = lock(tx, cp).await?;
    let (number, found) = (locked.number, locked.head.revision);
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(StoreError::Moved { expected, found }.into());
    }
    let mut seen = HashSet::new();
    let mut puts = Vec::new();
    let mut doomed = Vec::new();
    for write in writes {
        let (kind, id) = match &write {
            Write::Put(put) => (put.kind, put.id),
            Write::Delete(kind, id) => (*kind, *id),
        };
        if !seen.insert((kind, id)) {
            return Err(StoreError::WrittenTwice { kind, id }.into());
        }
        match write {
            Write::Put(put) => puts.extend(prepare(tx, number, put).await?.ok()),
            Write::Delete(kind, id) => {
                let row = entities::row(tx, number, kind, id).await?;
                let (eid, body) = row.ok_or(StoreError::NotFound)?;
                doomed.push(Doomed {
                    eid,
                    kind,
                    id,
                    body,
                });
            }
        }
    }
    if puts.is_empty() && doomed.is_empty() {
        return Ok(Applied {
            count: 0,
            revision: found,
        });
    }
    let written = puts.iter().filter_map(|put| put.old.as_ref());
    let touched: Vec<i64> = written.map(|(eid, _)| *eid).collect();
    for eid in touched
        .into_iter()
        .chain(doomed.iter().map(|entity| entity.eid))
    {
        clear_index(tx, eid).await?;
    }
    // Whatever refers to them now is not part of this change.
    refuse_if_held(tx, &doomed, "").await?;
    let revision = bump(tx, &actor, cp, number, Bump::Revision).await?.revision;
    remove(tx, cp, &actor, revision, &doomed).await?;
    let mut eids = Vec::with_capacity(puts.len());
    for Prepared { put, old } in &puts {
        let own = old.as_ref().map(|(eid, _)| *eid);
        let eid = write_body(tx, number, put, own).await?;
        unique_is_free(tx, number, put, own).await?;
        write_unique(tx, number, put, eid).await?;
        write_tags(tx, eid, &put.tags).await?;
        eids.push(eid);
    }
    for (Prepared { put, old }, eid) in puts.iter().zip(eids) {
        let targets = resolve(tx, number, &put.foreign).await?;
        write_references(tx, eid, &put.foreign, &targets).await?;
        let before = old.as_ref().map(|(_, before)| before);
        log(tx, cp, &actor, revision, put, before).await?;
    }
    Ok(Applied {
        count: puts.len() + doomed.len(),
        revision,
    })
}
