//! The certificates of a configuration, by the server names they are set for.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use sallyport_model::entities::{Certificate, Foreign, Sni};
use sallyport_plugins::ids::Ids;
use sallyport_runtime::tls::identity::IdentityError;
use sallyport_runtime::tls::{Identity, not_after};
use tracing::warn;
use uuid::Uuid;

use super::Keys;

/// The certificates of a configuration, read.
pub(crate) type Identities = Ids<Arc<Loaded>>;

/// One certificate of a configuration.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) source: Certificate,
    pub(crate) first: Identity,
    second: Option<Identity>,
}

/// Reads the certificates of a configuration; what has not changed is taken from `before`.
///
/// # Errors
/// Those that cannot be used, with the field that is to blame.
pub(crate) fn load(
    certificates: &[Certificate],
    before: &Identities,
) -> Result<Identities, Vec<(Uuid, String)>> {
    let (mut loaded, mut bad) = (Identities::default(), Vec::new());
    for certificate in certificates {
        let old = before.get(&certificate.id);
        let old = old.filter(|old| old.source == *certificate).cloned();
        match old.map_or_else(|| Loaded::new(certificate).map(Arc::new), Ok) {
            Ok(new) => loaded.insert(certificate.id, new),
            Err(reason) => bad.push((certificate.id, reason)),
        }
    }
    match bad.is_empty() {
        true => Ok(loaded),
        false => Err(bad),
    }
}

impl Loaded {
    fn new(certificate: &Certificate) -> Result<Loaded, String> {
        let read = |cert: &str, key: &str, names: [&str; 2]| {
            Identity::from_pem(cert, key).map_err(|error| {
                let field = match error {
                    IdentityError::Certificate(_) | IdentityError::Unusable(_) => names[0],
                    IdentityError::Key(_) | IdentityError::Mismatch => names[1],
                };
                format!("{field}: {error}")
            })
        };
        let first = read(&certificate.cert, &certificate.key, ["cert", "key"])?;
        let second = match (&certificate.cert_alt, &certificate.key_alt) {
            (Some(cert), Some(key)) => Some(read(cert, key, ["cert_alt", "key_alt"])?),
            _ => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs() as i64);
        for identity in [Some(&first), second.as_ref()].into_iter().flatten() {
            if not_after(identity.leaf()).is_ok_and(|end| end < now) {
                warn!(certificate = %certificate.id, "the certificate has expired; clients will refuse it");
            }
        }
        Ok(Loaded {
            source: certificate.clone(),
            first,
            second,
        })
    }

    fn keys(&self) -> Keys {
        Keys::new(
            [Some(&self.first), self.second.as_ref()]
                .into_iter()
                .flatten(),
        )
    }
}

/// Certificates by name. A copy shares what does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    exact: Ids<Arc<Keys>, Box<str>>,
    /// `*.example.com` under `example.com`.
    suffixes: Ids<Arc<Keys>, Box<str>>,
    /// `www.example.*` under `www.example`.
    prefixes: Ids<Arc<Keys>, Box<str>>,
    /// `*`.
    any: Option<Arc<Keys>>,
    /// Name and certificate by the id of the name.
    snis: Ids<(Box<str>, Uuid)>,
    /// Ids of the names of each certificate.
    of: Ids<Arc<Vec<Uuid>>>,
}

impl Named {
    /// Those that the names of a configuration refer to; what refers to nothing is left out.
    pub(crate) fn new(snis: &[Sni], identities: &Identities) -> Named {
        let mut keys: AHashMap<Uuid, Arc<Keys>> = AHashMap::new();
        let mut named = Named::default();
        for sni in snis {
            let id = sni.certificate.0;
            let Some(loaded) = identities.get(&id) else {
                continue;
            };
            let keys = keys.entry(id).or_insert_with(|| Arc::new(loaded.keys()));
            named.add(&sni.name, keys.clone());
            named.refers(sni);
        }
        named
    }

