//! Where a control plane's configuration stands, followed through the change log: its revision, the
//! digest of its entities, and what led there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sallyport_model::Kind;
use sallyport_store::{Change, Snapshot};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::FrameWriter;
use sallyport_wire::config_sync::delta::{Delta, Deltas, SyncVersion};
use sallyport_wire::config_sync::digest::{EntityDigest, SetDigest};
use sallyport_wire::config_sync::snapshot::{Header, unsigned};
use serde_json::Value;
use uuid::Uuid;

/// Steps that are kept for links which are busy while they are made.
const STEPS_MAX: usize = 32;
/// Revisions whose hash is remembered, to tell which one a data plane runs.
const HISTORY_MAX: usize = 256;

/// One revision.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Its number.
    pub(crate) revision: u64,
    /// The digest of its entities.
    pub(crate) digest: SetDigest,
    /// When this process first saw it, Unix seconds.
    pub(crate) seen_at: i64,
    /// What led here, oldest first.
    pub(crate) steps: VecDeque<Arc<Step>>,
    /// Hashes of this revision and those before it, oldest first.
    history: VecDeque<(ConfigHash, u64)>,
    /// Its entities, where its own change log does not tell what becomes of them: in groups.
    group: Option<Group>,
}

/// The digest of each entity.
type Content = HashMap<(Kind, String), EntityDigest>;

/// What a group serves.
#[derive(Clone, Debug)]
struct Group {
    /// The digests as they were when everything was read.
    read: Arc<Content>,
    /// Those that changed since, at most [`SINCE_MAX`]; `None` for those that are gone.
    since: HashMap<(Kind, String), Option<EntityDigest>>,
    /// Whether nothing of its members is left out.
    is_whole: bool,
}

/// Entities that are noted beside those of a group that was read, before they are put together.
const SINCE_MAX: usize = 512;

impl Group {
    fn of(snapshot: &Snapshot, is_whole: bool) -> Group {
        Group {
            read: Arc::new(content(snapshot)),
            since: HashMap::new(),
            is_whole,
        }
    }

    fn now(&self) -> Content {
        let mut now = (*self.read).clone();
        for (key, digest) in &self.since {
            match digest {
                Some(digest) => now.insert(key.clone(), *digest),
                None => now.remove(key),
            };
        }
        now
    }

    fn take(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(kind) = Kind::from_table(&change.kind) else {
                continue;
            };
            let digest = change.after.as_ref();
            let digest = digest.map(|it| EntityDigest::of(kind.table(), &it.to_string()));
            self.since.insert((kind, change.id.clone()), digest);
        }
        if self.since.len() > SINCE_MAX {
            self.read = Arc::new(self.now());
            self.since.clear();
        }
    }
}

/// What led from one revision to another.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// A push of protocol v2, the same for every link.
    pub(crate) frame: Bytes,
}

/// The number that stands for a control plane in names of versions.
pub(crate) fn plane(cp: Uuid) -> u64 {
    cp.as_u64_pair().0 >> 16
}

/// The digest of all entities of a snapshot.
pub(super) fn digest(snapshot: &Snapshot) -> SetDigest {
    let mut digest = SetDigest::default();
    for (kind, list) in &snapshot.entities {
        for entity in list {
            digest.add(
                kind.table(),
                EntityDigest::of(kind.table(), &entity.to_string()),
            );
        }
    }
    digest
}

/// Brings a digest forward by rows of the change log.
pub(super) fn follow<'a>(digest: &mut SetDigest, changes: impl IntoIterator<Item = &'a Change>) {
    for change in changes {
        let Some(kind) = Kind::from_table(&change.kind) else {
            continue;
        };
        let of = |entity: &Value| EntityDigest::of(kind.table(), &entity.to_string());
        if let Some(before) = &change.before {
            digest.remove(kind.table(), of(before));
        }
        if let Some(after) = &change.after {
            digest.add(kind.table(), of(after));
        }
    }
}

