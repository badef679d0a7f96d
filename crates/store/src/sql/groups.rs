//! Members of groups, and their entities put together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sallyport_model::{Kind, schema};
use serde_json::{Value, json};
use uuid::Uuid;

use super::change_log::{self, Row as LogRow};
use super::control_planes::{self, Bump, COLUMNS, bump, from_row, lock, number};
use super::delete::kind_at;
use super::{Outcome, Tx, args, drafts, entities, index_key, past, unsigned};
use crate::{
    Actor, Change, ClusterType, Conflict, ControlPlane, ListQuery, Members, Page, Snapshot,
    StoreError,
};

/// In the change log of a group: other members.
const GROUP: &str = "group";
/// In the change log of a group: a new version of a member.
const GROUP_MEMBER: &str = "group_member";

pub(crate) async fn members(tx: &mut Tx, group: Uuid) -> Outcome<Vec<ControlPlane>> {
    let number = number(tx, group).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM control_plane c JOIN group_member g ON g.member = c.cp
         WHERE g.cp_group = ?1 ORDER BY g.place"
    );
    tx.all(&sql, args![number], from_row).await
}

pub(crate) async fn is_member(tx: &mut Tx, member: Uuid) -> Outcome<bool> {
    let number = number(tx, member).await?;
    let sql = "SELECT 1 FROM group_member WHERE member = ?1";
    let found = tx.first(sql, args![number], |_| Ok(())).await?;
    Ok(found.is_some())
}

/// The groups that a control plane is in, by their numbers: every change of it is one of theirs.
pub(super) async fn of(tx: &mut Tx, member: i64) -> Outcome<Vec<(i64, Uuid)>> {
    tx.all(
        "SELECT g.cp_group, p.id FROM group_member g JOIN control_plane p ON p.cp = g.cp_group
         WHERE g.member = ?1 ORDER BY g.cp_group",
        args![member],
        |row| Ok((row.int(0)?, row.uuid(1)?)),
    )
    .await
}

/// The number of a control plane that may be in a group.
async fn can_join(tx: &mut Tx, id: Uuid) -> Outcome<i64> {
    let found = control_planes::get(tx, id).await?;
    let found = found.ok_or(StoreError::NoControlPlane(id))?;
    let is_draft = drafts::get(tx, id).await?.is_some();
    if is_draft || found.cluster_type != ClusterType::ControlPlane {
        return Err(StoreError::CannotJoin(id).into());
    }
    number(tx, id).await
}

pub(crate) async fn change(tx: &mut Tx, actor: Actor, group: Uuid, change: Members) -> Outcome<()> {
    let own = lock(tx, group).await?.number;
    let found = control_planes::get(tx, group).await?;
    let found = found.ok_or(StoreError::NoControlPlane(group))?;
    if found.cluster_type != ClusterType::ControlPlaneGroup {
        return Err(StoreError::NotAGroup(group).into());
    }
    let before: Vec<Uuid> = members(tx, group).await?.iter().map(|cp| cp.id).collect();
    let mut after: Vec<Uuid> = Vec::new();
    let (kept, added): (Vec<Uuid>, Vec<Uuid>) = match change {
        Members::Replace(all) => (Vec::new(), all),
        Members::Add(more) => (before.clone(), more),
        Members::Remove(gone) => {
            let kept = before.iter().filter(|id| !gone.contains(id));
            (kept.copied().collect(), Vec::new())
        }
    };
    for id in kept.into_iter().chain(added) {
        if !after.contains(&id) {
            after.push(id);
        }
    }
    if after == before {
        return Ok(());
    }
    let sql = "DELETE FROM group_member WHERE cp_group = ?1";
    tx.run(sql, args![own]).await?;
    for (place, id) in (0_i64..).zip(&after) {
        let member = can_join(tx, *id).await?;
        let sql = "INSERT INTO group_member (cp_group, member, place) VALUES (?1, ?2, ?3)";
        tx.run(sql, args![own, member, place]).await?;
    }
    let revision = bump(tx, &actor, group, own, Bump::Revision).await?.revision;
    let (was, is) = (json!({"members": before}), json!({"members": after}));
    let row = LogRow {
        cp: Some(group),
        revision,
        actor: &actor,
        kind: GROUP,
        id: group,
        before: Some(&was),
        after: Some(&is),
    };
    change_log::append(tx, &row).await
}

