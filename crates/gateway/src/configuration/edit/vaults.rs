//! Edits of vaults, and of who has references through them.

use ahash::AHashSet;
use sallyport_model::Kind;
use sallyport_model::config_table::flat;
use sallyport_model::entities::Vault;
use serde_json::Value;
use uuid::Uuid;

use super::Edits;
use crate::configuration::Configuration;
use crate::vaults::NamedVaults;

impl Configuration {
    /// What has references through a vault as it was, or as it is `now`: an entity that passed
    /// the schema, or none. Nothing if references stand for the same as before.
    pub(crate) fn referring_through(&self, id: Uuid, now: Option<&Value>) -> Vec<(Kind, Uuid)> {
        let now = now.map(|entity| flat(Kind::Vault, entity.clone()));
        let now: Option<Vault> = now.and_then(|it| serde_json::from_value(it).ok());
        self.referring(id, now.as_ref())
    }

    fn referring(&self, id: Uuid, now: Option<&Vault>) -> Vec<(Kind, Uuid)> {
        let before = self.named_vaults.get(id);
        if before == now {
            return Vec::new();
        }
        let mut prefixes: Vec<&str> = [before, now]
            .into_iter()
            .flatten()
            .map(|it| &*it.prefix)
            .collect();
        prefixes.dedup();
        let keys = prefixes.into_iter();
        keys.flat_map(|prefix| self.named_vaults.referring(prefix))
            .collect()
    }

    /// The vaults of the next configuration; `None` if two have one prefix, or if what refers to
    /// one that is other than before is not among the edits.
    pub(super) fn edited_vaults(&self, edits: &Edits) -> Option<NamedVaults> {
        let mut next = self.named_vaults.clone();
        let gone = edits.gone(Kind::Vault);
        if !(edits.vaults.is_empty() && gone.is_empty()) {
            let plugins = edits.plugins.iter().map(|it| (Kind::Plugin, it.id));
            let certificates = edits.certificates.iter();
            let certificates = certificates.map(|it| (Kind::Certificate, it.id));
            let gone_too = edits.gone.iter().copied();
            let edited: AHashSet<_> = plugins.chain(certificates).chain(gone_too).collect();
            let vaults = edits.vaults.iter().map(|it| (it.id, Some(it)));
            let mut all = vaults.chain(gone.iter().map(|id| (*id, None)));
            let are_edited = |keys: Vec<_>| keys.iter().all(|key| edited.contains(key));
            if !all.all(|(id, now)| are_edited(self.referring(id, now))) {
                return None;
            }
        }
        for id in gone.iter().chain(edits.vaults.iter().map(|it| &it.id)) {
            next.remove(*id);
        }
        for vault in &edits.vaults {
            if next.called(&vault.prefix).is_some() {
                return None;
            }
            next.put(vault);
        }
        for (kind, id) in &edits.gone {
            next.forget((*kind, *id));
        }
        edits.plugins.iter().for_each(|it| next.note_plugin(it));
        edits
            .certificates
            .iter()
            .for_each(|it| next.note_certificate(it));
        Some(next)
    }
}