/// The digests of a snapshot's entities.
fn content(snapshot: &Snapshot) -> Content {
    let lists = snapshot.entities.iter();
    let all = lists.flat_map(|(kind, list)| list.iter().map(move |entity| (*kind, entity)));
    let one = |(kind, entity): (Kind, &Value)| {
        let id = entity["id"].as_str().unwrap_or_default().to_owned();
        let digest = EntityDigest::of(kind.table(), &entity.to_string());
        ((kind, id), digest)
    };
    all.map(one).collect()
}

impl State {
    /// The state of a snapshot, of which nothing is known before it.
    pub(super) fn of(snapshot: &Snapshot, now_s: i64) -> State {
        State::new(snapshot.revision, digest(snapshot), now_s)
    }

    pub(super) fn new(revision: u64, digest: SetDigest, now_s: i64) -> State {
        State {
            revision,
            digest,
            seen_at: now_s,
            steps: VecDeque::new(),
            history: VecDeque::from([(digest.hash(), revision)]),
            group: None,
        }
    }

    /// The state of a snapshot of a group, which the next one is compared with; whether all that its
    /// members have is in it.
    pub(super) fn of_group((snapshot, is_whole): &(Snapshot, bool), now_s: i64) -> State {
        State {
            group: Some(Group::of(snapshot, *is_whole)),
            ..State::of(snapshot, now_s)
        }
    }

    /// Whether it is one of a group.
    pub(super) fn is_of_group(&self) -> bool {
        self.group.is_some()
    }

    /// Whether it is one of a group that leaves nothing of its members out.
    pub(super) fn is_of_whole_group(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_whole)
    }

    /// The state of a later snapshot of the same group. Data planes get what is other than here.
    pub(super) fn after_snapshot(
        &self,
        cp: Uuid,
        (snapshot, is_whole): &(Snapshot, bool),
        now_s: i64,
    ) -> State {
        let after = Group::of(snapshot, *is_whole);
        let now = after.read.clone();
        let before = self.group.as_ref().map(Group::now).unwrap_or_default();
        let mut list = Vec::new();
        for (kind, entities) in &snapshot.entities {
            for entity in entities {
                let id = entity["id"].as_str().unwrap_or_default().to_owned();
                let key = (*kind, id);
                if now.get(&key) != before.get(&key) {
                    list.push(Delta {
                        table: kind.table().to_owned(),
                        id: key.1,
                        entity: Some(entity.clone()),
                    });
                }
            }
        }
        let gone = before.keys().filter(|key| !now.contains_key(key));
        list.extend(gone.map(|(kind, id)| Delta {
            table: kind.table().to_owned(),
            id: id.clone(),
            entity: None,
        }));
        let mut digest = SetDigest::default();
        for ((kind, _), entity) in &*now {
            digest.add(kind.table(), *entity);
        }
        let (from, to) = (self.revision, snapshot.revision);
        let group = Some(after);
        if to <= from || list.len() > super::publishers::CHANGES_MAX {
            return State {
                group,
                ..State::new(to, digest, now_s)
            };
        }
        let deltas = Deltas {
            full: false,
            from: Some(SyncVersion::new(plane(cp), from)),
            version: SyncVersion::new(plane(cp), to),
            hash: Some(digest.hash()),
            list,
        };
        let next = State {
            revision: to,
            digest,
            seen_at: now_s,
            group,
            ..self.clone()
        };
        next.having(Step {
            from,
            to,
            frame: deltas.push().into(),
        })
    }

    /// The same with the step that led here.
    fn having(mut self, step: Step) -> State {
        self.steps.push_back(Arc::new(step));
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
        }
        self.history.push_back((self.digest.hash(), self.revision));
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        self
    }

    /// The hash that data planes report once they run this.
    pub(crate) fn hash(&self) -> ConfigHash {
        self.digest.hash()
    }

    /// The newest revision known to have this hash.
    pub(crate) fn revision_of(&self, hash: ConfigHash) -> Option<u64> {
        let known = self.history.iter().rev().find(|(known, _)| *known == hash);
        known.map(|(_, revision)| *revision)
    }

    /// The state after these rows of the change log, which follow on it.
    pub(super) fn after(&self, cp: Uuid, changes: &[Change], now_s: i64) -> State {
        let to = changes.last().map_or(self.revision, |it| it.revision);
        self.after_to(cp, (to, changes), now_s)
    }

    /// The state of a group at a version that these changes of its members led to.
    pub(super) fn after_members(
        &self,
        cp: Uuid,
        (to, changes): (u64, &[Change]),
        now_s: i64,
    ) -> State {
        let mut next = self.after_to(cp, (to, changes), now_s);
        if let Some(group) = &mut next.group {
            group.take(changes);
        }
        next
    }

    fn after_to(&self, cp: Uuid, (to, changes): (u64, &[Change]), now_s: i64) -> State {
        let mut next = self.clone();
        next.revision = to;
        follow(&mut next.digest, changes);
        next.seen_at = now_s;
        let deltas = deltas(
            cp,
            changes,
            (self.revision, next.revision),
            next.digest.hash(),
        );
        next.having(Step {
            from: self.revision,
            to,
            frame: deltas.push().into(),
        })
    }

    /// The steps that lead here from a revision; `None` if they are not all kept.
    pub(crate) fn steps_from(&self, revision: u64) -> Option<Vec<Arc<Step>>> {
        let first = self.steps.iter().position(|step| step.from == revision)?;
        Some(self.steps.iter().skip(first).cloned().collect())
    }
}

