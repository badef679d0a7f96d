//! Edits of plugins, and of consumers and what belongs to them.

use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{Foreign, Plugin};
use sallyport_plugins::Identities;
use uuid::Uuid;

use super::{Edits, Tried};
use crate::chain::{Handlers, Touched};
use crate::configuration::{Configuration, Unservable};
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
    ) -> Tried<(Arc<Handlers>, Touched)> {
        let gone = edits.gone(Kind::Plugin);
        let none = edits.plugins.is_empty() && gone.is_empty();
        if none && edits.closed.is_empty() && edits.opened.is_empty() {
            return Some(Ok((self.handlers.clone(), Touched::default())));
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
        let scopes = (&edits.closed[..], &edits.opened[..]);
        let edited = self.handlers.edited(&edits.plugins, &gone, scopes)?;
        let (handlers, touched) = match edited {
            Ok(edited) => edited,
            Err(bad) => {
                let unservable = |(id, name, reason): (Uuid, String, String)| {
                    Unservable::new(Kind::Plugin, id, Some(&name), reason)
                };
                return Some(Err(bad.into_iter().map(unservable).collect()));
            }
        };
        // then other entities are kept
        let same = handlers.read_entities() == self.handlers.read_entities() || self.keeps_all;
        same.then(|| Ok((Arc::new(handlers), touched)))
    }
}