/// What led to a version of a group: a version of a member.
pub(super) async fn log_member(
    tx: &mut Tx,
    actor: &Actor,
    (group, revision): (Uuid, u64),
    (member, version): (Uuid, u64),
) -> Outcome<()> {
    let (was, is) = (
        json!({"version": version.saturating_sub(1)}),
        json!({"version": version}),
    );
    let row = LogRow {
        cp: Some(group),
        revision,
        actor,
        kind: GROUP_MEMBER,
        id: member,
        before: Some(&was),
        after: Some(&is),
    };
    change_log::append(tx, &row).await
}

/// Entities of all members together, and what does not fit: an entity whose id or unique value a
/// member before it has, and what refers to such an entity. `None` if it is no group.
pub(super) async fn together(
    tx: &mut Tx,
    group: i64,
) -> Outcome<Option<(BTreeMap<Kind, Vec<Value>>, Vec<Conflict>)>> {
    let sql = "SELECT p.cp, p.id FROM group_member g JOIN control_plane p ON p.cp = g.member
               WHERE g.cp_group = ?1 ORDER BY g.place";
    let read = |row: &super::Row<'_>| Ok((row.int(0)?, row.uuid(1)?));
    let members = tx.all(sql, args![group], read).await?;
    if members.is_empty() {
        return Ok(None);
    }
    let mut merged = Merged::default();
    for (number, member) in members {
        let mut own: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
        tx.each(
            "SELECT kind, body FROM entity WHERE cp = ?1 ORDER BY kind, created_us, id",
            args![number],
            |row| {
                own.entry(kind_at(row, 0)?).or_default().push(row.json(1)?);
                Ok(())
            },
        )
        .await?;
        merged.add(member, own);
    }
    Ok(Some((merged.entities, merged.conflicts)))
}

/// What a group serves, and whether that is all that its members have.
pub(crate) async fn snapshot(tx: &mut Tx, group: Uuid) -> Outcome<(Snapshot, bool)> {
    let revision = entities::revision(tx, group).await?;
    let number = number(tx, group).await?;
    let (entities, conflicts) = together(tx, number).await?.unwrap_or_default();
    Ok((Snapshot { revision, entities }, conflicts.is_empty()))
}

/// What its members changed since version `after`; see
/// [`Store::group_changes`](crate::Store::group_changes).
pub(crate) async fn changes(
    tx: &mut Tx,
    group: Uuid,
    after: u64,
    limit: usize,
) -> Outcome<Option<(u64, Vec<Change>)>> {
    let revision = entities::revision(tx, group).await?;
    if revision < after {
        return Ok(None);
    }
    let Some(steps) = steps(tx, group, (after, revision), limit).await? else {
        return Ok(None);
    };
    let number = number(tx, group).await?;
    let mut changes: Vec<(Uuid, Change)> = Vec::new();
    for (member, versions) in steps {
        let Some(from) = versions.keys().next().map(|first| first.saturating_sub(1)) else {
            continue;
        };
        let theirs = change_log::since(tx, member, from, limit).await?;
        if changes.len() + theirs.len() >= limit {
            return Ok(None);
        }
        // a log that does not have each of the versions does not tell all
        let told: BTreeSet<u64> = theirs.iter().map(|change| change.revision).collect();
        if versions.keys().any(|version| !told.contains(version)) {
            return Ok(None);
        }
        for change in theirs {
            let revision = versions.get(&change.revision).copied();
            if let (Some(revision), Some(_)) = (revision, Kind::from_table(&change.kind)) {
                changes.push((member, Change { revision, ..change }));
            }
        }
    }
    match fit(tx, number, &changes).await? {
        true => {
            changes.sort_by_key(|(_, change)| change.revision);
            let changes = changes.into_iter().map(|(_, change)| change).collect();
            Ok(Some((revision, changes)))
        }
        false => Ok(None),
    }
}

/// By member: the group's version that each of its versions led to.
type Steps = BTreeMap<Uuid, BTreeMap<u64, u64>>;

