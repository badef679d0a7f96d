//! The plugins of one route as they run: its own and those that are for all.

use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use super::{Caller, Chain, Handlers, Index, Level, Slot};

impl Chain {
    /// The plugins of a route whose own chain this is, in the order they run.
    pub(crate) fn with<'a>(&'a self, global: &'a Chain) -> Steps<'a> {
        Steps {
            own: &self.0,
            global: &global.0,
        }
    }
}

/// The plugins of a route, in the order they run.
pub(crate) struct Steps<'a> {
    own: &'a [Slot],
    global: &'a [Slot],
}

/// One of them.
pub(crate) struct Step<'a> {
    own: Option<&'a Slot>,
    global: Option<&'a Slot>,
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (own, global) = (self.own.first(), self.global.first());
        let rank = |slot: Option<&Slot>| slot.map_or(u32::MAX, |slot| slot.rank);
        let next = rank(own).min(rank(global));
        let own = own.filter(|slot| slot.rank == next);
        let global = global.filter(|slot| slot.rank == next);
        if own.is_some() {
            self.own = &self.own[1..];
        }
        if global.is_some() {
            self.global = &self.global[1..];
        }
        (own.is_some() || global.is_some()).then_some(Step { own, global })
    }
}

impl Step<'_> {
    /// Its handler for what is known of the caller now.
    pub(crate) fn pick(&self, caller: Option<Caller<'_>>) -> Option<Index> {
        let of = |slot: Option<&Slot>| {
            let (slot, caller) = (slot?, caller.as_ref()?);
            slot.callers.iter().find_map(|level| match level {
                Level::Consumer(map) => map.get(&caller.id).copied(),
                Level::Group(map) => caller.groups.iter().find_map(|id| map.get(id).copied()),
            })
        };
        of(self.own)
            .or_else(|| self.own?.whole)
            .or_else(|| of(self.global))
            .or_else(|| self.own?.other)
            .or_else(|| self.global?.other)
    }
}

/// Makes the chains of routes; those without plugins of their own share the one of their service.
pub(crate) struct Chains<'a> {
    handlers: &'a Handlers,
    made: AHashMap<(Uuid, bool), Arc<Chain>>,
    none: Arc<Chain>,
}

impl<'a> Chains<'a> {
    /// Starts to make them.
    pub(crate) fn new(handlers: &'a Handlers) -> Chains<'a> {
        Chains {
            handlers,
            made: AHashMap::new(),
            none: Arc::default(),
        }
    }

    /// The plugins of one route, besides those that are for all.
    pub(crate) fn of(&mut self, route: Uuid, service: Option<Uuid>, stream: bool) -> Arc<Chain> {
        let handlers = self.handlers;
        if handlers.has_own(route) {
            return Arc::new(handlers.chain(Some(route), service, stream));
        }
        let Some(service) = service.filter(|id| handlers.has_own(*id)) else {
            return self.none.clone();
        };
        let make = || Arc::new(handlers.chain(None, Some(service), stream));
        let key = (service, stream);
        self.made.entry(key).or_insert_with(make).clone()
    }
}
