//! Pages and snapshots.

use std::collections::BTreeMap;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::control_planes::number;
use super::delete::kind_at;
use super::{Outcome, entities, json, uuid};
use crate::{ListQuery, Page, Snapshot, StoreError, Tags};

pub(crate) fn list(tx: &Connection, cp: Uuid, kind: Kind, query: &ListQuery) -> Outcome<Page> {
    let number = number(tx, cp)?;
    let mut sql = "SELECT created_us, id, body FROM entity WHERE cp = ? AND kind = ?".to_owned();
    let mut args: Vec<Sql> = vec![number.into(), kind.table().to_owned().into()];
    if let Some(offset) = &query.offset {
        let (created_us, id) = Offset::parse(offset)?;
        sql.push_str(" AND (created_us, id) > (?, ?)");
        args.push(created_us.into());
        args.push(id.as_bytes().to_vec().into());
    }
    if let Some((field, id)) = &query.parent {
        sql.push_str(
            " AND eid IN (SELECT from_eid FROM entity_ref JOIN entity parent
              ON parent.eid = to_eid WHERE field = ? AND parent.cp = ? AND parent.id = ?)",
        );
        args.extend([
            field.clone().into(),
            number.into(),
            id.as_bytes().to_vec().into(),
        ]);
    }
    let (tags, at_least) = match &query.tags {
        Tags::Ignore => (&[][..], 0),
        Tags::All(tags) => (&tags[..], tags.len()),
        Tags::Any(tags) => (&tags[..], 1),
    };
    if at_least > 0 {
        let marks = vec!["?"; tags.len()].join(", ");
        sql.push_str(" AND (SELECT count(*) FROM entity_tag WHERE entity_tag.eid = entity.eid");
        sql.push_str(&format!(" AND tag IN ({marks})) >= ?"));
        args.extend(tags.iter().map(|tag| Sql::from(tag.clone())));
        args.push(i64::try_from(at_least).unwrap_or(i64::MAX).into());
    }
    sql.push_str(" ORDER BY created_us, id LIMIT ?");
    let size = query.size.max(1);
    // One more than asked for tells whether there is another page.
    args.push(
        i64::try_from(size)
            .unwrap_or(i64::MAX)
            .saturating_add(1)
            .into(),
    );
    let mut select = tx.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(args))?;
    let mut items: Vec<Value> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        if items.len() == size {
            return Ok(Page {
                items,
                next_offset: last.map(Offset::text),
            });
        }
        last = Some(Offset(row.get(0)?, uuid(row, 1)?));
        items.push(json(row, 2)?);
    }
    Ok(Page {
        items,
        next_offset: None,
    })
}

pub(crate) fn snapshot(tx: &Connection, cp: Uuid) -> Outcome<Snapshot> {
    let revision = entities::revision(tx, cp)?;
    let mut select = tx.prepare_cached(
        "SELECT kind, body FROM entity WHERE cp = ?1 ORDER BY kind, created_us, id",
    )?;
    let mut rows = select.query([number(tx, cp)?])?;
    let mut entities: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        entities
            .entry(kind_at(row, 0)?)
            .or_default()
            .push(json(row, 1)?);
    }
    Ok(Snapshot { revision, entities })
}

/// The last entity of a page, as a token: its time and its id in hexadecimal digits.
struct Offset(i64, Uuid);

impl Offset {
    fn text(self) -> String {
        format!("{:016x}{}", self.0, self.1.simple())
    }

    fn parse(text: &str) -> Result<(i64, Uuid), StoreError> {
        let parts = text.split_at_checked(16).filter(|_| text.len() == 48);
        let (time, id) = parts.ok_or(StoreError::BadOffset)?;
        let time = i64::from_str_radix(time, 16).map_err(|_| StoreError::BadOffset)?;
        let id = Uuid::try_parse(id).map_err(|_| StoreError::BadOffset)?;
        Ok((time, id))
    }
}