/// What led from one version of a group to another: `None` if that was anything but versions of
/// those who are members now.
async fn steps(
    tx: &mut Tx,
    group: Uuid,
    (after, revision): (u64, u64),
    limit: usize,
) -> Outcome<Option<Steps>> {
    let present: HashSet<Uuid> = members(tx, group).await?.iter().map(|cp| cp.id).collect();
    let sql = "SELECT revision, kind, id, after FROM change_log
               WHERE cp = ?1 AND revision > ?2 AND kind IN ('group', 'group_member')
               ORDER BY revision LIMIT ?3";
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &super::Row<'_>| {
        let version = row.json_or_null::<Value>(3)?.unwrap_or_default()["version"].as_u64();
        Ok((unsigned(row.int(0)?), row.text(1)?, row.text(2)?, version))
    };
    let args = args![&group, super::signed(after), rows_max];
    let rows: Vec<(u64, String, String, Option<u64>)> = tx.all(sql, args, read).await?;
    if rows.len() as u64 != revision - after {
        return Ok(None);
    }
    let mut steps = Steps::new();
    for ((revision, kind, id, version), expected) in rows.into_iter().zip(after + 1..) {
        let member = Uuid::try_parse(&id).ok().filter(|_| kind == GROUP_MEMBER);
        let (Some(member), Some(version)) = (member, version) else {
            return Ok(None);
        };
        // of one that was deleted nobody knows what it had
        if revision != expected || !present.contains(&member) {
            return Ok(None);
        }
        steps.entry(member).or_default().insert(version, revision);
    }
    Ok(Some(steps))
}

