//! Comparison of versions, and a past one as the newest.

use std::collections::BTreeMap;

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::control_planes::lock;
use super::{Fail, Outcome, Tx, batch, past};
use crate::{Actor, Applied, Difference, Put, Snapshot, StoreError, Write};

/// What leads from one version to another, in the order of kinds and ids.
pub(crate) async fn compare(tx: &mut Tx, cp: Uuid, from: u64, to: u64) -> Outcome<Vec<Difference>> {
    let from = past::snapshot(tx, cp, from, None).await?;
    let to = past::snapshot(tx, cp, to, None).await?;
    differences(from, to)
}

pub(super) fn differences(from: Snapshot, to: Snapshot) -> Outcome<Vec<Difference>> {
    let (mut from, to) = (by_id(from)?, by_id(to)?);
    let mut found = BTreeMap::new();
    for ((kind, id), after) in to {
        let before = from.remove(&(kind, id));
        if before.as_ref() != Some(&after) {
            let difference = Difference {
                kind,
                id,
                before,
                after: Some(after),
            };
            found.insert((kind, id), difference);
        }
    }
    for ((kind, id), before) in from {
        let difference = Difference {
            kind,
            id,
            before: Some(before),
            after: None,
        };
        found.insert((kind, id), difference);
    }
    Ok(found.into_values().collect())
}

fn by_id(snapshot: Snapshot) -> Outcome<BTreeMap<(Kind, Uuid), Value>> {
    let mut all = BTreeMap::new();
    for (kind, list) in snapshot.entities {
        for body in list {
            all.insert((kind, id(&body)?), body);
        }
    }
    Ok(all)
}

fn id(body: &Value) -> Outcome<Uuid> {
    let id = body["id"].as_str().and_then(|id| Uuid::try_parse(id).ok());
    id.ok_or_else(|| Fail::Damaged("an entity has no id".to_owned()))
}

/// Makes the entities what they were at `revision`, as one change on top of the newest version.
pub(crate) async fn restore(
    tx: &mut Tx,
    cp: Uuid,
    actor: Actor,
    revision: u64,
    expected: Option<u64>,
) -> Outcome<Applied> {
    // Locked before it is read, so that nothing comes in between.
    let newest = lock(tx, cp).await?.head.revision;
    if let Some(expected) = expected.filter(|expected| *expected != newest) {
        let found = newest;
        return Err(StoreError::Moved { expected, found }.into());
    }
    let wanted = past::snapshot(tx, cp, revision, None).await?;
    let current = past::snapshot(tx, cp, newest, None).await?;
    let writes =
        differences(current, wanted)?
            .into_iter()
            .map(|difference| match difference.after {
                Some(body) => Write::Put(Put::of(difference.kind, difference.id, body)),
                None => Write::Delete(difference.kind, difference.id),
            });
    batch::apply(tx, cp, actor, None, writes.collect()).await
}
