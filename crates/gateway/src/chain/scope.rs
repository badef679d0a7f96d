//! Where a plugin applies.

use sallyport_model::entities::{self, Foreign, Protocol};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::router::is_stream;

/// Whom a plugin is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Consumer(Uuid),
    Group(Uuid),
}

/// The part of a scope that is known once a route matched.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// Its place, of [`Places`].
    pub(super) plugin: usize,
    pub(super) route: Option<Uuid>,
    pub(super) service: Option<Uuid>,
    /// Whether it is for streams, not for requests.
    pub(super) stream: bool,
}

pub(super) fn who(consumer: Option<Uuid>, group: Option<Uuid>) -> Option<Who> {
    consumer.map(Who::Consumer).or(group.map(Who::Group))
}

pub(super) fn caller_of(plugin: &entities::Plugin) -> Option<Who> {
    let id = |foreign: Option<Foreign>| foreign.map(|Foreign(id)| id);
    who(id(plugin.consumer), id(plugin.consumer_group))
}

/// The scopes of a plugin with this place: for requests, for streams, or both.
pub(super) fn scopes(plugin: &entities::Plugin, at: usize) -> Vec<Scope> {
    let scope = |stream| Scope {
        plugin: at,
        route: plugin.route.map(|Foreign(id)| id),
        service: plugin.service.map(|Foreign(id)| id),
        stream,
    };
    subsystems(&plugin.protocols, false).map(scope).collect()
}

/// What tells a plugin's configuration from another.
pub(super) fn content(plugin: &entities::Plugin) -> [u8; 16] {
    let config = serde_json::to_vec(&plugin.config).expect("a JSON value can be written");
    let mut hash = Sha256::new_with_prefix(plugin.name.as_bytes());
    hash.update([0]);
    hash.update(config);
    let whole: [u8; 32] = hash.finalize().into();
    *whole.first_chunk().expect("32 bytes have 16")
}

/// Whether a plugin with these protocols runs for requests (`false`), for streams (`true`), or
/// both. Source: Kong's plugins iterator.
pub(super) fn subsystems(protocols: &[Protocol], all_if_none: bool) -> impl Iterator<Item = bool> {
    let has = move |stream: bool| {
        let mut protocols = protocols.iter().copied();
        // a plugin that says nothing was made before there were streams
        let unsaid = all_if_none || !stream;
        protocols.len() == 0 && unsaid || protocols.any(|protocol| is_stream(protocol) == stream)
    };
    [false, true].into_iter().filter(move |stream| has(*stream))
}
