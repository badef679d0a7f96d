//! Which plugin configurations run for a request, and in which order.
//!
//! One configuration per plugin, the most specific scope first: route+service+consumer,
//! route+service+group, route+consumer, service+consumer, route+group, service+group,
//! route+service, consumer, group, route, service, global, where a group is a consumer group. A
//! consumer counts from the moment an earlier plugin has recognised it; of several groups at one
//! place in this order the first by name. Source: data-plane reference 6.2; with groups, the
//! precedence that Kong documents.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use sallyport_model::entities::{self, Foreign};
use sallyport_plugins::{ALL, Consumer, Handler};
use uuid::Uuid;

use crate::router::is_stream;

/// Index of a handler in [`Handlers`].
type Index = u32;

/// Every plugin configuration of a gateway configuration, ready to run.
#[derive(Default)]
pub(crate) struct Handlers {
    all: Vec<Box<dyn Handler>>,
    /// Which plugin each of them is of.
    names: Vec<&'static str>,
    read_captures: bool,
    any_logs: bool,
    read_entities: bool,
    any_traces: bool,
    by_scope: AHashMap<Scope, Index>,
    by_consumer: AHashMap<Scope, Callers>,
    by_group: AHashMap<Scope, Callers>,
    /// Routes with plugins of their own.
    own: AHashSet<Uuid>,
}

/// Handlers by the id of a consumer, or of a consumer group.
type Callers = Arc<AHashMap<Uuid, Index>>;

/// The part of a scope that is known once a route matched.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Scope {
    /// Place in the registry, which is the order plugins run in.
    plugin: usize,
    route: Option<Uuid>,
    service: Option<Uuid>,
    /// Whether it is for streams, not for requests.
    stream: bool,
}

/// The plugins of one route, in the order they run.
#[derive(Debug, Default)]
pub(crate) struct Chain(Vec<Slot>);

/// One plugin of a route: what may apply.
#[derive(Debug)]
struct Slot {
    /// What depends on who calls, most specific first.
    callers: Vec<Level>,
    /// What does not.
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

impl Handlers {
    /// Makes every plugin ready to run; several consumer scopes of one plugin share an
    /// entry a scope.
    ///
    /// # Errors
    /// Every plugin that cannot be used, as its id, name and the reason.
    pub(crate) fn new(
        plugins: &[entities::Plugin],
    ) -> Result<Handlers, Vec<(Uuid, String, String)>> {
        let mut handlers = Handlers::default();
        let mut by_consumer: AHashMap<Scope, AHashMap<Uuid, Index>> = AHashMap::new();
        let mut by_group: AHashMap<Scope, AHashMap<Uuid, Index>> = AHashMap::new();
        let mut problems = Vec::new();
        for plugin in plugins {
            let compiled = ALL
                .iter()
                .position(|known| known.name() == plugin.name)
                .ok_or_else(|| "this build does not have it".to_owned())
                .and_then(|at| {
                    let handler = ALL[at].compile_entity(&plugin.config, plugin.id);
                    handler
                        .map(|handler| (at, handler))
                        .map_err(|error| error.to_string())
                });
            match compiled {
                Err(reason) => problems.push((plugin.id, plugin.name.clone(), reason)),
                Ok((at, handler)) => {
                    let index = handlers.all.len() as Index;
                    handlers.read_captures |= handler.reads_captures();
                    handlers.any_logs |= handler.logs();
                    handlers.read_entities |= handler.logs() || handler.reads_entities();
                    handlers.any_traces |= handler.traces();
                    handlers.names.push(ALL[at].name());
                    handlers.all.push(handler);
                    let id = |foreign: Option<Foreign>| foreign.map(|Foreign(id)| id);
                    for stream in subsystems(plugin) {
                        let scope = Scope {
                            plugin: at,
                            route: id(plugin.route),
                            service: id(plugin.service),
                            stream,
                        };
                        let (map, caller) = match (plugin.consumer, plugin.consumer_group) {
                            (None, None) => {
                                handlers.by_scope.insert(scope, index);
                                continue;
                            }
                            (Some(consumer), _) => (&mut by_consumer, consumer),
                            (None, Some(group)) => (&mut by_group, group),
                        };
                        map.entry(scope).or_default().insert(caller.0, index);
                    }
                }
            }
        }
        let shared = |map: AHashMap<Scope, AHashMap<Uuid, Index>>| {
            let shared = |(scope, map)| (scope, Arc::new(map));
            map.into_iter().map(shared).collect::<AHashMap<_, _>>()
        };
        handlers.by_consumer = shared(by_consumer);
        handlers.by_group = shared(by_group);
        let scopes = handlers.by_scope.keys().chain(handlers.by_consumer.keys());
        let scopes = scopes.chain(handlers.by_group.keys());
        handlers.own = scopes.filter_map(|scope| scope.route).collect();
        match problems.is_empty() {
            true => Ok(handlers),
            false => Err(problems),
        }
    }

