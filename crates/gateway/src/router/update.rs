//! From one list of routes to the next: only what changed is compiled and sorted anew.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use ahash::{AHashMap, AHasher, RandomState};
use sallyport_model::RouterFlavor;
use sallyport_model::entities::Route;
use sallyport_plugins::ids::{Ids, Pages};
use uuid::Uuid;

use super::bucket::{Bucket, Edit, HostKey};
use super::compile::{Place, compile};
use super::pattern::PatternError;
use super::table::{Change, Table};
use super::{Router, is_http};

/// What had to be done for a list of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Routes that were compiled: new or changed ones.
    pub compiled: usize,
    /// Routes that are no longer there.
    pub removed: usize,
    /// Hosts under which anything changed.
    pub hosts: usize,
    /// Lists of routes (of one host and one path) that were sorted anew.
    pub lists: usize,
}

/// Routes by the slot that each keeps as long as it is there. Copying it looks at no route.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    by_id: Ids<u32>,
    all: Pages<Slot>,
    free: Vec<u32>,
}

/// What is in a slot.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// `None` if it is free.
    taken: Option<(Uuid, Content)>,
    places: Places,
}

/// Every place of a route, to take it out again.
type Places = Arc<[Place]>;

/// What a route says: 128 bits of keyed hash that nobody outside can steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content(u64, u64);

/// Keys of the hashes, the same for a router and those made from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hashers {
    /// Of the keys of tables.
    pub(super) keys: RandomState,
    contents: (RandomState, RandomState),
}

impl Hashers {
    fn content(&self, route: &Route) -> Content {
        let (one, two) = &self.contents;
        let mut both = Both(one.build_hasher(), two.build_hasher());
        route.hash(&mut both);
        Content(both.0.finish(), both.1.finish())
    }
}

/// Two hashes in one walk.
struct Both(AHasher, AHasher);

impl Hasher for Both {
    fn finish(&self) -> u64 {
        self.0.finish()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
        self.1.write(bytes);
    }
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }
    fn write_u64(&mut self, number: u64) {
        self.0.write_u64(number);
        self.1.write_u64(number);
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn taken_count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: Uuid) -> Option<usize> {
        self.by_id.get(&id).map(|slot| *slot as usize)
    }

    fn taken(&self, slot: usize) -> Option<(Uuid, Content)> {
        self.all.get(slot)?.taken
    }

    /// The slot of a route; the one after `before`, if it is that one, without a search.
    fn after(&self, before: usize, id: Uuid) -> Option<usize> {
        let next = before.wrapping_add(1);
        match self.taken(next) {
            Some((there, _)) if there == id => Some(next),
            _ => self.get(id),
        }
    }

    fn claim(&mut self, id: Uuid) -> u32 {
        if let Some(slot) = self.by_id.get(&id) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot::default());
            u32::try_from(self.all.len() - 1).expect("so many routes have no memory")
        });
        self.by_id.insert(id, slot);
        slot
    }

    fn places(&self, slot: u32) -> Places {
        let there = self.all.get(slot as usize);
        there.map_or_else(Places::default, |there| there.places.clone())
    }

    fn put(&mut self, slot: u32, taken: Option<(Uuid, Content)>, places: Places) {
        self.all.set(slot as usize, Slot { taken, places });
    }
}

/// Changes of one host's lists.
type Edits = AHashMap<HostKey, Vec<(Arc<str>, Edit)>>;

/// A route that is new or not what it was, and where it stands in the caller's list.
type Changed<'r> = (usize, &'r Route, Content);

/// The router of exactly these routes.
pub(super) fn updated(
    previous: &Router,
    flavor: RouterFlavor,
    routes: &[Route],
) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
    let (hashers, slots) = (&previous.hashers, &previous.slots);
    let mut seen = vec![false; slots.len()];
    let mut changed: Vec<Changed<'_>> = Vec::new();
    let mut last = usize::MAX;
    for (index, route) in routes.iter().enumerate() {
        let content = hashers.content(route);
        let slot = slots.after(last, route.id);
        if let Some(slot) = slot {
            seen[slot] = true;
            last = slot;
        }
        if slot.and_then(|slot| slots.taken(slot)) != Some((route.id, content)) {
            changed.push((index, route, content));
        }
    }
    let gone = |(slot, there): (usize, &Slot)| match there.taken {
        Some((id, _)) if !seen[slot] => Some(id),
        _ => None,
    };
    let gone: Vec<_> = slots.all.iter().enumerate().filter_map(gone).collect();
    changed_to(previous, flavor, &changed, &gone)
}

