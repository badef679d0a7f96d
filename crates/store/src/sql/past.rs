//! Past versions, read backwards out of the change log.
//!
//! An entity at version R is what stood before its first change after R, or what stands now if
//! there was none. So a past version costs the changes since then, and nothing is kept for it
//! beside the log.

use std::collections::{BTreeMap, HashMap};

use sallyport_model::{Kind, schema};
use serde_json::Value;
use uuid::Uuid;

use super::delete::kind_at;
use super::list::Offset;
use super::{Outcome, Tx, args, control_planes, entities, signed, unsigned};
use crate::{ListQuery, Page, Snapshot, StoreError, Tags, Version};

/// Rows of the log that are no part of a version's entities.
const ENTITIES_ONLY: &str = "kind NOT IN ('control_plane', 'dp_certificate')";

/// Refuses a revision that is not there yet.
async fn check(tx: &mut Tx, cp: Uuid, revision: u64) -> Outcome<()> {
    let newest = entities::revision(tx, cp).await?;
    if revision > newest {
        return Err(StoreError::NoRevision { revision, newest }.into());
    }
    Ok(())
}

pub(crate) async fn get(
    tx: &mut Tx,
    cp: Uuid,
    revision: u64,
    kind: Kind,
    id: Uuid,
) -> Outcome<Option<Value>> {
    check(tx, cp, revision).await?;
    let changed = tx
        .first(
            "SELECT before FROM change_log WHERE cp = ?1 AND kind = ?2 AND id = ?3
             AND revision > ?4 ORDER BY revision, seq LIMIT 1",
            args![&cp, kind.table(), &id.to_string(), signed(revision)],
            |row| row.json_or_null(0),
        )
        .await?;
    match changed {
        Some(before) => Ok(before),
        None => entities::get(tx, cp, kind, id).await,
    }
}

pub(crate) async fn find(
    tx: &mut Tx,
    cp: Uuid,
    revision: u64,
    kind: Kind,
    field: String,
    value: String,
) -> Outcome<Option<Value>> {
    let all = of_kind(tx, cp, revision, kind).await?;
    Ok(found_in(all, kind, &field, &value))
}

/// The entity of a list by the value of a unique field.
pub(super) fn found_in(all: Vec<Value>, kind: Kind, field: &str, value: &str) -> Option<Value> {
    all.into_iter().find(|body| {
        let unique = schema::index(kind, body).unique;
        let same = |(own, held): &(&str, String)| *own == field && held == value;
        unique.iter().any(same)
    })
}

pub(crate) async fn list(
    tx: &mut Tx,
    cp: Uuid,
    revision: u64,
    kind: Kind,
    query: ListQuery,
) -> Outcome<Page> {
    let all = of_kind(tx, cp, revision, kind).await?;
    Ok(page_of(all, &query)?)
}

/// A page of a list that is in the order of creation and id.
pub(super) fn page_of(mut all: Vec<Value>, query: &ListQuery) -> Result<Page, StoreError> {
    let offset = query.offset.as_deref().map(Offset::parse).transpose()?;
    all.retain(|body| {
        let after = |Offset(created, id): &Offset| order(body) > (*created, *id);
        offset.as_ref().is_none_or(after) && wanted(body, query)
    });
    let size = query.size.max(1);
    let more = all.len() > size;
    all.truncate(size);
    let last = all.last().filter(|_| more).map(order);
    let next_offset = last.map(|(created, id)| Offset(created, id).text());
    Ok(Page {
        items: all,
        next_offset,
    })
}

