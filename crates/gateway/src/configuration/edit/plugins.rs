//! Edits of plugins, and of consumers and what belongs to them.

use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{Foreign, Plugin};
use sallyport_plugins::Identities;
use uuid::Uuid;

use super::{Edits, Tried};
use crate::chain::{Handlers, Touched};
use crate::configuration::{Configuration, LOGGED, Unservable};
use crate::entities::unix_secs;
use crate::vaults::NamedVaults;

/// The plugins of the next configuration.
pub(super) struct ChangedPlugins {
    pub(super) handlers: Arc<Handlers>,
    pub(super) touched: Touched,
    /// Whether something among the edits is in a vault.
    pub(super) have_references: bool,
}

impl Configuration {
    pub(super) fn edited_identities(&self, edits: &Edits) -> Option<Arc<Identities>> {
        if edits.identities.is_empty() {
            return Some(self.identities.clone());
        }
        let edited = self.identities.edited(&edits.identities, unix_secs())?;
        Some(Arc::new(edited))
    }

    pub(super) fn edited_plugins(
        &self,
        edits: &Edits,
        (identities, vaults): (&Identities, &NamedVaults),
    ) -> Tried<ChangedPlugins> {
        let gone = edits.gone(Kind::Plugin);
        let none = edits.plugins.is_empty() && gone.is_empty();
        if none && edits.closed.is_empty() && edits.opened.is_empty() {
            return Some(Ok(ChangedPlugins {
                handlers: self.handlers.clone(),
                touched: Touched::default(),
                have_references: false,
            }));
        }
        let is_there = |plugin: &Plugin| {
            let consumer = |it: Foreign| identities.consumer_by_id(it.0).is_some();
            plugin.consumer.is_none_or(consumer)
                && plugin
                    .consumer_group
                    .is_none_or(|it| identities.has_group(it.0))
        };
        if !edits.plugins.iter().all(is_there) {
            return None;
        }
        let unservable = |(id, name, reason): (Uuid, String, String)| {
            Unservable::new(Kind::Plugin, id, Some(&name), reason)
        };
        let all = |bad: Vec<_>| Some(Err(bad.into_iter().map(unservable).collect()));
        let resolver = self.vaults.of(vaults);
        let resolved = match resolver.plugins(&edits.plugins) {
            Ok(resolved) => resolved,
            Err(bad) => return all(bad),
        };
        let scopes = (&edits.closed[..], &edits.opened[..]);
        let edited = self.handlers.edited(&resolved.plugins, &gone, scopes)?;
        let (handlers, touched) = match edited {
            Ok(edited) => edited,
            Err(bad) => {
                let hidden = |(id, name, reason)| (id, name, resolved.hide(reason));
                return all(bad.into_iter().map(hidden).collect());
            }
        };
        // what the first of them tells has to be kept; it stays when the last is gone, so that
        // one that comes and goes does not cost that each time
        let are_kept = LOGGED.iter().all(|kind| self.entities.keeps(*kind));
        (are_kept || !handlers.read_entities()).then(|| {
            Ok(ChangedPlugins {
                handlers: Arc::new(handlers),
                touched,
                have_references: resolved.has_references(),
            })
        })
    }
}
