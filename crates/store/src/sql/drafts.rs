//! Rows of drafts, and their way back into what they were branched from.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::control_planes::{self, lock};
use super::restore::differences;
use super::{Outcome, Tx, args, batch, list as entities, past, signed, unsigned};
use crate::{Actor, Applied, Difference, Draft, NewControlPlane, Put, StoreError, Write};

/// What belongs to entities, copied with them. `?1` is the copy, `?2` the original; entities of
/// both have the same kinds and ids.
const COPY: [&str; 4] = [
    "INSERT INTO entity (cp, kind, id, created_us, body)
     SELECT ?1, kind, id, created_us, body FROM entity WHERE cp = ?2",
    "INSERT INTO entity_unique (cp, kind, field, value, eid)
     SELECT ?1, u.kind, u.field, u.value, n.eid FROM entity_unique u
     JOIN entity o ON o.eid = u.eid
     JOIN entity n ON n.cp = ?1 AND n.kind = o.kind AND n.id = o.id WHERE u.cp = ?2",
    "INSERT INTO entity_ref (from_eid, field, to_eid, cascades)
     SELECT nf.eid, r.field, nt.eid, r.cascades FROM entity_ref r
     JOIN entity f ON f.eid = r.from_eid AND f.cp = ?2
     JOIN entity nf ON nf.cp = ?1 AND nf.kind = f.kind AND nf.id = f.id
     JOIN entity t ON t.eid = r.to_eid
     JOIN entity nt ON nt.cp = ?1 AND nt.kind = t.kind AND nt.id = t.id",
    "INSERT INTO entity_tag (eid, tag)
     SELECT n.eid, g.tag FROM entity_tag g JOIN entity o ON o.eid = g.eid AND o.cp = ?2
     JOIN entity n ON n.cp = ?1 AND n.kind = o.kind AND n.id = o.id",
];

/// The copy stands at revision 0 and is in no change log: it is the origin at its base.
pub(crate) async fn create(
    tx: &mut Tx,
    actor: Actor,
    origin: Uuid,
    name: String,
    description: String,
) -> Outcome<Draft> {
    tx.lock_installation().await?;
    let locked = lock(tx, origin).await?;
    let found = control_planes::get(tx, origin).await?;
    let found = found.ok_or(StoreError::NoControlPlane(origin))?;
    if get(tx, origin).await?.is_some() {
        return Err(StoreError::NoControlPlane(origin).into());
    }
    let new = NewControlPlane {
        name: format!("{}/{name}", found.name),
        description,
        labels: BTreeMap::new(),
        cluster_type: found.cluster_type,
        auth_type: found.auth_type,
        cloud_gateway: false,
        proxy_urls: Vec::new(),
    };
    let made = control_planes::create(tx, actor, new).await?;
    let copy = control_planes::number(tx, made.id).await?;
    for sql in COPY {
        tx.run(sql, args![copy, locked.number]).await?;
    }
    let base = locked.head.revision;
    let sql = "INSERT INTO draft (cp, origin, base) VALUES (?1, ?2, ?3)";
    tx.run(sql, args![copy, locked.number, signed(base)])
        .await?;
    Ok(Draft {
        control_plane: made,
        origin,
        base,
    })
}

const DRAFT: &str = "JOIN draft d ON d.cp = c.cp JOIN control_plane o ON o.cp = d.origin";

pub(crate) async fn list(tx: &mut Tx, origin: Option<Uuid>) -> Outcome<Vec<Draft>> {
    let columns = control_planes::COLUMNS;
    let only = origin.map_or("", |_| "WHERE o.id = ?1");
    let sql = format!(
        "SELECT {columns}, o.id, d.base FROM control_plane c {DRAFT} {only}
         ORDER BY c.created_ms, c.id"
    );
    let values = args![origin.as_ref()];
    let values = if origin.is_some() { &values[..] } else { &[] };
    let first = control_planes::COLUMNS_COUNT;
    tx.all(&sql, values, |row| {
        Ok(Draft {
            control_plane: control_planes::from_row(row)?,
            origin: row.uuid(first)?,
            base: unsigned(row.int(first + 1)?),
        })
    })
    .await
}

pub(crate) async fn get(tx: &mut Tx, id: Uuid) -> Outcome<Option<Draft>> {
    let sql = format!("SELECT o.id, d.base FROM control_plane c {DRAFT} WHERE c.id = ?1");
    let found = tx
        .first(&sql, args![&id], |row| {
            Ok((row.uuid(0)?, unsigned(row.int(1)?)))
        })
        .await?;
    let Some((origin, base)) = found else {
        return Ok(None);
    };
    let found = control_planes::get(tx, id).await?;
    Ok(found.map(|control_plane| Draft {
        control_plane,
        origin,
        base,
    }))
}

/// The draft with this id, and what it changes of its base.
async fn changed(tx: &mut Tx, id: Uuid) -> Outcome<(Draft, Vec<Difference>)> {
    let draft = get(tx, id).await?.ok_or(StoreError::NotFound)?;
    let before = past::snapshot(tx, draft.origin, draft.base, None).await?;
    let after = entities::own_snapshot(tx, id).await?;
    Ok((draft, differences(before, after)?))
}

pub(crate) async fn changes(tx: &mut Tx, id: Uuid) -> Outcome<Vec<Difference>> {
    Ok(changed(tx, id).await?.1)
}

pub(crate) async fn promote(
    tx: &mut Tx,
    actor: Actor,
    id: Uuid,
    expected: Option<u64>,
) -> Outcome<Applied> {
    let draft = get(tx, id).await?.ok_or(StoreError::NotFound)?;
    // The origin first, as everything that takes several heads does it.
    let newest = lock(tx, draft.origin).await?.head.revision;
    lock(tx, id).await?;
    if let Some(expected) = expected.filter(|expected| *expected != newest) {
        let found = newest;
        return Err(StoreError::Moved { expected, found }.into());
    }
    let (draft, changes) = changed(tx, id).await?;
    let before = past::snapshot(tx, draft.origin, draft.base, None).await?;
    let now = past::snapshot(tx, draft.origin, newest, None).await?;
    let elsewhere: BTreeMap<_, _> = differences(before, now)?
        .into_iter()
        .map(|change| ((change.kind, change.id), change.after))
        .collect();
    let mut writes = Vec::new();
    for change in changes {
        let (kind, id) = (change.kind, change.id);
        match elsewhere.get(&(kind, id)) {
            // both came to the same
            Some(other) if *other == change.after => continue,
            Some(_) => return Err(StoreError::Diverged { kind, id }.into()),
            None => {}
        }
        writes.push(match change.after {
            Some(body) => Write::Put(Put::of(kind, id, body)),
            None => Write::Delete(kind, id),
        });
    }
    let applied = batch::apply(tx, draft.origin, actor.clone(), None, writes).await?;
    let log = json!({"draft": draft.control_plane.name, "changes": applied.count});
    let id = draft.control_plane.id;
    super::identity::log(tx, &actor, "draft", id, None, Some(&log)).await?;
    control_planes::delete(tx, actor, id).await?;
    Ok(applied)
}