/// The router with these routes, new or in place of those with the same id, and without others.
pub(super) fn edited(
    previous: &Router,
    flavor: RouterFlavor,
    routes: &[Route],
    gone: &[Uuid],
) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
    let (hashers, slots) = (&previous.hashers, &previous.slots);
    let changed = routes.iter().enumerate().filter_map(|(index, route)| {
        let content = hashers.content(route);
        let there = slots.get(route.id).and_then(|slot| slots.taken(slot));
        (there != Some((route.id, content))).then_some((index, route, content))
    });
    changed_to(previous, flavor, &changed.collect::<Vec<_>>(), gone)
}

fn changed_to(
    previous: &Router,
    flavor: RouterFlavor,
    changed: &[Changed<'_>],
    gone: &[Uuid],
) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
    let mut slots = previous.slots.clone();
    let (mut edits, mut bad, mut work) = (Edits::default(), Vec::new(), Work::default());
    for (index, route, content) in changed {
        let slot = slots.claim(route.id);
        let found = match route.protocols.iter().copied().any(is_http) {
            true => compile(flavor, route, slot),
            false => Ok(Vec::new()), // it has its slot, and no request finds it
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                bad.push((*index, error));
                continue;
            }
        };
        work.compiled += 1;
        remove(&slots, slot, &mut edits);
        let places = found.iter().map(|(place, _)| place.clone()).collect();
        slots.put(slot, Some((route.id, *content)), places);
        for ((host, key), candidate) in found {
            let edits = edits.entry(host).or_default();
            edits.push((key, Edit::Add(candidate)));
        }
    }
    if !bad.is_empty() {
        return Err(bad);
    }
    for id in gone {
        let Some(slot) = slots.by_id.remove(id) else {
            continue;
        };
        work.removed += 1;
        remove(&slots, slot, &mut edits);
        slots.put(slot, None, Places::default());
        slots.free.push(slot);
    }
    let mut router = Router {
        slots,
        ..previous.clone()
    };
    apply(&mut router, edits, &mut work);
    Ok((router, work))
}

/// Notes that the route in this slot leaves its places.
fn remove(slots: &Slots, slot: u32, edits: &mut Edits) {
    for (host, key) in &*slots.places(slot) {
        let edits = edits.entry(host.clone()).or_default();
        edits.push((key.clone(), Edit::Remove(slot)));
    }
}

fn apply(router: &mut Router, edits: Edits, work: &mut Work) {
    let hashers = router.hashers.clone();
    let (mut exact, mut suffixes, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    for (host, edits) in edits {
        work.hosts += 1;
        let (table, changes, name): (&Table<_>, &mut Vec<Change<_>>, _) = match host {
            HostKey::Any => {
                let (bucket, lists) = router.any_host.edited(&hashers.keys, edits);
                router.any_host = Arc::new(bucket);
                work.lists += lists;
                continue;
            }
            HostKey::Exact(name) => (&router.exact_hosts, &mut exact, name),
            HostKey::Suffix(name) => (&router.host_suffixes, &mut suffixes, name),
            HostKey::Prefix(name) => (&router.host_prefixes, &mut prefixes, name),
        };
        let hash = hashers.keys.hash_one(&*name);
        let old: Option<&Arc<Bucket>> = table.get(hash, &name);
        let (bucket, lists) = match old {
            Some(old) => old.edited(&hashers.keys, edits),
            None => Bucket::default().edited(&hashers.keys, edits),
        };
        work.lists += lists;
        changes.push((hash, name, (!bucket.is_empty()).then(|| Arc::new(bucket))));
    }
    for (table, changes) in [
        (&mut router.exact_hosts, exact),
        (&mut router.host_suffixes, suffixes),
        (&mut router.host_prefixes, prefixes),
    ] {
        if !changes.is_empty() {
            *table = table.changed(changes);
        }
    }
}
