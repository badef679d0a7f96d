//! Edits of certificates and of the names they are for.

use std::sync::Arc;

use sallyport_model::Kind;
use uuid::Uuid;

use super::{Edits, Tried};
use crate::certificates::{self, Named};
use crate::configuration::{Configuration, Unservable};

impl Configuration {
    pub(super) fn edited_certificates(
        &self,
        edits: &Edits,
    ) -> Tried<(certificates::Identities, Arc<Named>)> {
        let (gone, gone_names) = (edits.gone(Kind::Certificate), edits.gone(Kind::Sni));
        let none = edits.certificates.is_empty() && edits.snis.is_empty();
        if none && gone.is_empty() && gone_names.is_empty() {
            return Some(Ok((self.loaded.clone(), self.named.clone())));
        }
        let ids: Vec<Uuid> = edits.certificates.iter().map(|it| it.id).collect();
        let is_shown = |id: &Uuid| self.links.shown.get(id).is_some();
        if ids.iter().chain(&gone).any(is_shown) {
            return None;
        }
        let read = match certificates::load(&edits.certificates, &self.loaded) {
            Ok(read) => read,
            Err(bad) => {
                let unservable =
                    |(id, reason)| Unservable::new(Kind::Certificate, id, None, reason);
                return Some(Err(bad.into_iter().map(unservable).collect()));
            }
        };
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
        Some(Ok((loaded, Arc::new(named))))
    }
}
