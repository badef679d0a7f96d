//! Edits of certificates and of the names they are for.

use std::sync::Arc;

use sallyport_model::Kind;
use uuid::Uuid;

use super::Edits;
use crate::certificates::{self, Named};
use crate::configuration::Configuration;

impl Configuration {
    pub(super) fn edited_certificates(
        &self,
        edits: &Edits,
    ) -> Option<(certificates::Identities, Arc<Named>)> {
        let (gone, gone_names) = (edits.gone(Kind::Certificate), edits.gone(Kind::Sni));
        let none = edits.certificates.is_empty() && edits.snis.is_empty();
        if none && gone.is_empty() && gone_names.is_empty() {
            return Some((self.loaded.clone(), self.named.clone()));
        }
        let ids: Vec<Uuid> = edits.certificates.iter().map(|it| it.id).collect();
        let is_shown = |id: &Uuid| self.links.shown.get(id).is_some();
        if ids.iter().chain(&gone).any(is_shown) {
            return None;
        }
        let read = certificates::load(&edits.certificates, &self.loaded).ok()?;
        let mut loaded = self.loaded.clone();
        for id in &gone {
            loaded.remove(id);
        }
        for (id, certificate) in read.iter() {
            loaded.insert(*id, certificate.clone());
        }
        let named = self
            .named
            .edited((&ids, &edits.snis), &gone_names, &loaded)?;
        if gone.iter().any(|id| named.uses(*id)) {
            return None;
        }
        Some((loaded, Arc::new(named)))
    }
}
