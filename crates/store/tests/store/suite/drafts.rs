//! Drafts and groups.

use std::collections::BTreeMap;

use sallyport_model::Kind;
use sallyport_store::{Change, ClusterType, Members, NewControlPlane, OnDelete, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{actor, control_plane, named, refers, service, taken};

async fn draft(store: &Store, cp: Uuid, name: &str) -> Result<Uuid, StoreError> {
    let (name, description) = (name.to_owned(), String::new());
    let made = store.create_draft(&actor(), cp, name, description).await?;
    assert_eq!(made.origin, cp);
    Ok(made.control_plane.id)
}

async fn names(store: &Store, cp: Uuid, kind: Kind) -> Vec<String> {
    let found = store.snapshot(cp).await.unwrap().entities.remove(&kind);
    let found = found.unwrap_or_default();
    let mut names: Vec<String> = found
        .iter()
        .filter_map(|body| body["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

async fn put(store: &Store, cp: Uuid, id: Uuid, name: &str) {
    let put = named(Kind::Service, id, name);
    store.put(cp, &actor(), put).await.unwrap();
}

pub(crate) async fn a_draft_is_promoted_in_one_version(store: Store) {
    let cp = control_plane(&store, "default").await;
    let kept = service(&store, cp, "kept").await;
    let gone = service(&store, cp, "gone").await;
    let route = named(Kind::Route, Uuid::new_v4(), "r");
    let route = refers(route, "service", Kind::Service, kept, OnDelete::Restrict);
    store.put(cp, &actor(), route).await.unwrap();
    let before = store.revision(cp).await.unwrap();

    let id = draft(&store, cp, "big").await.unwrap();
    let twin = draft(&store, cp, "big").await.unwrap_err();
    assert_eq!(twin, taken("name", "default/big"));
    let nested = draft(&store, id, "deeper").await.unwrap_err();
    assert_eq!(nested, StoreError::NoControlPlane(id));
    assert_eq!(
        store.control_planes().await.unwrap().len(),
        1,
        "not a list of drafts"
    );
    assert_eq!(store.drafts(Some(cp)).await.unwrap().len(), 1);
    assert_eq!(store.draft_changes(id).await.unwrap(), []);
    // the copy has its own indexes: a route holds its service, a name is found
    let held = store.delete(id, &actor(), Kind::Service, kept).await;
    assert!(matches!(held, Err(StoreError::StillReferenced { .. })));
    let found = store.find(id, Kind::Service, "name", "gone").await.unwrap();
    assert_eq!(found.unwrap()["id"], json!(gone));
    store
        .delete(id, &actor(), Kind::Service, gone)
        .await
        .unwrap();
    put(&store, id, kept, "renamed").await;
    service(&store, id, "new").await;
    assert_eq!(store.draft_changes(id).await.unwrap().len(), 3);
    // nothing of it is in the origin, which goes on
    assert_eq!(store.revision(cp).await.unwrap(), before);
    service(&store, cp, "meanwhile").await;

    let moved = store
        .promote_draft(&actor(), id, Some(before))
        .await
        .unwrap_err();
    assert_eq!(
        moved,
        StoreError::Moved {
            expected: before,
            found: before + 1
        }
    );
    let applied = store.promote_draft(&actor(), id, None).await.unwrap();
    assert_eq!((applied.count, applied.revision), (3, before + 2));
    assert_eq!(
        names(&store, cp, Kind::Service).await,
        ["meanwhile", "new", "renamed"]
    );
    assert_eq!(store.draft(id).await.unwrap(), None);
    let gone = store.promote_draft(&actor(), id, None).await.unwrap_err();
    assert_eq!(gone, StoreError::NotFound);
    assert_eq!(names(&store, cp, Kind::Route).await, ["r"]);
}

pub(crate) async fn a_draft_that_diverged_is_refused(store: Store) {
    let cp = control_plane(&store, "default").await;
    let (one, two) = (
        service(&store, cp, "one").await,
        service(&store, cp, "two").await,
    );
    let id = draft(&store, cp, "d").await.unwrap();
    put(&store, id, one, "here").await;
    put(&store, id, two, "same").await;
    put(&store, cp, one, "there").await;
    put(&store, cp, two, "same").await;
    let kind = Kind::Service;
    let refused = store.promote_draft(&actor(), id, None).await.unwrap_err();
    assert_eq!(refused, StoreError::Diverged { kind, id: one });
    assert_eq!(names(&store, cp, kind).await, ["same", "there"]);
    put(&store, id, one, "there").await;
    let applied = store.promote_draft(&actor(), id, None).await.unwrap();
    assert_eq!(applied.count, 0, "both came to the same");
}

pub(crate) async fn drafts_go_with_their_origin(store: Store) {
    let cp = control_plane(&store, "default").await;
    let id = draft(&store, cp, "d").await.unwrap();
    service(&store, id, "s").await;
    store.delete_control_plane(&actor(), cp).await.unwrap();
    let gone = store.control_plane(id).await.unwrap_err();
    assert_eq!(gone, StoreError::NoControlPlane(id));
    assert_eq!(store.drafts(None).await.unwrap(), []);
}

pub(crate) async fn a_group_serves_its_members(store: Store) {
    let (a, b) = (
        control_plane(&store, "a").await,
        control_plane(&store, "b").await,
    );
    let new = NewControlPlane {
        name: "all".to_owned(),
        cluster_type: ClusterType::ControlPlaneGroup,
        ..NewControlPlane::default()
    };
    let group = store.create_control_plane(&actor(), new).await.unwrap().id;
    let change = async |members| store.change_group(&actor(), group, members).await;
    service(&store, a, "orders").await;
    service(&store, b, "orders").await;
    service(&store, b, "users").await;
    change(Members::Replace(vec![a])).await.unwrap();
    change(Members::Add(vec![b, a])).await.unwrap();
    let members: Vec<Uuid> = store
        .group_members(group)
        .await
        .unwrap()
        .iter()
        .map(|cp| cp.id)
        .collect();
    assert_eq!(members, [a, b]);
    assert_eq!(
        names(&store, group, Kind::Service).await,
        ["orders", "users"]
    );
    let conflicts = store.group_conflicts(group).await.unwrap();
    assert_eq!((conflicts.len(), conflicts[0].member), (1, b));
    assert!(store.is_in_a_group(a).await.unwrap());
    assert!(!store.is_in_a_group(group).await.unwrap());

    // a change of a member is one of the group, and watchers hear of it
    let before = store.revision(group).await.unwrap();
    service(&store, a, "carts").await;
    assert_eq!(store.revision(group).await.unwrap(), before + 1);
    assert_eq!(
        store.watch().borrow().get(group).unwrap().revision,
        before + 1
    );
    assert_eq!(
        names(&store, group, Kind::Service).await,
        ["carts", "orders", "users"]
    );

    // what led to each of its versions is told: members that came, and new versions of members
    let versions = store.versions(group, u64::MAX, 10).await.unwrap();
    let told: Vec<(u64, &str, u64)> = versions
        .iter()
        .map(|it| (it.revision, it.actor.as_str(), it.changes))
        .collect();
    let who = actor().0;
    assert_eq!(told, [(3, &*who, 1), (2, &*who, 1), (1, &*who, 1)]);
    assert_eq!(store.changes(group, 0, 10).await.unwrap(), []);

    let draft = draft(&store, a, "d").await.unwrap();
    for stranger in [group, draft] {
        let refused = change(Members::Add(vec![stranger])).await.unwrap_err();
        assert_eq!(refused, StoreError::CannotJoin(stranger));
    }
    let refused = store.change_group(&actor(), a, Members::Add(vec![b])).await;
    assert_eq!(refused.unwrap_err(), StoreError::NotAGroup(a));
    change(Members::Remove(vec![b, group])).await.unwrap();
    assert_eq!(
        names(&store, group, Kind::Service).await,
        ["carts", "orders"]
    );
    store.delete_control_plane(&actor(), a).await.unwrap();
    assert_eq!(
        names(&store, group, Kind::Service).await,
        Vec::<String>::new()
    );
    assert_eq!(
        json!(store.group_members(group).await.unwrap().len()),
        Value::from(0)
    );
}

/// Whatever members change: the changes of a group that leaves nothing out lead to what it serves, and
/// where they would not, there are none.
pub(crate) async fn what_members_change_leads_to_what_their_group_serves(store: Store) {
    let members = [
        control_plane(&store, "a").await,
        control_plane(&store, "b").await,
        control_plane(&store, "c").await,
    ];
    let new = NewControlPlane {
        name: "all".to_owned(),
        cluster_type: ClusterType::ControlPlaneGroup,
        ..NewControlPlane::default()
    };
    let group = store.create_control_plane(&actor(), new).await.unwrap().id;
    let all = Members::Replace(members.to_vec());
    store.change_group(&actor(), group, all).await.unwrap();
    let served = async || {
        let (snapshot, is_whole) = store.group_snapshot(group).await.unwrap();
        let lists = snapshot.entities.into_iter();
        let all = lists.flat_map(|(kind, list)| list.into_iter().map(move |body| (kind, body)));
        let all = all.map(|(kind, body)| ((kind, body["id"].to_string()), body));
        (snapshot.revision, all.collect::<Served>(), is_whole)
    };
    let (mut revision, mut known, mut was_whole) = served().await;
    let (mut followed, mut read) = (0, 0);
    // versions that were seen, for who was away since
    let mut seen = vec![(revision, known.clone(), was_whole)];
    let (mut came_back, mut not_told) = (0, 0);
    let mut dice = 7_u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for _ in 0..400 {
        for _ in 0..=roll(2) {
            let at = roll(3);
            let member = members[usize::try_from(at).unwrap()];
            // mostly ids and names of its own, sometimes those of another
            let near = |n: u64, other: bool| if other { n } else { 100 * (at + 1) + n };
            let (n, other) = (roll(6), roll(20) == 0);
            let id = Uuid::from_u128(near(n, other).into());
            let name = format!("n{}", near(roll(6), roll(20) == 0));
            let written = match roll(4) {
                0 => store
                    .delete(member, &actor(), Kind::Service, id)
                    .await
                    .map(|_| ()),
                1 => {
                    let route = Uuid::from_u128((1_000 + near(roll(6), false)).into());
                    let put = named(Kind::Route, route, &name);
                    let put = refers(put, "service", Kind::Service, id, OnDelete::Cascade);
                    store.put(member, &actor(), put).await.map(|_| ())
                }
                _ => {
                    let put = named(Kind::Service, id, &name);
                    store.put(member, &actor(), put).await.map(|_| ())
                }
            };
            // a name that is taken, nothing to delete: such are refused
            _ = written;
        }
        let (newest, now, is_whole) = served().await;
        if newest == revision {
            continue;
        }
        let changes = store.group_changes(group, revision, 100).await.unwrap();
        match changes {
            Some((to, changes)) if was_whole => {
                assert_eq!(to, newest);
                assert!(is_whole);
                assert_eq!(followed_by(known, changes), now);
                followed += 1;
            }
            // where it left something out, that is for the caller to know
            _ => read += 1,
        }
        if is_whole {
            let at = usize::try_from(roll(seen.len() as u64)).unwrap();
            let (from, then, then_whole) = seen[at].clone();
            match store.group_changes(group, from, 10_000).await.unwrap() {
                Some((to, changes)) => {
                    assert!(to == newest && then_whole);
                    assert!(
                        changes
                            .iter()
                            .all(|it| from < it.revision && it.revision <= to)
                    );
                    assert_eq!(followed_by(then, changes), now);
                    came_back += 1;
                }
                None => not_told += 1,
            }
        }
        seen.push((newest, now.clone(), is_whole));
        (revision, known, was_whole) = (newest, now, is_whole);
    }
    assert!(followed > 100 && read > 5, "{followed} {read}");
    assert!(came_back > 20 && not_told > 5, "{came_back} {not_told}");
    // other members are no change of a member, and there is an end to what is read
    store
        .change_group(&actor(), group, Members::Remove(vec![members[0]]))
        .await
        .unwrap();
    let changes = store.group_changes(group, revision, 100).await.unwrap();
    assert_eq!(changes, None);
    let (revision, _, _) = served().await;
    for n in 0..9 {
        service(&store, members[1], &format!("more-{n}")).await;
    }
    let few = store.group_changes(group, revision, 5).await.unwrap();
    assert_eq!(few, None);
    // nothing is new, and what is not there yet
    let (newest, _, _) = served().await;
    let nothing = store.group_changes(group, newest, 5).await.unwrap();
    assert_eq!(nothing, Some((newest, vec![])));
    let later = store.group_changes(group, newest + 1, 5).await.unwrap();
    assert_eq!(later, None);
    // a member that is deleted takes all that it has with it, and its log does not say what
    store
        .delete_control_plane(&actor(), members[1])
        .await
        .unwrap();
    assert!(store.revision(group).await.unwrap() > newest);
    let changes = store.group_changes(group, newest, 100).await.unwrap();
    assert_eq!(changes, None);
}

/// What a group serves, by kind and id.
type Served = BTreeMap<(Kind, String), Value>;

fn followed_by(mut known: Served, changes: Vec<Change>) -> Served {
    for change in changes {
        let kind = Kind::from_table(&change.kind).unwrap();
        let key = (kind, json!(change.id).to_string());
        assert_eq!(known.get(&key), change.before.as_ref());
        match change.after {
            Some(body) => known.insert(key, body),
            None => known.remove(&key),
        };
    }
    known
}
