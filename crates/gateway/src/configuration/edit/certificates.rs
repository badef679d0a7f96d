//! Edits of certificates, of the names they are for, and of CA certificates.

use std::sync::Arc;

use sallyport_model::Kind;
use uuid::Uuid;

use super::{Edits, Tried};
use crate::certificates::{self, Named};
use crate::configuration::services::Authorities;
use crate::configuration::{Configuration, Unservable};
use crate::vaults::NamedVaults;

/// The certificates of the next configuration.
pub(super) struct ChangedCertificates {
    pub(super) loaded: certificates::Identities,
    pub(super) named: Arc<Named>,
    pub(super) authorities: Authorities,
    /// Whether something among the edits is in a vault.
    pub(super) have_references: bool,
}

impl Configuration {
    pub(super) fn edited_certificates(
        &self,
        edits: &Edits,
        vaults: &NamedVaults,
    ) -> Tried<ChangedCertificates> {
        let (gone, gone_names) = (edits.gone(Kind::Certificate), edits.gone(Kind::Sni));
        let mut changed = ChangedCertificates {
            loaded: self.loaded.clone(),
            named: self.named.clone(),
            authorities: self.edited_authorities(edits)?,
            have_references: false,
        };
        let none = edits.certificates.is_empty() && edits.snis.is_empty();
        if none && gone.is_empty() && gone_names.is_empty() {
            return Some(Ok(changed));
        }
        let ids: Vec<Uuid> = edits.certificates.iter().map(|it| it.id).collect();
        let (services, upstreams) = (edits.services(), edits.upstreams());
        // what shows it has to be made with it
        let is_edited = |(kind, id): &(Kind, Uuid)| match kind {
            Kind::Service => services.contains(id),
            _ => upstreams.contains(id),
        };
        let mut touched = ids.iter().chain(&gone);
        if !touched.all(|id| self.showing(*id).iter().all(is_edited)) {
            return None;
        }
        let resolver = self.vaults.of(vaults);
        let read = resolver
            .certificates(&edits.certificates)
            .and_then(|resolved| {
                changed.have_references = resolved.is_some();
                let certificates = resolved.as_ref().unwrap_or(&edits.certificates);
                certificates::load(certificates, &self.loaded)
            });
        let read = match read {
            Ok(read) => read,
            Err(bad) => {
                let unservable =
                    |(id, reason)| Unservable::new(Kind::Certificate, id, None, reason);
                return Some(Err(bad.into_iter().map(unservable).collect()));
            }
        };
        for id in &gone {
            changed.loaded.remove(id);
        }
        for (id, certificate) in read.iter() {
            changed.loaded.insert(*id, certificate.clone());
        }
        let named = (self.named).edited((&ids, &edits.snis), &gone_names, &changed.loaded)?;
        if gone.iter().any(|id| !named.names_of(*id).is_empty()) {
            return None;
        }
        changed.named = Arc::new(named);
        Some(Ok(changed))
    }

    fn edited_authorities(&self, edits: &Edits) -> Option<Authorities> {
        let gone = edits.gone(Kind::CaCertificate);
        let mut all = self.authorities.clone();
        if edits.authorities.is_empty() && gone.is_empty() {
            return Some(all);
        }
        let put = edits.authorities.iter().map(|it| it.id);
        let services = edits.services();
        // who believes it has to be made with it
        let is_edited = |id: Uuid| self.trusting(id).iter().all(|it| services.contains(it));
        if !put.chain(gone.iter().copied()).all(is_edited) {
            return None;
        }
        for id in &gone {
            all.remove(id);
        }
        for authority in &edits.authorities {
            all.insert(authority.id, authority.cert.as_str().into());
        }
        Some(all)
    }
}
