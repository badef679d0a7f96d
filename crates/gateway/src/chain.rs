//! Which plugin configurations run for a request, and in which order.
//!
//! One configuration per plugin, the most specific scope first: route+service+consumer,
//! route+service+group, route+consumer, service+consumer, route+group, service+group,
//! route+service, consumer, group, route, service, global, where a group is a consumer group. A
//! consumer counts from the moment an earlier plugin has recognised it; of several groups at one
//! place in this order the first by name. Source: data-plane reference 6.2; with groups, the
//! precedence that Kong documents.

mod closing;
mod edit;
mod scope;
mod steps;

use std::sync::Arc;

use sallyport_model::entities;
use sallyport_plugins::ids::{Ids, Pages};
use sallyport_plugins::{ALL, Consumer, Handler};
use uuid::Uuid;

use crate::closed::{Closed, Places};

pub(crate) use edit::Touched;
use scope::{Scope, Who, caller_of, content, scopes};
pub(crate) use steps::Chains;

/// Index of a handler in [`Handlers`].
type Index = u32;

/// Indexes that are free are taken again as long as there are no more of them than this.
const FREE_MAX: usize = 1_024;

/// Every plugin configuration of a gateway configuration, ready to run. A copy shares what does
/// not change.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    all: Pages<Option<Ready>>,
    free: Vec<Index>,
    by_scope: Ids<Index, Scope>,
    by_consumer: Ids<Callers, Scope>,
    by_group: Ids<Callers, Scope>,
    /// In which order plugins run.
    places: Arc<Places>,
    /// How many plugins of their own routes and services have.
    own: Ids<u32>,
    /// By the id of the plugin.
    placed: Ids<Placed>,
    /// What answers 503.
    closed: Ids<Shut, Closed>,
    wishes: Wishes,
}

/// A plugin that is ready to run.
#[derive(Clone)]
struct Ready {
    handler: Arc<dyn Handler>,
    /// Which plugin it is of.
    name: &'static str,
}

/// Where a plugin is.
#[derive(Clone)]
struct Placed {
    index: Index,
    scopes: Vec<Scope>,
    caller: Option<Who>,
    content: [u8; 16],
}

/// A scope that is closed.
#[derive(Clone)]
struct Shut {
    index: Index,
    /// For how many refused entities.
    count: u32,
    /// Whether it stands where a plugin would be.
    covers: bool,
}

/// How many plugins want something that costs others.
#[derive(Clone, Copy, Default)]
struct Wishes {
    captures: usize,
    logs: usize,
    entities: usize,
    traces: usize,
}

/// Handlers by the id of a consumer, or of a consumer group.
type Callers = Arc<Ids<Index>>;

/// Plugins of one route or service, or those of all, in the order they run. What is for all is
/// in a chain of its own, so that it changes without the others.
#[derive(Debug, Default)]
pub(crate) struct Chain(Vec<Slot>);

/// One plugin: what may apply.
#[derive(Debug)]
struct Slot {
    /// Its place in the order.
    rank: u32,
    /// What depends on who calls, most specific first.
    callers: Vec<Level>,
    /// For the route with the service: nothing that is for all comes before it.
    whole: Option<Index>,
    /// What depends on neither.
    other: Option<Index>,
}

/// Configurations of a plugin that apply to some callers.
#[derive(Debug)]
enum Level {
    /// By the id of the consumer.
    Consumer(Callers),
    /// By the id of a consumer group.
    Group(Callers),
}

/// What is known of who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) id: Uuid,
    /// Ids of its consumer groups, by their names.
    pub(crate) groups: &'a [Uuid],
}

