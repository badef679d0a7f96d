//! Vaults that are entities of a configuration, and who has references through them.

use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{Certificate, Plugin, Vault};
use sallyport_model::schema::VAULTS;
use sallyport_plugins::ids::Ids;
use serde_json::Value;
use uuid::Uuid;

use super::inner;

/// What has references: a plugin or a certificate.
type Key = (Kind, Uuid);

/// The vaults of a configuration, by what references call them, and the plugins and certificates
/// that refer to them. A copy shares what does not change.
#[derive(Clone, Default)]
pub(crate) struct NamedVaults {
    all: Ids<Arc<Vault>>,
    by_prefix: Ids<Arc<Vault>, Box<str>>,
    /// Who refers to a prefix, whether there is a vault with it or not.
    referring: Ids<Ids<(), Key>, Box<str>>,
    /// The prefixes that each of them refers to.
    through: Ids<Arc<[Box<str>]>, Key>,
}

impl NamedVaults {
    /// Those of a configuration.
    pub(crate) fn new(vaults: &[Vault]) -> NamedVaults {
        let mut named = NamedVaults::default();
        vaults.iter().for_each(|vault| named.put(vault));
        named
    }

    /// A vault that is new, or other than before.
    pub(crate) fn put(&mut self, vault: &Vault) {
        self.remove(vault.id);
        let vault = Arc::new(vault.clone());
        self.all.insert(vault.id, vault.clone());
        self.by_prefix.insert(vault.prefix.as_str().into(), vault);
    }

    /// A vault that is gone.
    pub(crate) fn remove(&mut self, id: Uuid) {
        let Some(before) = self.all.remove(&id) else {
            return;
        };
        let prefix = before.prefix.as_str();
        // another may have taken its name
        if self.by_prefix.get(prefix).is_some_and(|it| it.id == id) {
            self.by_prefix.remove(prefix);
        }
    }

    /// A vault by its id.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Vault> {
        self.all.get(&id).map(|it| &**it)
    }

    /// The vault that references call by a prefix.
    pub(crate) fn called(&self, prefix: &str) -> Option<&Vault> {
        self.by_prefix.get(prefix).map(|it| &**it)
    }

    /// What references call them, in order.
    pub(super) fn prefixes(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.by_prefix.iter().map(|(prefix, _)| &**prefix).collect();
        all.sort_unstable();
        all
    }

    /// Who has references through a prefix.
    pub(crate) fn referring(&self, prefix: &str) -> impl Iterator<Item = Key> {
        let keys = self.referring.get(prefix).into_iter();
        keys.flat_map(|keys| keys.iter().map(|(key, ())| *key))
    }

    /// A plugin with its references, in the place of what it had.
    pub(crate) fn note_plugin(&mut self, plugin: &Plugin) {
        let mut prefixes = Vec::new();
        collect(&plugin.config, &mut prefixes);
        self.note((Kind::Plugin, plugin.id), prefixes);
    }

    /// A certificate with its references, in the place of what it had.
    pub(crate) fn note_certificate(&mut self, certificate: &Certificate) {
        let alt = [&certificate.cert_alt, &certificate.key_alt];
        let texts = [&certificate.cert, &certificate.key].into_iter();
        let texts = texts.chain(alt.into_iter().flatten());
        let prefixes = texts.filter_map(|text| prefix_of(text)).collect();
        self.note((Kind::Certificate, certificate.id), prefixes);
    }

    /// A plugin or a certificate that is gone.
    pub(crate) fn forget(&mut self, key: Key) {
        let Some(before) = self.through.remove(&key) else {
            return;
        };
        for prefix in before.iter() {
            // out of the map while it changes, so that it is not copied
            if let Some(mut keys) = self.referring.remove(prefix) {
                keys.remove(&key);
                if !keys.is_empty() {
                    self.referring.insert(prefix.clone(), keys);
                }
            }
        }
    }

    fn note(&mut self, key: Key, mut prefixes: Vec<&str>) {
        self.forget(key);
        prefixes.sort_unstable();
        prefixes.dedup();
        if prefixes.is_empty() {
            return;
        }
        for prefix in &prefixes {
            let mut keys = self.referring.remove(*prefix).unwrap_or_default();
            keys.insert(key, ());
            self.referring.insert((*prefix).into(), keys);
        }
        let prefixes = prefixes.into_iter().map(Box::from).collect();
        self.through.insert(key, prefixes);
    }
}

/// The prefix of the vault that a reference is through; none if it is no reference, or one to
/// what each gateway has, which no entity changes.
fn prefix_of(text: &str) -> Option<&str> {
    let (prefix, _) = inner(text)?.split_once('/')?;
    (!VAULTS.contains(&prefix)).then_some(prefix)
}

fn collect<'a>(value: &'a Value, prefixes: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => prefixes.extend(prefix_of(text)),
        Value::Array(list) => list.iter().for_each(|it| collect(it, prefixes)),
        Value::Object(map) => map.values().for_each(|it| collect(it, prefixes)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn vault(n: u128, prefix: &str) -> Vault {
        serde_json::from_value(json!({"id": id(n), "prefix": prefix, "name": "env"})).unwrap()
    }

    fn plugin(n: u128, config: Value) -> Plugin {
        let plugin = json!({"id": id(n), "name": "session", "enabled": true, "config": config});
        serde_json::from_value(plugin).unwrap()
    }

    #[test]
    fn who_refers_to_what_is_known_by_prefix() {
        let mut named = NamedVaults::default();
        let config = json!({"secret": "{vault://one/a}", "headers": {"x": "{vault://two/b}"},
            "list": ["{vault://one/c}", "{vault://env/d}", "vault://three/e", 7]});
        named.note_plugin(&plugin(1, config));
        let certificate = json!({"id": id(2), "cert": "{vault://two/cert#1}",
            "key": "{vault://two/key?prefix=x}"});
        named.note_certificate(&serde_json::from_value(certificate).unwrap());
        let referring = |named: &NamedVaults, prefix: &str| {
            let mut keys: Vec<_> = named.referring(prefix).map(|key| key.1.as_u128()).collect();
            keys.sort_unstable();
            keys
        };
        let of =
            |named: &NamedVaults| ["one", "two", "env", "three"].map(|it| referring(named, it));
        let none = Vec::<u128>::new;
        assert_eq!(of(&named), [vec![1], vec![1, 2], none(), none()]);
        let before = named.clone();
        named.note_plugin(&plugin(1, json!({"secret": "{vault://three/a}"})));
        assert_eq!(of(&named), [none(), vec![2], none(), vec![1]]);
        named.forget((Kind::Plugin, id(1)));
        named.forget((Kind::Certificate, id(2)));
        assert_eq!(of(&named), [none(), none(), none(), none()]);
        assert!(named.referring.is_empty() && named.through.is_empty());
        assert_eq!(of(&before), [vec![1], vec![1, 2], none(), none()]);
    }

    #[test]
    fn two_that_exchange_their_prefixes_keep_them() {
        let mut named = NamedVaults::new(&[vault(1, "one"), vault(2, "two")]);
        named.put(&vault(1, "two"));
        named.put(&vault(2, "one"));
        let called = |named: &NamedVaults, prefix: &str| named.called(prefix).map(|it| it.id);
        assert_eq!(called(&named, "one"), Some(id(2)));
        assert_eq!(called(&named, "two"), Some(id(1)));
        assert_eq!(named.prefixes(), ["one", "two"]);
        named.remove(id(2));
        assert_eq!(called(&named, "one"), None);
    }
}
