//! Changes, and the entities around them; see [`Around`].

use std::collections::{BTreeMap, HashSet};

use sallyport_model::Kind;
use sallyport_model::config_table::{belongs_to, decides};
use sallyport_model::schema::reference;
use serde_json::Value;
use uuid::Uuid;

use super::delete::kind_at;
use super::{Outcome, Tx, args, change_log, control_planes, entities, groups};
use crate::{Around, Change};

/// Entities by what they are.
type Key = (Kind, Uuid);

pub(crate) async fn around(
    tx: &mut Tx,
    cp: Uuid,
    after: u64,
    limit: usize,
) -> Outcome<Option<Around>> {
    let revision = entities::revision(tx, cp).await?;
    let is_group = !groups::members(tx, cp).await?.is_empty();
    let changes = match is_group {
        true => groups::changes(tx, cp, after, limit).await?.map(|it| it.1),
        false => {
            let changes = change_log::since(tx, cp, after, limit).await?;
            let follows = match changes.first() {
                Some(first) => first.revision == after + 1,
                None => revision == after,
            };
            (follows && changes.len() < limit).then_some(changes)
        }
    };
    let Some(changes) = changes else {
        return Ok(None);
    };
    let number = control_planes::number(tx, cp).await?;
    let place = match is_group {
        true => Place::Members(number),
        false => Place::Own(number),
    };
    let others = others(tx, place, &changes, limit).await?;
    Ok(others.map(|others| Around {
        revision,
        changes,
        others,
    }))
}

async fn others(
    tx: &mut Tx,
    place: Place,
    changes: &[Change],
    limit: usize,
) -> Outcome<Option<Vec<(Kind, Value)>>> {
    let mut changed: HashSet<Key> = HashSet::new();
    let mut wanted: Vec<Key> = Vec::new();
    let mut deciding: Vec<Key> = Vec::new();
    // each change counts, also one that a later one undoes: who asks may start in between
    for change in changes {
        let id = Uuid::try_parse(&change.id);
        let (Some(kind), Ok(id)) = (Kind::from_table(&change.kind), id) else {
            continue;
        };
        changed.insert((kind, id));
        let (before, after) = (&change.before, &change.after);
        for body in before.iter().chain(after) {
            wanted.extend(parents(kind, body));
        }
        if let (Some(before), Some(after)) = (before, after)
            && decides(kind, before, after)
        {
            deciding.push((kind, id));
        }
    }
    let mut others: BTreeMap<Key, Value> = BTreeMap::new();
    let mut asked: HashSet<Key> = deciding.iter().copied().collect();
    while let Some(key) = deciding.pop() {
        for (kind, id, body) in belonging(tx, place, key).await? {
            // what is served or not with it decides in turn
            if kind == Kind::Route && asked.insert((kind, id)) {
                deciding.push((kind, id));
            }
            if !changed.contains(&(kind, id)) {
                wanted.extend(parents(kind, &body));
                others.insert((kind, id), body);
            }
        }
        if others.len() >= limit {
            return Ok(None);
        }
    }
    while let Some(key) = wanted.pop() {
        if changed.contains(&key) || others.contains_key(&key) {
            continue;
        }
        if let Some(body) = found(tx, place, key).await? {
            wanted.extend(parents(key.0, &body));
            others.insert(key, body);
        }
        if others.len() >= limit {
            return Ok(None);
        }
    }
    let others = others.into_iter().map(|((kind, _), body)| (kind, body));
    Ok(Some(others.collect()))
}

fn parents(kind: Kind, body: &Value) -> impl Iterator<Item = Key> {
    let fields = belongs_to(kind).iter();
    fields.filter_map(|(field, parent)| Some((*parent, reference(&body[field])?)))
}

/// Whose entities are served, by the number.
#[derive(Clone, Copy)]
enum Place {
    /// Those of this control plane.
    Own(i64),
    /// Those of the members of this group.
    Members(i64),
}

impl Place {
    /// The condition on `e.cp`, and its argument ?1.
    fn condition(self) -> (&'static str, i64) {
        match self {
            Place::Own(number) => ("e.cp = ?1", number),
            Place::Members(number) => (
                "e.cp IN (SELECT member FROM group_member WHERE cp_group = ?1)",
                number,
            ),
        }
    }
}

async fn found(tx: &mut Tx, place: Place, (kind, id): Key) -> Outcome<Option<Value>> {
    let (condition, number) = place.condition();
    let sql =
        format!("SELECT e.body FROM entity e WHERE {condition} AND e.kind = ?2 AND e.id = ?3");
    let args = args![number, kind.table(), &id];
    tx.first(&sql, args, |row| row.json(0)).await
}

/// What belongs to an entity.
async fn belonging(
    tx: &mut Tx,
    place: Place,
    (kind, id): Key,
) -> Outcome<Vec<(Kind, Uuid, Value)>> {
    let (condition, number) = place.condition();
    let sql = format!(
        "SELECT f.kind, f.id, f.body FROM entity e JOIN entity_ref r ON r.to_eid = e.eid
         JOIN entity f ON f.eid = r.from_eid
         WHERE {condition} AND e.kind = ?2 AND e.id = ?3 AND f.kind IN ('routes', 'plugins')"
    );
    let args = args![number, kind.table(), &id];
    let read = |row: &super::Row<'_>| Ok((kind_at(row, 0)?, row.uuid(1)?, row.json(2)?));
    tx.all(&sql, args, read).await
}