/// Rows of the change log as deltas, each entity once.
pub(super) fn deltas(
    cp: Uuid,
    changes: &[Change],
    (from, to): (u64, u64),
    hash: ConfigHash,
) -> Deltas {
    let mut newest: BTreeMap<(Kind, &str), Option<&Value>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.revision <= to) {
        if let Some(kind) = Kind::from_table(&change.kind) {
            newest.insert((kind, &change.id), change.after.as_ref());
        }
    }
    let list = newest.into_iter().map(|((kind, id), entity)| Delta {
        table: kind.table().to_owned(),
        id: id.to_owned(),
        entity: entity.cloned(),
    });
    Deltas {
        full: false,
        from: Some(SyncVersion::new(plane(cp), from)),
        version: SyncVersion::new(plane(cp), to),
        hash: Some(hash),
        list: list.collect(),
    }
}

/// A whole snapshot as deltas.
pub(super) fn everything(cp: Uuid, snapshot: &Snapshot) -> Deltas {
    let lists = snapshot.entities.iter();
    let list = lists.flat_map(|(kind, list)| {
        list.iter().map(|entity| Delta {
            table: kind.table().to_owned(),
            id: entity["id"].as_str().unwrap_or_default().to_owned(),
            entity: Some(entity.clone()),
        })
    });
    Deltas {
        full: true,
        from: None,
        version: SyncVersion::new(plane(cp), snapshot.revision),
        hash: Some(digest(snapshot).hash()),
        list: list.collect(),
    }
}

/// A snapshot of the control plane with this id and prefix, as the part of a file that is to be
/// signed; takes time in proportion to it.
pub(crate) fn exported(
    (cp, prefix): (Uuid, String),
    snapshot: Snapshot,
    (issued_at, expires_at): (i64, i64),
) -> Vec<u8> {
    let mut digest = SetDigest::default();
    let mut frame = FrameWriter::default();
    for (kind, list) in snapshot.entities {
        for entity in list {
            let text = entity.to_string();
            digest.add(kind.table(), EntityDigest::of(kind.table(), &text));
            frame.add(kind.table(), &text);
        }
    }
    let config_hash = digest.hash();
    let header = Header {
        control_plane: cp.to_string(),
        prefix,
        version: SyncVersion::new(plane(cp), snapshot.revision),
        config_hash,
        issued_at,
        expires_at,
    };
    unsigned(&header, &frame.finish(config_hash))
}