impl<'a> Caller<'a> {
    /// The consumer that was recognised, if one was.
    pub(crate) fn of(consumer: &'a Option<Arc<Consumer>>) -> Option<Caller<'a>> {
        let consumer = consumer.as_ref()?;
        Some(Caller {
            id: consumer.id,
            groups: consumer.consumer_groups(),
        })
    }
}

/// Why plugins cannot be used: id, name and reason of each.
type Problems = Vec<(Uuid, String, String)>;

impl Handlers {
    /// Makes every plugin ready to run, and what answers 503 where one is missing. Those that
    /// are as `before` are taken over.
    ///
    /// # Errors
    /// Every plugin that cannot be used, as its id, name and the reason.
    pub(crate) fn new(
        plugins: &[entities::Plugin],
        closed: &[Closed],
        before: &Handlers,
    ) -> Result<Handlers, Problems> {
        let mut handlers = Handlers::default();
        let mut problems = Vec::new();
        for plugin in plugins {
            match handlers.ready(plugin, before) {
                Ok((at, content, ready)) => _ = handlers.place(plugin, at, content, ready),
                Err(reason) => problems.push((plugin.id, plugin.name.clone(), reason)),
            }
        }
        for closed in closed {
            handlers.close(closed);
        }
        match problems.is_empty() {
            true => Ok(handlers),
            false => Err(problems),
        }
    }

    /// Makes a plugin ready, or takes it over: its place in the registry, what it was made of.
    fn ready(
        &self,
        plugin: &entities::Plugin,
        before: &Handlers,
    ) -> Result<(usize, [u8; 16], Ready), String> {
        let at = ALL.iter().position(|known| known.name() == plugin.name);
        let at = at.ok_or_else(|| "this build does not have it".to_owned())?;
        let content = content(plugin);
        let name = ALL[at].name();
        let old = before.placed.get(&plugin.id);
        let old = old.filter(|old| old.content == content);
        if let Some(Some(ready)) = old.and_then(|old| before.all.get(old.index as usize)) {
            return Ok((at, content, ready.clone()));
        }
        let handler = ALL[at].compile_entity(&plugin.config, plugin.id);
        let handler = handler.map_err(|error| error.to_string())?.into();
        Ok((at, content, Ready { handler, name }))
    }

    fn push(&mut self, ready: Ready) -> Index {
        self.wishes.count(&*ready.handler, true);
        if let Some(index) = self.free.pop() {
            self.all.set(index as usize, Some(ready));
            return index;
        }
        self.all.push(Some(ready));
        (self.all.len() - 1) as Index
    }

    /// Gives a plugin its places; `false` if another has one of them.
    fn place(
        &mut self,
        plugin: &entities::Plugin,
        at: usize,
        content: [u8; 16],
        ready: Ready,
    ) -> bool {
        let index = self.push(ready);
        let (scopes, caller) = (scopes(plugin, at), caller_of(plugin));
        let mut alone = true;
        for scope in &scopes {
            alone &= self.put(*scope, caller, index);
        }
        for id in [plugin.route, plugin.service].into_iter().flatten() {
            self.count_own(id.0, true);
        }
        let placed = Placed {
            index,
            scopes,
            caller,
            content,
        };
        self.placed.insert(plugin.id, placed);
        alone
    }

    /// `false` if there was another.
    fn put(&mut self, scope: Scope, caller: Option<Who>, index: Index) -> bool {
        let (map, caller) = match caller {
            None => {
                let is_free = self.by_scope.get(&scope).is_none();
                self.by_scope.insert(scope, index);
                return is_free;
            }
            Some(Who::Consumer(id)) => (&mut self.by_consumer, id),
            Some(Who::Group(id)) => (&mut self.by_group, id),
        };
        // out of the map while it changes, so that it is not copied
        let mut callers = map.remove(&scope).unwrap_or_default();
        let is_free = callers.get(&caller).is_none();
        Arc::make_mut(&mut callers).insert(caller, index);
        map.insert(scope, callers);
        is_free
    }

    fn count_own(&mut self, id: Uuid, more: bool) {
        let before = self.own.get(&id).copied().unwrap_or_default();
        match (more, before) {
            (true, _) => self.own.insert(id, before + 1),
            (false, 0 | 1) => _ = self.own.remove(&id),
            (false, _) => self.own.insert(id, before - 1),
        }
    }

    /// Whether any of them reads what a route captures.
    pub(crate) fn read_captures(&self) -> bool {
        self.wishes.captures > 0
    }

    /// Which plugin it is, and of what it was made.
    #[cfg(test)]
    pub(crate) fn shown(&self, index: Index) -> String {
        let mut placed = self.placed.iter();
        let placed = placed.find(|(_, placed)| placed.index == index);
        let made_of = placed.map(|(id, placed)| (id, placed.content));
        format!("{} {made_of:?}", self.name(index))
    }

