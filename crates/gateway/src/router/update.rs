//! From one list of routes to the next: only what changed is compiled and sorted anew.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use sallyport_model::RouterFlavor;
use sallyport_model::entities::Route;
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

/// Routes by the slot that each keeps as long as it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    by_id: AHashMap<Uuid, u32>,
    routes: Vec<Option<Arc<Compiled>>>,
    free: Vec<u32>,
}

/// What is kept of a compiled route to see a change, and to take it out again.
#[derive(Debug)]
struct Compiled {
    content: Content,
    places: Box<[Place]>,
}

/// What a route says. Two hashes with keys of their own stand for it: 128 bits that nobody
/// outside can steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content(u64, u64);

/// Keys of the hashes, the same for a router and those made from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hashers {
    /// Of the keys of tables.
    pub(super) keys: RandomState,
    contents: (RandomState, RandomState),
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    pub(super) fn get(&self, id: Uuid) -> Option<usize> {
        self.by_id.get(&id).map(|slot| *slot as usize)
    }

    fn is_same(&self, slot: u32, content: Content) -> bool {
        let compiled = self.routes[slot as usize].as_ref();
        compiled.is_some_and(|compiled| compiled.content == content)
    }

    fn claim(&mut self, id: Uuid) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.routes.push(None);
                u32::try_from(self.routes.len() - 1).expect("so many routes have no memory")
            })
        })
    }
}

/// Changes of one host's lists.
type Edits = AHashMap<HostKey, Vec<(Arc<str>, Edit)>>;

pub(super) fn updated(
    previous: &Router,
    flavor: RouterFlavor,
    routes: &[Route],
) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
    let hashers = &previous.hashers;
    let mut slots = previous.slots.clone();
    let mut seen = vec![false; slots.len()];
    let (mut edits, mut bad, mut work) = (Edits::default(), Vec::new(), Work::default());
    for (index, route) in routes.iter().enumerate() {
        let content = Content(
            hashers.contents.0.hash_one(route),
            hashers.contents.1.hash_one(route),
        );
        if let Some(slot) = slots.by_id.get(&route.id)
            && slots.is_same(*slot, content)
        {
            if let Some(seen) = seen.get_mut(*slot as usize) {
                *seen = true;
            }
            continue;
        }
        let slot = slots.claim(route.id);
        seen.resize(slots.len(), false);
        seen[slot as usize] = true;
        let found = match route.protocols.iter().copied().any(is_http) {
            true => compile(flavor, route, slot),
            false => Ok(Vec::new()), // it has its slot, and no request finds it
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                bad.push((index, error));
                continue;
            }
        };
        work.compiled += 1;
        remove(&slots, slot, &mut edits);
        let places = found.iter().map(|(place, _)| place.clone()).collect();
        slots.routes[slot as usize] = Some(Arc::new(Compiled { content, places }));
        for ((host, key), candidate) in found {
            let edits = edits.entry(host).or_default();
            edits.push((key, Edit::Add(candidate)));
        }
    }
    if !bad.is_empty() {
        return Err(bad);
    }
    let gone = |(id, slot): (&Uuid, &u32)| (!seen[*slot as usize]).then_some((*id, *slot));
    let gone: Vec<_> = slots.by_id.iter().filter_map(gone).collect();
    for (id, slot) in gone {
        work.removed += 1;
        remove(&slots, slot, &mut edits);
        slots.by_id.remove(&id);
        slots.routes[slot as usize] = None;
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
    let compiled = slots.routes[slot as usize].as_ref();
    for (host, key) in compiled.into_iter().flat_map(|compiled| &compiled.places) {
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