    /// Whether any of them reads what a route captures.
    pub(crate) fn read_captures(&self) -> bool {
        self.read_captures
    }

    /// Puts another handler in the place of one that chains were made with.
    #[cfg(test)]
    pub(crate) fn replace(&mut self, index: u32, handler: Box<dyn Handler>) {
        self.any_logs |= handler.logs();
        self.all[index as usize] = handler;
    }

    /// Whether some handler tells the entities that a request was served with.
    pub(crate) fn read_entities(&self) -> bool {
        self.read_entities
    }

    /// Whether some handler wants to know how requests end.
    pub(crate) fn any_logs(&self) -> bool {
        self.any_logs
    }

    /// Whether some handler wants to know where the time of requests went.
    pub(crate) fn any_traces(&self) -> bool {
        self.any_traces
    }

    /// The plugin of the handler at an index.
    pub(crate) fn name(&self, index: Index) -> &'static str {
        self.names[index as usize]
    }

    /// The handler at an index that a chain of the same configuration gave.
    pub(crate) fn get(&self, index: Index) -> &dyn Handler {
        &*self.all[index as usize]
    }

    /// The plugins of one route; without a route only the global ones. Those for streams and
    /// those for requests are never mixed.
    pub(crate) fn chain(&self, route: Option<Uuid>, service: Option<Uuid>, stream: bool) -> Chain {
        let slot = |plugin: usize| {
            let scope = |route, service| Scope {
                plugin,
                route,
                service,
                stream,
            };
            let both = (route.is_some() && service.is_some()).then(|| scope(route, service));
            let of_route = route.map(|_| scope(route, None));
            let of_service = service.map(|_| scope(None, service));
            let global = Some(scope(None, None));
            let all = |scope: Option<Scope>| self.by_scope.get(&scope?).copied();
            let consumers = |scope: Option<Scope>| {
                let map = self.by_consumer.get(&scope?)?;
                Some(Level::Consumer(map.clone()))
            };
            let groups = |scope: Option<Scope>| {
                let map = self.by_group.get(&scope?)?;
                Some(Level::Group(map.clone()))
            };
            let mut callers = vec![
                consumers(both),
                groups(both),
                consumers(of_route),
                consumers(of_service),
                groups(of_route),
                groups(of_service),
            ];
            let whole = all(both);
            if whole.is_none() {
                callers.extend([consumers(global), groups(global)]);
            }
            let slot = Slot {
                callers: callers.into_iter().flatten().collect(),
                other: [whole, all(of_route), all(of_service), all(global)]
                    .into_iter()
                    .find_map(|index| index),
            };
            (slot.other.is_some() || !slot.callers.is_empty()).then_some(slot)
        };
        Chain((0..ALL.len()).filter_map(slot).collect())
    }
}

/// Whether a plugin runs for requests (`false`), for streams (`true`), or both: by its
/// `protocols`. Source: Kong's plugins iterator.
fn subsystems(plugin: &entities::Plugin) -> impl Iterator<Item = bool> {
    let has = |stream: bool| {
        let protocols = plugin.protocols.iter().copied();
        // a plugin that says nothing was made before there were streams
        plugin.protocols.is_empty() && !stream || protocols.map(is_stream).any(|it| it == stream)
    };
    [false, true].into_iter().filter(move |stream| has(*stream))
}