    /// These with other certificates and names, whose certificates are read; `None` if a name
    /// is there twice, or for nothing.
    pub(crate) fn edited(
        &self,
        (certificates, snis): (&[Uuid], &[Sni]),
        gone: &[Uuid],
        identities: &Identities,
    ) -> Option<Named> {
        let mut next = self.clone();
        for id in gone.iter().chain(snis.iter().map(|sni| &sni.id)) {
            next.drop_name(*id);
        }
        for sni in snis {
            let loaded = identities.get(&sni.certificate.0)?;
            if next.has(&sni.name) {
                return None;
            }
            next.add(&sni.name, Arc::new(loaded.keys()));
            next.refers(sni);
        }
        for id in certificates {
            let Some(names) = next.of.get(id).cloned().filter(|names| !names.is_empty()) else {
                continue;
            };
            let keys = Arc::new(identities.get(id)?.keys());
            for name in names.iter() {
                let (name, _) = next.snis.get(name)?.clone();
                next.add(&name, keys.clone());
            }
        }
        Some(next)
    }

    fn refers(&mut self, sni: &Sni) {
        let Foreign(certificate) = sni.certificate;
        self.snis
            .insert(sni.id, (sni.name.as_str().into(), certificate));
        let mut names = self.of.remove(&certificate).unwrap_or_default();
        Arc::make_mut(&mut names).push(sni.id);
        self.of.insert(certificate, names);
    }

    fn drop_name(&mut self, id: Uuid) {
        let Some((name, certificate)) = self.snis.remove(&id) else {
            return;
        };
        if let Some(mut names) = self.of.remove(&certificate) {
            Arc::make_mut(&mut names).retain(|own| *own != id);
            if !names.is_empty() {
                self.of.insert(certificate, names);
            }
        }
        let name = usual(&name);
        match (name.strip_prefix("*."), name.strip_suffix(".*")) {
            _ if name == "*" => self.any = None,
            (Some(rest), _) => _ = self.suffixes.remove(rest),
            (_, Some(rest)) => _ = self.prefixes.remove(rest),
            _ => _ = self.exact.remove(&*name),
        }
    }

    fn has(&self, name: &str) -> bool {
        let name = usual(name);
        match (name.strip_prefix("*."), name.strip_suffix(".*")) {
            _ if name == "*" => self.any.is_some(),
            (Some(rest), _) => self.suffixes.get(rest).is_some(),
            (_, Some(rest)) => self.prefixes.get(rest).is_some(),
            _ => self.exact.get(&*name).is_some(),
        }
    }

    fn add(&mut self, name: &str, keys: Arc<Keys>) {
        let name = usual(name);
        match (name.strip_prefix("*."), name.strip_suffix(".*")) {
            _ if name == "*" => self.any = Some(keys),
            (Some(rest), _) => self.suffixes.insert(rest.into(), keys),
            (_, Some(rest)) => self.prefixes.insert(rest.into(), keys),
            _ => self.exact.insert(name.into(), keys),
        }
    }

    /// The ids of the names that stand for this certificate.
    pub(crate) fn names_of(&self, certificate: Uuid) -> &[Uuid] {
        let names = self.of.get(&certificate);
        names.map_or(&[], |names| names.as_slice())
    }

    /// The certificates for a name that a client asks for, in lower case. A wildcard stands for
    /// one label; one at the front wants a name of three. Source: data-plane reference 8.2.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Keys> {
        let by_name = |name: &str| {
            if let Some(keys) = self.exact.get(name) {
                return Some(keys);
            }
            let (_, parent) = name.split_once('.')?;
            if parent.contains('.')
                && let Some(keys) = self.suffixes.get(parent)
            {
                return Some(keys);
            }
            let (most, _) = name.rsplit_once('.')?;
            self.prefixes.get(most)
        };
        let found = name.and_then(by_name).or(self.any.as_ref());
        found.map(|keys| &**keys)
    }
}

