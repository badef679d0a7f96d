//! Edits of plugins, and of consumers and what belongs to them.

use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{Foreign, Plugin};
use sallyport_plugins::Identities;

use super::Edits;
use crate::chain::{Handlers, Touched};
use crate::configuration::Configuration;
use crate::entities::unix_secs;

impl Configuration {
    pub(super) fn edited_identities(&self, edits: &Edits) -> Option<Arc<Identities>> {
        if edits.identities.is_empty() {
            return Some(self.identities.clone());
        }
        let edited = self.identities.edited(&edits.identities, unix_secs())?;
        Some(Arc::new(edited))
    }

    pub(super) fn edited_handlers(
        &self,
        edits: &Edits,
        identities: &Identities,
    ) -> Option<(Arc<Handlers>, Touched)> {
        let gone = edits.gone(Kind::Plugin);
        if edits.plugins.is_empty() && gone.is_empty() {
            return Some((self.handlers.clone(), Touched::default()));
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
        // one that cannot be used is refused with a look at the whole
        let (handlers, touched) = self.handlers.edited(&edits.plugins, &gone)?.ok()?;
        // then other entities are kept
        let same = handlers.read_entities() == self.handlers.read_entities() || self.keeps_all;
        same.then_some((Arc::new(handlers), touched))
    }
}
