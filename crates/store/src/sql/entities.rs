//! Rows of entities and of their indexes.

use std::fmt::Write;

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::control_planes::{Bump, bump, lock, number};
use super::{Arg, Fail, Outcome, Tx, args, index_key, to_json, unsigned};
use crate::{Actor, IfExists, OnDelete, Put, Reference, StoreError, Stored};

pub(crate) async fn get(tx: &mut Tx, cp: Uuid, kind: Kind, id: Uuid) -> Outcome<Option<Value>> {
    let found = tx
        .first(
            "SELECT e.body FROM control_plane p JOIN entity e ON e.cp = p.cp
             WHERE p.id = ?1 AND e.kind = ?2 AND e.id = ?3",
            args![&cp, kind.table(), &id],
            |row| row.json(0),
        )
        .await?;
    found_or_absent(tx, cp, found).await
}

/// Tells an entity that is not there from a control plane that is not.
async fn found_or_absent(tx: &mut Tx, cp: Uuid, found: Option<Value>) -> Outcome<Option<Value>> {
    if found.is_none() {
        number(tx, cp).await?;
    }
    Ok(found)
}

/// The row number and body of an entity.
pub(super) async fn row(
    tx: &mut Tx,
    number: i64,
    kind: Kind,
    id: Uuid,
) -> Outcome<Option<(i64, Value)>> {
    tx.first(
        "SELECT eid, body FROM entity WHERE cp = ?1 AND kind = ?2 AND id = ?3",
        args![number, kind.table(), &id],
        |row| Ok((row.int(0)?, row.json(1)?)),
    )
    .await
}

pub(crate) async fn find(
    tx: &mut Tx,
    cp: Uuid,
    kind: Kind,
    field: String,
    value: String,
) -> Outcome<Option<Value>> {
    let found = tx
        .first(
            "SELECT e.body FROM control_plane p JOIN entity_unique u ON u.cp = p.cp
             JOIN entity e ON e.eid = u.eid
             WHERE p.id = ?1 AND u.kind = ?2 AND u.field = ?3 AND u.value = ?4",
            args![&cp, kind.table(), &field, &*index_key(&value)],
            |row| row.json(0),
        )
        .await?;
    found_or_absent(tx, cp, found).await
}

pub(crate) async fn revision(tx: &mut Tx, cp: Uuid) -> Outcome<u64> {
    let found = tx
        .first(
            "SELECT h.revision FROM cp_head h JOIN control_plane p ON p.cp = h.cp WHERE p.id = ?1",
            args![&cp],
            |row| row.int(0),
        )
        .await?;
    let revision = found.ok_or(Fail::Refused(StoreError::NoControlPlane(cp)))?;
    Ok(unsigned(revision))
}

/// An entity with what is stored of it.
pub(super) struct Prepared {
    pub(super) put: Put,
    /// Row number and body; `None` if it is new.
    pub(super) old: Option<(i64, Value)>,
}

/// Looks at what is stored of an entity, and keeps its creation. `Err(body)` inside when there is
/// nothing to write.
pub(super) async fn prepare(
    tx: &mut Tx,
    number: i64,
    mut put: Put,
) -> Outcome<Result<Prepared, Value>> {
    let old = row(tx, number, put.kind, put.id).await?;
    if let Some((_, before)) = &old {
        if put.if_exists == IfExists::Refuse {
            let taken = StoreError::UniqueTaken {
                field: "id".to_owned(),
                value: put.id.to_string(),
            };
            return Err(taken.into());
        }
        keep_creation(before, &mut put.body);
        if same_but_for_update_time(before, &put.body) {
            return Ok(Err(before.clone()));
        }
    }
    Ok(Ok(Prepared { put, old }))
}

pub(crate) async fn put(tx: &mut Tx, cp: Uuid, actor: Actor, put: Put) -> Outcome<Stored> {
    let locked = lock(tx, cp).await?;
    let number = locked.number;
    let Prepared { put, old } = match prepare(tx, number, put).await? {
        Ok(prepared) => prepared,
        Err(body) => {
            return Ok(Stored {
                body,
                created: false,
                changed: false,
                revision: locked.head.revision,
            });
        }
    };
    let own = old.as_ref().map(|(eid, _)| *eid);
    unique_is_free(tx, number, &put, own).await?;
    let targets = resolve(tx, number, &put.foreign).await?;
    if let Some(eid) = own {
        clear_index(tx, eid).await?;
    }
    let eid = write_body(tx, number, &put, own).await?;
    write_unique(tx, number, &put, eid).await?;
    write_references(tx, eid, &put.foreign, &targets).await?;
    write_tags(tx, eid, &put.tags).await?;
    let revision = bump(tx, &actor, cp, number, Bump::Revision).await?.revision;
    let before = old.map(|(_, before)| before);
    log(tx, cp, &actor, revision, &put, before.as_ref()).await?;
    Ok(Stored {
        body: put.body,
        created: before.is_none(),
        changed: true,
        revision,
    })
}

pub(super) async fn log(
    tx: &mut Tx,
    cp: Uuid,
    actor: &Actor,
    revision: u64,
    put: &Put,
    before: Option<&Value>,
) -> Outcome<()> {
    let row = LogRow {
        cp: Some(cp),
        revision,
        actor,
        kind: put.kind.table(),
        id: put.id,
        before,
        after: Some(&put.body),
    };
    change_log::append(tx, &row).await
}