/// A name as it is looked up.
fn usual(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_names() {
        let mut named = Named::default();
        let names = [
            "a.b.example.com",
            "*.b.example.com",
            "*.com",
            "b.example.*",
            "*",
        ];
        for (n, name) in names.iter().enumerate() {
            // told apart by their number
            let keys = Keys(vec![key(); n]);
            named.add(name, Arc::new(keys));
        }
        for (asked, expected) in [
            ("a.b.example.com", 0),
            ("c.b.example.com", 1),
            ("d.c.b.example.com", 4),
            ("b.example.org", 3),
            ("b.example.co.uk", 4),
            // two labels are too few for a wildcard at the front
            ("example.com", 4),
            ("localhost", 4),
            ("", 4),
        ] {
            let found = named.find(Some(asked)).unwrap();
            assert_eq!(found.0.len(), expected, "{asked}");
        }
        assert_eq!(named.find(None).unwrap().0.len(), 4);
        named.any = None;
        assert!(named.find(None).is_none() && named.find(Some("localhost")).is_none());
        named.add("Upper.Example.", Arc::new(Keys(vec![key(); 7])));
        assert_eq!(named.find(Some("upper.example")).unwrap().0.len(), 7);
    }

    fn key() -> Arc<rustls::sign::CertifiedKey> {
        static KEY: std::sync::LazyLock<Identity> = std::sync::LazyLock::new(|| {
            let pair = sallyport_runtime::certs::self_signed_localhost(1).unwrap();
            Identity::from_pem(&pair.cert, &pair.key).unwrap()
        });
        KEY.certified_key()
    }

    #[test]
    fn what_cannot_be_used_is_named_and_what_is_the_same_is_kept() {
        let pair = |n: u128| {
            let pair = sallyport_runtime::certs::self_signed_localhost(1).unwrap();
            Certificate {
                id: Uuid::from_u128(n),
                cert: pair.cert,
                key: pair.key,
                cert_alt: None,
                key_alt: None,
            }
        };
        let (one, mut two) = (pair(1), pair(2));
        two.cert_alt = Some(one.cert.clone());
        two.key_alt = Some(two.key.clone());
        let bad = load(&[one.clone(), two.clone()], &Identities::default()).unwrap_err();
        let expected = "key_alt: the private key does not belong to the certificate";
        assert_eq!(bad, [(two.id, expected.to_owned())]);
        let first = load(std::slice::from_ref(&one), &Identities::default()).unwrap();
        two.key_alt = Some(one.key.clone());
        let second = load(&[one.clone(), two], &first).unwrap();
        let of_one = |all: &Identities| all.get(&one.id).unwrap().clone();
        assert!(Arc::ptr_eq(&of_one(&first), &of_one(&second)));
        let sni = |name: &str, id| Sni {
            id,
            name: name.to_owned(),
            certificate: Foreign(id),
        };
        let named = Named::new(&[sni("a", one.id), sni("b", Uuid::nil())], &second);
        assert!(named.find(Some("a")).is_some() && named.find(Some("b")).is_none());

        // names come, move and go without a look at the others
        let put = |id: u128, name: &str, certificate| Sni {
            id: Uuid::from_u128(id),
            ..sni(name, certificate)
        };
        let edited =
            |named: &Named, snis: &[Sni], gone: &[Uuid]| named.edited((&[], snis), gone, &second);
        let two = Uuid::from_u128(2);
        let more = edited(&named, &[put(8, "*.x.y", two)], &[]).unwrap();
        assert!(more.find(Some("a.x.y")).is_some() && named.find(Some("a.x.y")).is_none());
        let moved = edited(&more, &[put(8, "*", two)], &[one.id]).unwrap();
        assert!(moved.any.is_some() && moved.exact.is_empty() && moved.suffixes.is_empty());
        assert!(edited(&more, &[put(9, "A.", two)], &[]).is_none(), "twice");
        assert!(edited(&more, &[put(9, "c", Uuid::nil())], &[]).is_none());
        let keys = |named: &Named| Arc::as_ptr(named.exact.get("a").unwrap());
        let renewed = more.edited((&[one.id], &[]), &[], &second).unwrap();
        assert_ne!(keys(&renewed), keys(&more));
        assert!(renewed.names_of(one.id).len() == 1 && moved.names_of(one.id).is_empty());
    }
}