#[cfg(test)]
mod tests {
    use sallyport_wire::config_sync::Reconfigure;
    use serde_json::json;

    use super::*;

    fn change(revision: u64, kind: &str, before: Option<Value>, after: Option<Value>) -> Change {
        let id = after
            .as_ref()
            .or(before.as_ref())
            .map(|it| it["id"].clone());
        Change {
            revision,
            actor: "test".to_owned(),
            at_ms: 0,
            operation: String::new(),
            kind: kind.to_owned(),
            id: id
                .and_then(|id| id.as_str().map(str::to_owned))
                .unwrap_or_default(),
            before,
            after,
        }
    }

    #[test]
    fn a_file_holds_the_snapshot_under_its_hash() {
        let cp = Uuid::from_u128(7 << 64);
        let snapshot = Snapshot {
            revision: 9,
            entities: BTreeMap::from([
                (Kind::Service, vec![json!({"id": "a"}), json!({"id": "b"})]),
                (
                    Kind::Route,
                    vec![json!({"id": "c", "service": {"id": "a"}})],
                ),
            ]),
        };
        let hash = digest(&snapshot).hash();
        let mut file = exported((cp, "abc".to_owned()), snapshot, (10, 20));
        file.extend([0; sallyport_wire::config_sync::snapshot::SIGNATURE]);
        let file = sallyport_wire::config_sync::snapshot::read(&file).unwrap();
        assert_eq!(file.header.version, SyncVersion::new(plane(cp), 9));
        assert_eq!((file.header.issued_at, file.header.expires_at), (10, 20));
        assert_eq!(file.header.config_hash, hash);
        assert_eq!(file.header.prefix, "abc");
        let payload = Reconfigure::decode(file.payload, 1 << 20).unwrap();
        assert_eq!(payload.config_hash, Some(hash));
        let expected = json!({
            "_format_version": "3.0", "_transform": false,
            "services": [{"id": "a"}, {"id": "b"}],
            "routes": [{"id": "c", "service": {"id": "a"}}],
        });
        assert_eq!(payload.config_table, expected);
    }