impl Chain {
    /// Slots, in the order they run.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The handler of one slot for what is known of the caller now.
    pub(crate) fn pick(&self, slot: usize, caller: Option<Caller<'_>>) -> Option<Index> {
        let slot = &self.0[slot];
        let Some(caller) = caller else {
            return slot.other;
        };
        let of = |level: &Level| match level {
            Level::Consumer(map) => map.get(&caller.id).copied(),
            Level::Group(map) => caller.groups.iter().find_map(|id| map.get(id).copied()),
        };
        slot.callers.iter().find_map(of).or(slot.other)
    }
}

/// The chains of a configuration. Routes without plugins of their own share the chain of their
/// service.
#[derive(Default)]
pub(crate) struct Chains(AHashMap<(Option<Uuid>, Option<Uuid>, bool), Arc<Chain>>);

/// Makes [`Chains`]: those of the configuration before are taken over if it has the same plugins.
pub(crate) struct ChainsMaker<'a> {
    handlers: &'a Handlers,
    before: Option<&'a Chains>,
    made: Chains,
}

impl Chains {
    /// Starts to make the chains of a configuration.
    pub(crate) fn maker<'a>(handlers: &'a Handlers, before: Option<&'a Chains>) -> ChainsMaker<'a> {
        ChainsMaker {
            handlers,
            before,
            made: Chains::default(),
        }
    }

    /// The plugins of one route, without keeping what had to be made.
    pub(crate) fn find(
        &self,
        handlers: &Handlers,
        route: Uuid,
        service: Option<Uuid>,
    ) -> Arc<Chain> {
        let key = (
            Some(route).filter(|route| handlers.own.contains(route)),
            service,
            false,
        );
        let known = self.0.get(&key).cloned();
        known.unwrap_or_else(|| Arc::new(handlers.chain(key.0, key.1, false)))
    }
}