/// Whether nothing that was changed clashes with what another member has, or clashed before. What
/// was not changed may do so all the same. A value that went from one member to another counts as
/// a clash.
async fn fit(tx: &mut Tx, group: i64, changes: &[(Uuid, Change)]) -> Outcome<bool> {
    let mut net: HashMap<(Kind, &str), Net<'_>> = HashMap::new();
    for (member, change) in changes {
        let Some(kind) = Kind::from_table(&change.kind) else {
            continue;
        };
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let entry = net.entry((kind, &change.id));
        let own = entry.or_insert((*member, before, after));
        if own.0 != *member {
            // it went from one member to another
            return Ok(false);
        }
        own.2 = after;
    }
    let mut taken: HashMap<(Kind, &str, String), Uuid> = HashMap::new();
    for ((kind, id), (member, before, after)) in net {
        let unique = |body: &Value| schema::index(kind, body).unique;
        let was = before.map(unique);
        for (field, value) in was.iter().flatten() {
            let other = taken.insert((kind, field, value.clone()), member);
            if other.is_some_and(|other| other != member) {
                return Ok(false);
            }
        }
        let now = after.map(unique);
        let earlier = before.filter(|_| was != now);
        for body in earlier.into_iter().chain(after) {
            if clashes(tx, group, (member, kind, id), body).await? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whose an entity is, what it was before all changes, and what it is after them.
type Net<'a> = (Uuid, Option<&'a Value>, Option<&'a Value>);

/// Whether another member of the group has an entity with this id, or a unique value of it.
async fn clashes(
    tx: &mut Tx,
    group: i64,
    (member, kind, id): (Uuid, Kind, &str),
    body: &Value,
) -> Outcome<bool> {
    let member = number(tx, member).await?;
    let id = Uuid::try_parse(id).unwrap_or_default();
    let sql = "SELECT 1 FROM group_member g JOIN entity e ON e.cp = g.member
               WHERE g.cp_group = ?1 AND g.member <> ?2 AND e.kind = ?3 AND e.id = ?4";
    let args = args![group, member, kind.table(), &id];
    if tx.first(sql, args, |_| Ok(())).await?.is_some() {
        return Ok(true);
    }
    for (field, value) in schema::index(kind, body).unique {
        let sql = "SELECT 1 FROM group_member g JOIN entity_unique u ON u.cp = g.member
                   WHERE g.cp_group = ?1 AND g.member <> ?2
                   AND u.kind = ?3 AND u.field = ?4 AND u.value = ?5";
        let key = index_key(&value);
        let args = args![group, member, kind.table(), field, &*key];
        if tx.first(sql, args, |_| Ok(())).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a group serves of one kind, in the order of creation and id.
async fn of_kind(tx: &mut Tx, group: Uuid, kind: Kind) -> Outcome<Vec<Value>> {
    let number = number(tx, group).await?;
    let found = together(tx, number).await?;
    let all = found.and_then(|(mut entities, _)| entities.remove(&kind));
    let mut all = all.unwrap_or_default();
    all.sort_by_cached_key(past::order);
    Ok(all)
}

pub(crate) async fn get(tx: &mut Tx, group: Uuid, kind: Kind, id: Uuid) -> Outcome<Option<Value>> {
    let all = of_kind(tx, group, kind).await?;
    let id = id.to_string();
    Ok(all.into_iter().find(|body| body["id"] == id.as_str()))
}

pub(crate) async fn find(
    tx: &mut Tx,
    group: Uuid,
    kind: Kind,
    field: String,
    value: String,
) -> Outcome<Option<Value>> {
    let all = of_kind(tx, group, kind).await?;
    Ok(past::found_in(all, kind, &field, &value))
}

pub(crate) async fn list(tx: &mut Tx, group: Uuid, kind: Kind, query: ListQuery) -> Outcome<Page> {
    let all = of_kind(tx, group, kind).await?;
    Ok(past::page_of(all, &query)?)
}

pub(crate) async fn conflicts(tx: &mut Tx, group: Uuid) -> Outcome<Vec<Conflict>> {
    let number = number(tx, group).await?;
    let found = together(tx, number).await?;
    Ok(found.map(|(_, conflicts)| conflicts).unwrap_or_default())
}

#[derive(Default)]
struct Merged {
    entities: BTreeMap<Kind, Vec<Value>>,
    ids: HashSet<(Kind, Uuid)>,
    values: HashMap<(Kind, &'static str, String), Uuid>,
    conflicts: Vec<Conflict>,
}

impl Merged {
    /// Adds a member's entities, parents before what refers to them.
    fn add(&mut self, member: Uuid, mut own: BTreeMap<Kind, Vec<Value>>) {
        let mut there: HashSet<(Kind, Uuid)> = HashSet::new();
        for kind in Kind::ALL {
            for body in own.remove(&kind).unwrap_or_default() {
                let id = body["id"].as_str().and_then(|id| Uuid::try_parse(id).ok());
                let id = id.unwrap_or_default();
                let index = schema::index(kind, &body);
                let unique = index.unique.iter();
                let taken = unique.clone().find_map(|(field, value)| {
                    let other = self.values.get(&(kind, *field, value.clone()))?;
                    Some(format!(
                        "{field} is taken by {kind} {other} of another member"
                    ))
                });
                let mut foreign = index.foreign.iter();
                let dangling = foreign.find(|(_, kind, id, _)| !there.contains(&(*kind, *id)));
                let dangling = dangling
                    .map(|(field, kind, id, _)| format!("{field}: {kind} {id} is left out"));
                let twin = self.ids.contains(&(kind, id));
                let twin = twin.then(|| "another member has an entity with this id".to_owned());
                if let Some(reason) = twin.or(taken).or(dangling) {
                    self.conflicts.push(Conflict {
                        member,
                        kind,
                        id,
                        reason,
                    });
                    continue;
                }
                for (field, value) in unique {
                    self.values.insert((kind, *field, value.clone()), id);
                }
                self.ids.insert((kind, id));
                there.insert((kind, id));
                self.entities.entry(kind).or_default().push(body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clashes_is_left_out_with_what_refers_to_it() {
        let id = Uuid::from_u128;
        let service = |at: u128, name: &str| json!({"id": id(at), "name": name, "host": "h"});
        let route = |at: u128, service: u128| json!({"id": id(at), "name": null, "service": {"id": id(service)}});
        let mut merged = Merged::default();
        let own = |services: Vec<Value>, routes: Vec<Value>| {
            BTreeMap::from([(Kind::Service, services), (Kind::Route, routes)])
        };
        merged.add(id(100), own(vec![service(1, "a")], vec![route(11, 1)]));
        let second = own(
            vec![service(2, "a"), service(3, "b"), service(1, "c")],
            vec![route(12, 2), route(13, 3)],
        );
        merged.add(id(200), second);
        let ids = |kind| {
            let list: &Vec<Value> = &merged.entities[&kind];
            list.iter()
                .map(|body| body["id"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(Kind::Service), [json!(id(1)), json!(id(3))]);
        assert_eq!(ids(Kind::Route), [json!(id(11)), json!(id(13))]);
        let left: Vec<Uuid> = merged.conflicts.iter().map(|it| it.id).collect();
        assert_eq!(left, [id(2), id(1), id(12)]);
        assert!(merged.conflicts.iter().all(|it| it.member == id(200)));
        assert!(merged.conflicts[0].reason.contains("name is taken"));
    }
}