    #[test]
    fn a_group_is_followed_by_what_is_other_than_before() {
        let cp = Uuid::from_u128(7 << 64);
        let service =
            |n: u128, host: &str| json!({"id": Uuid::from_u128(n).to_string(), "host": host});
        let snapshot = |revision: u64, services: &[Value]| {
            let entities = BTreeMap::from([(Kind::Service, services.to_vec())]);
            (Snapshot { revision, entities }, true)
        };
        let many: Vec<Value> = (1..50).map(|n| service(n, "a")).collect();
        let first = State::of_group(&snapshot(3, &many), 1);
        let mut other = many.clone();
        other[4] = service(5, "b");
        other.remove(9);
        other.push(service(77, "new"));
        let second = first.after_snapshot(cp, &snapshot(8, &other), 2);
        assert_eq!(second.digest, digest(&snapshot(8, &other).0));
        let steps = second.steps_from(3).unwrap();
        let messages = sallyport_wire::config_sync::rpc::decode(&steps[0].frame, 1 << 20).unwrap();
        let [Ok(sallyport_wire::config_sync::rpc::Message::Notification { params, .. })] =
            messages.as_slice()
        else {
            panic!("{messages:?}");
        };
        let told = Deltas::from_params(params).unwrap();
        let mut list: Vec<_> = told
            .list
            .iter()
            .map(|it| (&*it.id, it.entity.is_some()))
            .collect();
        list.sort_unstable();
        let id = |n: u128| Uuid::from_u128(n).to_string();
        let (changed, gone, new) = (id(5), id(10), id(77));
        let mut expected = [(&*changed, true), (&*gone, false), (&*new, true)];
        expected.sort_unstable();
        assert_eq!(list, expected);
        assert_eq!(told.hash, Some(second.hash()));
        assert_eq!((steps[0].from, steps[0].to), (3, 8));
        // a change of a member goes to the data planes as it is, and what is read later follows on it
        let moved = |id: u128, host: Option<&str>, before: Option<&str>| {
            let one = |host: Option<&str>| host.map(|host| service(id, host));
            change(9, "services", one(before), one(host))
        };
        let rows = [moved(5, Some("c"), Some("b")), moved(77, None, Some("new"))];
        let third = second.after_members(cp, (10, &rows), 3);
        let mut later = other.clone();
        later[4] = service(5, "c");
        later.pop();
        assert_eq!(third.digest, digest(&snapshot(10, &later).0));
        assert_eq!((third.revision, third.is_of_whole_group()), (10, true));
        later[0] = service(1, "d");
        let fourth = third.after_snapshot(cp, &snapshot(11, &later), 4);
        let steps = fourth.steps_from(10).unwrap();
        assert!(
            steps.len() == 1 && steps[0].frame.len() < 300,
            "one service: {steps:?}"
        );
        // however many there are, they are put together
        let mut many_more = fourth;
        for n in 0..2 * SINCE_MAX as u128 {
            let row = [moved(1_000 + n, Some("e"), None)];
            many_more = many_more.after_members(cp, (12 + n as u64, &row), 5);
            later.push(service(1_000 + n, "e"));
        }
        assert!(many_more.group.as_ref().unwrap().since.len() <= SINCE_MAX);
        assert_eq!(many_more.digest, digest(&snapshot(12, &later).0));
        // a member that left took its log with it: there is no step from what was before
        let back = second.after_snapshot(cp, &snapshot(2, &many), 3);
        assert!(back.steps_from(8).is_none() && back.is_of_group());
        assert_eq!(back.digest, first.digest);
    }

    #[test]
    fn what_is_followed_is_what_a_snapshot_says() {
        let cp = Uuid::from_u128(7 << 64);
        let id = Uuid::from_u128(1).to_string();
        let (one, two) = (
            json!({"id": id, "host": "a"}),
            json!({"id": id, "host": "b"}),
        );
        let empty = Snapshot {
            revision: 0,
            entities: BTreeMap::new(),
        };
        let state = State::of(&empty, 1);
        assert!(state.hash().is_zero());
        let first = state.after(cp, &[change(1, "services", None, Some(one.clone()))], 2);
        let second = first.after(
            cp,
            &[change(2, "services", Some(one.clone()), Some(two.clone()))],
            3,
        );
        let snapshot = Snapshot {
            revision: 2,
            entities: BTreeMap::from([(Kind::Service, vec![two.clone()])]),
        };
        assert_eq!(second.digest, digest(&snapshot));
        assert_eq!(everything(cp, &snapshot).hash, Some(second.hash()));
        assert_eq!(second.revision_of(first.hash()), Some(1));
        assert_eq!(second.revision_of(second.hash()), Some(2));
        let steps = second.steps_from(0).unwrap();
        assert_eq!(
            steps
                .iter()
                .map(|step| (step.from, step.to))
                .collect::<Vec<_>>(),
            [(0, 1), (1, 2)]
        );
        assert!(second.steps_from(2).is_none());
        let gone = second.after(cp, &[change(3, "services", Some(two), None)], 4);
        assert!(gone.hash().is_zero());
        // several changes of one entity are one delta, and what is no entity counts for nothing
        let rows = [
            change(1, "services", None, Some(one.clone())),
            change(2, "dp_certificate", None, Some(json!({"id": "x"}))),
            change(3, "services", Some(one), None),
        ];
        let deltas = deltas(cp, &rows, (0, 3), ConfigHash::ZERO);
        assert_eq!(deltas.list.len(), 1);
        assert_eq!(deltas.list[0].entity, None);
    }
}
