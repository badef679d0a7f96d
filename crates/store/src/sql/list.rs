//! Pages and snapshots.

use std::collections::BTreeMap;
use std::fmt::Write;

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::control_planes::number;
use super::delete::kind_at;
use super::{Arg, Outcome, Tx, args, entities, groups, index_key};
use crate::{ListQuery, Page, Snapshot, StoreError, Tags};

pub(crate) async fn list(tx: &mut Tx, cp: Uuid, kind: Kind, query: ListQuery) -> Outcome<Page> {
    let number = number(tx, cp).await?;
    let mut sql = "SELECT created_us, id, body FROM entity WHERE cp = ?1 AND kind = ?2".to_owned();
    let mut args: Vec<Arg<'_>> = vec![number.into(), kind.table().into()];
    let offset = query.offset.as_deref().map(Offset::parse).transpose()?;
    if let Some(Offset(created_us, id)) = &offset {
        sql.push_str(" AND (created_us, id) > (?3, ?4)");
        args.extend([Arg::from(*created_us), Arg::from(id)]);
    }
    if let Some((field, id)) = &query.parent {
        let at = args.len();
        let (field_at, id_at) = (at + 1, at + 2);
        _ = write!(
            sql,
            " AND eid IN (SELECT from_eid FROM entity_ref JOIN entity parent
              ON parent.eid = to_eid WHERE field = ?{field_at} AND parent.cp = ?1
              AND parent.id = ?{id_at})"
        );
        args.extend([Arg::from(field), Arg::from(id)]);
    }
    let pattern = query.contains.as_ref().map(|(_, text)| like(text));
    if let (Some((field, _)), Some(pattern)) = (&query.contains, &pattern) {
        let at = args.len();
        let (field_at, pattern_at) = (at + 1, at + 2);
        _ = write!(
            sql,
            " AND EXISTS (SELECT 1 FROM entity_unique WHERE entity_unique.eid = entity.eid
              AND field = ?{field_at} AND lower(value) LIKE ?{pattern_at} ESCAPE '!')"
        );
        args.extend([Arg::from(field), Arg::from(pattern)]);
    }
    let (mut tags, any) = match &query.tags {
        Tags::Ignore => (Vec::new(), true),
        Tags::All(tags) => (tags.iter().map(|tag| index_key(tag)).collect(), false),
        Tags::Any(tags) => (tags.iter().map(|tag| index_key(tag)).collect(), true),
    };
    // The same tag twice asks for no more than once.
    tags.sort_unstable();
    tags.dedup();
    if !tags.is_empty() {
        let first = args.len() + 1;
        let marks: Vec<String> = (first..first + tags.len())
            .map(|at| format!("?{at}"))
            .collect();
        let (marks, count) = (marks.join(", "), first + tags.len());
        _ = write!(
            sql,
            " AND (SELECT count(*) FROM entity_tag WHERE entity_tag.eid = entity.eid
              AND tag IN ({marks})) >= ?{count}"
        );
        args.extend(tags.iter().map(|tag| Arg::from(&**tag)));
        let at_least = if any { 1 } else { tags.len() };
        args.push(i64::try_from(at_least).unwrap_or(i64::MAX).into());
    }
    _ = write!(sql, " ORDER BY created_us, id LIMIT ?{}", args.len() + 1);
    let size = query.size.max(1);
    // One more than asked for tells whether there is another page.
    let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
    args.push(limit.into());
    let mut items: Vec<Value> = Vec::new();
    let mut last = None;
    let mut more = false;
    tx.each(&sql, &args, |row| {
        if items.len() == size {
            more = true;
        } else {
            last = Some(Offset(row.int(0)?, row.uuid(1)?));
            items.push(row.json(2)?);
        }
        Ok(())
    })
    .await?;
    let next_offset = last.filter(|_| more).map(Offset::text);
    Ok(Page { items, next_offset })
}

/// The pattern of whatever holds a text, for LIKE with `!` to escape.
fn like(text: &str) -> String {
    let mut pattern = String::from("%");
    for letter in text.to_ascii_lowercase().chars() {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

/// What data planes get: the entities of the control plane, or of the members of a group.
pub(crate) async fn snapshot(tx: &mut Tx, cp: Uuid) -> Outcome<Snapshot> {
    let revision = entities::revision(tx, cp).await?;
    let number = number(tx, cp).await?;
    match groups::together(tx, number).await? {
        Some((entities, _)) => Ok(Snapshot { revision, entities }),
        None => own_snapshot(tx, cp).await,
    }
}

/// The entities of the control plane itself.
pub(super) async fn own_snapshot(tx: &mut Tx, cp: Uuid) -> Outcome<Snapshot> {
    let revision = entities::revision(tx, cp).await?;
    let number = number(tx, cp).await?;
    let mut entities: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    tx.each(
        "SELECT kind, body FROM entity WHERE cp = ?1 ORDER BY kind, created_us, id",
        args![number],
        |row| {
            let kind = kind_at(row, 0)?;
            entities.entry(kind).or_default().push(row.json(1)?);
            Ok(())
        },
    )
    .await?;
    Ok(Snapshot { revision, entities })
}

/// The last entity of a page, as a token: its time and its id in hexadecimal digits.
pub(super) struct Offset(pub(super) i64, pub(super) Uuid);

impl Offset {
    pub(super) fn text(self) -> String {
        format!("{:016x}{}", self.0, self.1.simple())
    }

    pub(super) fn parse(text: &str) -> Result<Offset, StoreError> {
        let parts = text.split_at_checked(16).filter(|_| text.len() == 48);
        let (time, id) = parts.ok_or(StoreError::BadOffset)?;
        let time = i64::from_str_radix(time, 16).map_err(|_| StoreError::BadOffset)?;
        let id = Uuid::try_parse(id).map_err(|_| StoreError::BadOffset)?;
        Ok(Offset(time, id))
    }
}