/// Whether an entity has the tags and the parent that are asked for.
fn wanted(body: &Value, query: &ListQuery) -> bool {
    let tags = body["tags"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |tag: &String| tags.iter().any(|own| own == tag.as_str());
    let tagged = match &query.tags {
        Tags::Ignore => true,
        Tags::All(wanted) => wanted.iter().all(has),
        Tags::Any(wanted) => wanted.iter().any(has),
    };
    let parent = |(field, id): &(String, Uuid)| {
        let own = body[field]["id"].as_str();
        own.and_then(|own| Uuid::try_parse(own).ok()) == Some(*id)
    };
    let holds = |(field, text): &(String, String)| {
        let own = body[field].as_str().map(str::to_ascii_lowercase);
        own.is_some_and(|own| own.contains(&text.to_ascii_lowercase()))
    };
    tagged && query.parent.as_ref().is_none_or(parent) && query.contains.as_ref().is_none_or(holds)
}

/// Where an entity stands in a list: the log has its creation in seconds only.
pub(super) fn order(body: &Value) -> (i64, Uuid) {
    let id = body["id"].as_str().and_then(|id| Uuid::try_parse(id).ok());
    (
        body["created_at"].as_i64().unwrap_or(0),
        id.unwrap_or_default(),
    )
}

async fn of_kind(tx: &mut Tx, cp: Uuid, revision: u64, kind: Kind) -> Outcome<Vec<Value>> {
    let mut past = snapshot(tx, cp, revision, Some(kind)).await?;
    Ok(past.entities.remove(&kind).unwrap_or_default())
}

/// Every entity at a revision, or those of one kind, in the order of creation and id.
pub(crate) async fn snapshot(
    tx: &mut Tx,
    cp: Uuid,
    revision: u64,
    only: Option<Kind>,
) -> Outcome<Snapshot> {
    check(tx, cp, revision).await?;
    let mut undone: HashMap<(Kind, Uuid), Option<Value>> = HashMap::new();
    let narrow = match only {
        Some(kind) => format!("kind = '{}'", kind.table()),
        None => ENTITIES_ONLY.to_owned(),
    };
    let sql = format!(
        "SELECT kind, id, before FROM change_log WHERE cp = ?1 AND revision > ?2 AND {narrow}
         ORDER BY revision, seq"
    );
    tx.each(&sql, args![&cp, signed(revision)], |row| {
        let kind = kind_at(row, 0)?;
        let id = Uuid::try_parse(row.str(1)?).unwrap_or_default();
        if let std::collections::hash_map::Entry::Vacant(place) = undone.entry((kind, id)) {
            place.insert(row.json_or_null(2)?);
        }
        Ok(())
    })
    .await?;
    let mut entities: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    let number = control_planes::number(tx, cp).await?;
    let narrow = only.map_or(String::new(), |kind| {
        format!(" AND kind = '{}'", kind.table())
    });
    let sql = format!("SELECT kind, id, body FROM entity WHERE cp = ?1{narrow}");
    tx.each(&sql, args![number], |row| {
        let kind = kind_at(row, 0)?;
        if !undone.contains_key(&(kind, row.uuid(1)?)) {
            entities.entry(kind).or_default().push(row.json(2)?);
        }
        Ok(())
    })
    .await?;
    for ((kind, _), before) in undone {
        if let Some(before) = before {
            entities.entry(kind).or_default().push(before);
        }
    }
    for list in entities.values_mut() {
        list.sort_by_cached_key(order);
    }
    Ok(Snapshot { revision, entities })
}

/// Versions below `below`, newest first.
pub(crate) async fn versions(
    tx: &mut Tx,
    cp: Uuid,
    below: u64,
    limit: usize,
) -> Outcome<Vec<Version>> {
    entities::revision(tx, cp).await?;
    let sql = format!(
        "SELECT revision, max(at_ms), max(actor), count(*) FROM change_log
         WHERE cp = ?1 AND revision < ?2 AND {ENTITIES_ONLY}
         GROUP BY revision ORDER BY revision DESC LIMIT ?3"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.all(&sql, args![&cp, signed(below), limit], |row| {
        Ok(Version {
            revision: unsigned(row.int(0)?),
            at_ms: row.int(1)?,
            actor: row.text(2)?,
            changes: unsigned(row.int(3)?),
        })
    })
    .await
}

/// The newest revision that stood at a moment; 0 before the first change.
pub(crate) async fn revision_at(tx: &mut Tx, cp: Uuid, at_ms: i64) -> Outcome<u64> {
    entities::revision(tx, cp).await?;
    let found = tx
        .first(
            "SELECT revision FROM change_log WHERE cp = ?1 AND at_ms <= ?2
             ORDER BY revision DESC, seq DESC LIMIT 1",
            args![&cp, at_ms],
            |row| row.int(0),
        )
        .await?;
    Ok(found.map_or(0, unsigned))
}
