//! How upstreams are spoken to over TLS: whom to believe, and what to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use rustls::{ClientConfig, RootCertStore};
use sallyport_runtime::tls::{
    self, CertDigest, Identity, ServerTrust, client_config, client_config_within, trust_store,
};
use uuid::Uuid;

/// TLS towards the upstreams of some services. Connections made by different ones are not shared.
#[derive(Debug)]
pub(crate) struct UpstreamTls {
    /// Different for each that this process makes.
    pub(crate) id: u64,
    /// For HTTP/1.1, which is said in the handshake.
    pub(crate) http: Arc<ClientConfig>,
    /// The same for HTTP/2.
    pub(crate) http2: Arc<ClientConfig>,
    /// For bytes of which nobody knows what they are.
    pub(crate) bytes: Arc<ClientConfig>,
}

/// What settings say where a service says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsDefaults {
    /// `lua_ssl_trusted_certificate`.
    pub(crate) roots: Option<Arc<RootCertStore>>,
    /// `client_ssl_cert`, if `client_ssl` is on.
    pub(crate) identity: Option<Identity>,
    /// Whether certificates are verified unless a service says otherwise.
    pub(crate) verify: bool,
    /// The longest chain, where a service says nothing.
    pub(crate) depth: Option<u8>,
}

/// What one service wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) verify: Option<bool>,
    pub(crate) depth: Option<u8>,
    /// Authorities to believe in place of the default; those that are not there are believed by
    /// nobody.
    pub(crate) authorities: Vec<Uuid>,
}

/// What makes two of them the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    verify: bool,
    depth: Option<u8>,
    /// PEM texts; `None` for the default.
    authorities: Option<Vec<String>>,
    /// Digests of the chain, leaf first.
    identity: Option<Vec<CertDigest>>,
}

/// Makes those of a configuration; what has not changed is taken from the one before.
pub(crate) struct UpstreamTlsMaker<'a> {
    defaults: &'a TlsDefaults,
    before: &'a Made,
    made: Made,
}

/// Those of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made(AHashMap<Content, Arc<UpstreamTls>>);

impl Made {
    /// What one of these was made of.
    #[cfg(test)]
    pub(crate) fn content(&self, id: u64) -> String {
        let mut all = self.0.iter();
        let found = all.find(|(_, made)| made.id == id);
        format!("{:?}", found.map(|(content, _)| content))
    }
}

impl<'a> UpstreamTlsMaker<'a> {
    pub(crate) fn new(defaults: &'a TlsDefaults, before: &'a Made) -> UpstreamTlsMaker<'a> {
        UpstreamTlsMaker {
            defaults,
            before,
            made: Made::default(),
        }
    }

    /// TLS as a service wants it. `authorities` are the texts of those of the configuration.
    ///
    /// # Errors
    /// A text that says what cannot be used.
    pub(crate) fn of(
        &mut self,
        wanted: &Wanted,
        identity: Option<&Identity>,
        authorities: &AHashMap<Uuid, &str>,
    ) -> Result<Arc<UpstreamTls>, String> {
        let verify = wanted.verify.unwrap_or(self.defaults.verify);
        let identity = identity.or(self.defaults.identity.as_ref());
        let own = (!wanted.authorities.is_empty()).then(|| {
            let all = wanted.authorities.iter();
            all.filter_map(|id| authorities.get(id).map(|text| (*text).to_owned()))
                .collect()
        });
        let content = Content {
            verify,
            depth: wanted.depth.or(self.defaults.depth).filter(|_| verify),
            authorities: own.filter(|_| verify),
            identity: identity.map(|it| it.chain().iter().map(tls::leaf_digest).collect()),
        };
        let known = self.made.0.get(&content).or(self.before.0.get(&content));
        if let Some(known) = known.cloned() {
            self.made.0.insert(content, known.clone());
            return Ok(known);
        }
        let made = Arc::new(make(&content, identity, self.defaults)?);
        self.made.0.insert(content, made.clone());
        Ok(made)
    }

    /// All that were made.
    pub(crate) fn finish(self) -> Made {
        self.made
    }

    /// All that were made, and those before.
    pub(crate) fn finish_with_before(self) -> Made {
        match self.made.0.keys().all(|it| self.before.0.contains_key(it)) {
            true => self.before.clone(),
            false => {
                let mut all = self.before.clone();
                all.0.extend(self.made.0);
                all
            }
        }
    }
}

fn make(
    content: &Content,
    identity: Option<&Identity>,
    defaults: &TlsDefaults,
) -> Result<UpstreamTls, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let roots = match &content.authorities {
        Some(texts) => {
            let read = trust_store(texts).map_err(|error| format!("ca_certificates: {error}"))?;
            Arc::new(read)
        }
        None => defaults
            .roots
            .clone()
            .unwrap_or_else(|| Arc::new(RootCertStore::empty())),
    };
    let made = match (content.verify, content.depth) {
        (false, _) => client_config(ServerTrust::Anybody, identity),
        (true, None) => client_config(ServerTrust::Roots(roots), identity),
        (true, Some(depth)) => client_config_within(roots, depth, identity),
    };
    let bytes = made.map_err(|error| format!("client_certificate: {error}"))?;
    let saying = |protocol: &[u8]| {
        let mut config = bytes.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok(UpstreamTls {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        http: saying(b"http/1.1"),
        http2: saying(b"h2"),
        bytes: Arc::new(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_runtime::certs::{LocalCa, self_signed_localhost};

    #[test]
    fn equal_wishes_share_and_outlive_configurations() {
        let pair = self_signed_localhost(1).unwrap();
        let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
        let ca = LocalCa::create("test", 1).unwrap();
        let id = Uuid::from_u128(1);
        let texts = AHashMap::from([(id, ca.pem().cert.as_str())]);
        let plain = Wanted {
            verify: None,
            depth: None,
            authorities: Vec::new(),
        };
        let trusts = Wanted {
            verify: Some(true),
            depth: Some(1),
            authorities: vec![id],
        };
        let defaults = TlsDefaults::default();
        let none = Made::default();
        let mut first = UpstreamTlsMaker::new(&defaults, &none);
        let one = first.of(&plain, None, &texts).unwrap();
        let same = first.of(&plain, None, &texts).unwrap();
        let shown = first.of(&plain, Some(&identity), &texts).unwrap();
        let trusted = first.of(&trusts, Some(&identity), &texts).unwrap();
        assert!(Arc::ptr_eq(&one, &same));
        assert!(one.id != shown.id && shown.id != trusted.id);
        let first = first.finish();
        let mut next = UpstreamTlsMaker::new(&defaults, &first);
        let again = next.of(&trusts, Some(&identity), &texts).unwrap();
        assert!(Arc::ptr_eq(&again, &trusted));
        // an authority that is gone is believed no longer
        let gone = next.of(&trusts, Some(&identity), &AHashMap::new()).unwrap();
        assert_ne!(gone.id, trusted.id);
    }
}