/// Writes the body; the row number, which is `own` for one that is there.
pub(super) async fn write_body(
    tx: &mut Tx,
    number: i64,
    put: &Put,
    own: Option<i64>,
) -> Outcome<i64> {
    let body = to_json(&put.body);
    if let Some(eid) = own {
        let sql = "UPDATE entity SET body = ?2 WHERE eid = ?1";
        tx.run(sql, args![eid, &body]).await?;
        return Ok(eid);
    }
    let now = tx.now_us;
    tx.only(
        "INSERT INTO entity (cp, kind, id, created_us, body) VALUES (?1, ?2, ?3, ?4, ?5)
         RETURNING eid",
        args![number, put.kind.table(), &put.id, now, &body],
        |row| row.int(0),
    )
    .await
}

/// Forgets what an entity's row is found by, apart from its id.
pub(super) async fn clear_index(tx: &mut Tx, eid: i64) -> Outcome<()> {
    for sql in [
        "DELETE FROM entity_unique WHERE eid = ?1",
        "DELETE FROM entity_ref WHERE from_eid = ?1",
        "DELETE FROM entity_tag WHERE eid = ?1",
    ] {
        tx.run(sql, args![eid]).await?;
    }
    Ok(())
}

pub(super) async fn write_unique(tx: &mut Tx, number: i64, put: &Put, eid: i64) -> Outcome<()> {
    for (field, value) in &put.unique {
        tx.run(
            "INSERT INTO entity_unique (cp, kind, field, value, eid) VALUES (?1, ?2, ?3, ?4, ?5)",
            args![number, put.kind.table(), field, &*index_key(value), eid],
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn write_references(
    tx: &mut Tx,
    eid: i64,
    foreign: &[Reference],
    targets: &[i64],
) -> Outcome<()> {
    for (reference, to_eid) in foreign.iter().zip(targets) {
        let cascades = reference.on_delete == OnDelete::Cascade;
        tx.run(
            "INSERT INTO entity_ref (from_eid, field, to_eid, cascades) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
            args![eid, &reference.field, *to_eid, cascades],
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn write_tags(tx: &mut Tx, eid: i64, tags: &[String]) -> Outcome<()> {
    for tag in tags {
        tx.run(
            "INSERT INTO entity_tag (eid, tag) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            args![eid, &*index_key(tag)],
        )
        .await?;
    }
    Ok(())
}

fn keep_creation(before: &Value, body: &mut Value) {
    // what lives for a time begins it anew with each write
    if body["ttl"].as_u64().is_some_and(|ttl| ttl > 0) {
        return;
    }
    if let (Some(created_at), Some(body)) = (before.get("created_at"), body.as_object_mut()) {
        body.insert("created_at".to_owned(), created_at.clone());
    }
}

fn same_but_for_update_time(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let rest = |key: &str| key != "updated_at";
    a.iter()
        .filter(|(key, _)| rest(key))
        .eq(b.iter().filter(|(key, _)| rest(key)))
}

/// Refuses values that another entity has; one question for all of them.
pub(super) async fn unique_is_free(
    tx: &mut Tx,
    number: i64,
    put: &Put,
    own: Option<i64>,
) -> Outcome<()> {
    if put.unique.is_empty() {
        return Ok(());
    }
    let mut sql =
        "SELECT eid, field FROM entity_unique WHERE cp = ?1 AND kind = ?2 AND (".to_owned();
    let keys: Vec<_> = put
        .unique
        .iter()
        .map(|(_, value)| index_key(value))
        .collect();
    let mut args = vec![Arg::from(number), Arg::from(put.kind.table())];
    for (at, ((field, _), key)) in put.unique.iter().zip(&keys).enumerate() {
        let or = if at == 0 { "" } else { " OR " };
        let (first, second) = (args.len() + 1, args.len() + 2);
        _ = write!(sql, "{or}field = ?{first} AND value = ?{second}");
        args.extend([Arg::from(field), Arg::from(&**key)]);
    }
    sql.push(')');
    let holders = tx.all(&sql, &args, |row| Ok((row.int(0)?, row.text(1)?)));
    let holders = holders.await?;
    let taken = put.unique.iter().find(|(field, _)| {
        let other = |(eid, held): &(i64, String)| held == field && Some(*eid) != own;
        holders.iter().any(other)
    });
    match taken {
        None => Ok(()),
        Some((field, value)) => Err(StoreError::UniqueTaken {
            field: field.clone(),
            value: value.clone(),
        }
        .into()),
    }
}

/// The row numbers of what is referred to, in the order of the references.
pub(super) async fn resolve(tx: &mut Tx, number: i64, foreign: &[Reference]) -> Outcome<Vec<i64>> {
    let mut targets = Vec::with_capacity(foreign.len());
    for reference in foreign {
        let Reference {
            field, kind, id, ..
        } = reference;
        let found = tx
            .first(
                "SELECT eid FROM entity WHERE cp = ?1 AND kind = ?2 AND id = ?3",
                args![number, kind.table(), id],
                |row| row.int(0),
            )
            .await?;
        let missing = StoreError::ForeignMissing {
            field: field.clone(),
            kind: *kind,
            id: *id,
        };
        targets.push(found.ok_or(missing)?);
    }
    Ok(targets)
}