impl ChainsMaker<'_> {
    /// The plugins of one route; without a route only the global ones.
    pub(crate) fn of(&mut self, route: Option<Uuid>, service: Option<Uuid>) -> Arc<Chain> {
        self.in_subsystem(route, service, false)
    }

    /// The plugins of a route of streams.
    pub(crate) fn of_stream(&mut self, route: Uuid, service: Option<Uuid>) -> Arc<Chain> {
        self.in_subsystem(Some(route), service, true)
    }

    fn in_subsystem(
        &mut self,
        route: Option<Uuid>,
        service: Option<Uuid>,
        stream: bool,
    ) -> Arc<Chain> {
        let own = route.filter(|route| self.handlers.own.contains(route));
        let key = (own, service, stream);
        let before = self.before.and_then(|chains| chains.0.get(&key));
        let make = || {
            before
                .cloned()
                .unwrap_or_else(|| Arc::new(self.handlers.chain(key.0, key.1, key.2)))
        };
        self.made.0.entry(key).or_insert_with(make).clone()
    }

    /// All that were made.
    pub(crate) fn finish(self) -> Chains {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROUTE: Uuid = Uuid::from_u128(1);
    const SERVICE: Uuid = Uuid::from_u128(2);
    const CONSUMER: Uuid = Uuid::from_u128(3);
    const GROUP: Uuid = Uuid::from_u128(4);
    /// Comes after [`GROUP`] by its name.
    const LATER: Uuid = Uuid::from_u128(5);
    const CALLER: Caller<'_> = Caller {
        id: CONSUMER,
        groups: &[GROUP, LATER],
    };

    /// Which of these scopes (letters of r, s, c, g, l for the later group) applies, given all.
    fn pick(scopes: &[&str]) -> Option<String> {
        let plugin = |(n, scope): (usize, &&str)| {
            let id = |letter: char, id: Uuid| scope.contains(letter).then_some(id);
            let config = json!({"minute": n + 1, "limit_by": "ip", "hide_client_headers": false,
                                "error_code": 429, "error_message": ""});
            serde_json::from_value(json!({
                "id": Uuid::from_u128(100 + n as u128), "name": "rate-limiting", "enabled": true,
                "config": config, "route": id('r', ROUTE), "service": id('s', SERVICE),
                "consumer": id('c', CONSUMER),
                "consumer_group": id('g', GROUP).or(id('l', LATER)),
            }))
            .unwrap()
        };
        let plugins: Vec<_> = scopes.iter().enumerate().map(plugin).collect();
        let handlers = Handlers::new(&plugins).unwrap();
        let chain = handlers.chain(Some(ROUTE), Some(SERVICE), false);
        let index = chain.pick(0, Some(CALLER))?;
        Some(scopes[index as usize].to_owned())
    }

    #[test]
    fn the_most_specific_scope_wins_alone() {
        let order = [
            "rsc", "rsg", "rsl", "rc", "sc", "rg", "rl", "sg", "sl", "rs", "c", "g", "l", "r", "s",
            "",
        ];
        for (n, best) in order.iter().enumerate() {
            let mut scopes = order[n..].to_vec();
            assert_eq!(pick(&scopes).as_deref(), Some(*best));
            scopes.reverse();
            assert_eq!(
                pick(&scopes).as_deref(),
                Some(*best),
                "whatever the order they came in"
            );
        }
    }

    #[test]
    fn who_is_in_no_group_gets_no_configuration_of_one() {
        let plugin = |id: u128, group: Option<Uuid>| {
            let config = json!({"minute": 1, "limit_by": "ip", "hide_client_headers": false,
                                "error_code": 429, "error_message": ""});
            serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "rate-limiting",
                "enabled": true, "config": config, "consumer_group": group}))
            .unwrap()
        };
        let handlers = Handlers::new(&[plugin(1, Some(GROUP)), plugin(2, None)]).unwrap();
        let chain = handlers.chain(Some(ROUTE), None, false);
        let of = |groups| Some(Caller { groups, ..CALLER });
        assert_eq!(chain.pick(0, of(&[LATER, GROUP])), Some(0));
        assert_eq!(chain.pick(0, of(&[LATER])), Some(1));
        assert_eq!(chain.pick(0, None), Some(1));
    }

    #[test]
    fn chains_are_shared_and_taken_over() {
        let plugin = |route: Option<Uuid>, id: u128| {
            let config = json!({"minute": 1, "limit_by": "ip", "hide_client_headers": false,
                                "error_code": 429, "error_message": ""});
            serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "rate-limiting",
                "enabled": true, "config": config, "route": route}))
            .unwrap()
        };
        let handlers = Handlers::new(&[plugin(None, 1), plugin(Some(ROUTE), 2)]).unwrap();
        let mut first = Chains::maker(&handlers, None);
        let own = first.of(Some(ROUTE), Some(SERVICE));
        let one = first.of(Some(Uuid::from_u128(7)), Some(SERVICE));
        let two = first.of(Some(Uuid::from_u128(8)), Some(SERVICE));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&own, &one));
        assert_eq!(own.pick(0, None), Some(1));
        assert_eq!(one.pick(0, None), Some(0));
        let first = first.finish();
        let mut next = Chains::maker(&handlers, Some(&first));
        assert!(Arc::ptr_eq(&next.of(Some(ROUTE), Some(SERVICE)), &own));
        assert!(Arc::ptr_eq(
            &next.of(Some(Uuid::from_u128(9)), Some(SERVICE)),
            &one
        ));
        assert_eq!(next.finish().0.len(), 2);
    }

    #[test]
    fn plugins_of_streams_and_of_requests_are_not_mixed() {
        let plugin = |id: u128, protocols: &[&str]| {
            serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "ip-restriction",
                "enabled": true, "config": {"deny": ["10.0.0.1"]}, "protocols": protocols,
                "route": (id > 1).then_some(ROUTE)}))
            .unwrap()
        };
        let plugins = [plugin(1, &["http", "tcp"]), plugin(2, &["tls"])];
        let handlers = Handlers::new(&plugins).unwrap();
        let first = |stream| handlers.chain(Some(ROUTE), None, stream).pick(0, None);
        assert_eq!((first(false), first(true)), (Some(0), Some(1)));
    }

    #[test]
    fn a_scope_of_somebody_else_does_not_apply() {
        let other = json!({"id": Uuid::nil(), "name": "key-auth", "enabled": true,
            "route": Uuid::from_u128(9), "config": {"key_names": ["k"], "hide_credentials": false,
            "anonymous": null, "key_in_header": true, "key_in_query": true,
            "run_on_preflight": true, "realm": null}});
        let handlers = Handlers::new(&[serde_json::from_value(other).unwrap()]).unwrap();
        assert_eq!(handlers.chain(Some(ROUTE), Some(SERVICE), false).len(), 0);
        assert_eq!(handlers.chain(None, None, false).len(), 0);
    }
}