    /// Puts another handler in the place of one that chains were made with.
    #[cfg(test)]
    pub(crate) fn replace(&mut self, index: u32, handler: Box<dyn Handler>) {
        let ready = Ready {
            handler: handler.into(),
            name: "test",
        };
        self.exchange(Uuid::nil(), index, [0; 16], ready);
    }

    /// Whether some handler tells the entities that a request was served with.
    pub(crate) fn read_entities(&self) -> bool {
        self.wishes.entities > 0
    }

    /// Whether some handler wants to know how requests end.
    pub(crate) fn any_logs(&self) -> bool {
        self.wishes.logs > 0
    }

    /// Whether some handler wants to know where the time of requests went.
    pub(crate) fn any_traces(&self) -> bool {
        self.wishes.traces > 0
    }

    fn at(&self, index: Index) -> &Ready {
        let ready = self.all.get(index as usize).and_then(Option::as_ref);
        ready.expect("no chain has a handler that is gone")
    }

    /// The plugin of the handler at an index.
    pub(crate) fn name(&self, index: Index) -> &'static str {
        self.at(index).name
    }

    /// The handler at an index that a chain of the same configuration gave.
    pub(crate) fn get(&self, index: Index) -> &dyn Handler {
        &*self.at(index).handler
    }

    /// Whether this route or service has plugins of its own.
    fn has_own(&self, id: Uuid) -> bool {
        self.own.get(&id).is_some()
    }

    /// The plugins of one route, without those that are for all. Those for streams and those for
    /// requests are never mixed.
    fn chain(&self, route: Option<Uuid>, service: Option<Uuid>, stream: bool) -> Chain {
        let slot = |(plugin, rank): (usize, u32)| {
            let scope = |route, service| Scope {
                plugin,
                route,
                service,
                stream,
            };
            let both = (route.is_some() && service.is_some()).then(|| scope(route, service));
            let of_route = route.map(|_| scope(route, None));
            let of_service = service.map(|_| scope(None, service));
            let all = |scope: Option<Scope>| self.by_scope.get(&scope?).copied();
            let callers = [
                self.consumers(both),
                self.groups(both),
                self.consumers(of_route),
                self.consumers(of_service),
                self.groups(of_route),
                self.groups(of_service),
            ];
            Slot {
                rank,
                callers: callers.into_iter().flatten().collect(),
                whole: all(both),
                other: all(of_route).or_else(|| all(of_service)),
            }
        };
        Chain::of(self.places.order().map(slot))
    }

    /// The plugins that are for all routes.
    pub(crate) fn global_chain(&self, stream: bool) -> Chain {
        let slot = |(plugin, rank): (usize, u32)| {
            let scope = Scope {
                plugin,
                route: None,
                service: None,
                stream,
            };
            let callers = [self.consumers(Some(scope)), self.groups(Some(scope))];
            Slot {
                rank,
                callers: callers.into_iter().flatten().collect(),
                whole: None,
                other: self.by_scope.get(&scope).copied(),
            }
        };
        Chain::of(self.places.order().map(slot))
    }

    fn consumers(&self, scope: Option<Scope>) -> Option<Level> {
        let map = self.by_consumer.get(&scope?)?;
        Some(Level::Consumer(map.clone()))
    }

    fn groups(&self, scope: Option<Scope>) -> Option<Level> {
        let map = self.by_group.get(&scope?)?;
        Some(Level::Group(map.clone()))
    }
}

impl Wishes {
    fn count(&mut self, handler: &dyn Handler, more: bool) {
        let wishes = [
            (handler.reads_captures(), &mut self.captures),
            (handler.logs(), &mut self.logs),
            (
                handler.logs() || handler.reads_entities(),
                &mut self.entities,
            ),
            (handler.traces(), &mut self.traces),
        ];
        for (_, count) in wishes.into_iter().filter(|(wished, _)| *wished) {
            *count = match more {
                true => *count + 1,
                false => count.saturating_sub(1),
            };
        }
    }
}

impl Chain {
    fn of(slots: impl Iterator<Item = Slot>) -> Chain {
        let some =
            |slot: &Slot| slot.whole.is_some() || slot.other.is_some() || !slot.callers.is_empty();
        Chain(slots.filter(some).collect())
    }
}

#[cfg(test)]
mod tests;
