//! How nodes prove themselves to each other.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sallyport_runtime::tls::client::{ClientConfigError, TrustError};
use sallyport_runtime::tls::{
    ClientAuth, ServerTrust, client_config, identity, key_digest, server_config, trust_store,
};
use sallyport_store::{Member, Roster, Wanted};
use sallyport_wire::node_control::{COMMANDS, GOSSIP, JOIN};

use crate::node::Identity;
use crate::rate_limit;

/// Why a node's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Certificate and key.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The cluster's authority.
    #[error("the cluster's authority: {0}")]
    Authority(#[from] TrustError),
    /// The configuration of a listener.
    #[error(transparent)]
    Server(#[from] rustls::Error),
    /// The configuration of a connection.
    #[error(transparent)]
    Client(#[from] ClientConfigError),
}

/// The configurations of a node's connections.
#[derive(Clone)]
pub(crate) struct Tls {
    /// For machines that want to join: they have no certificate yet.
    pub(crate) joining: Arc<ServerConfig>,
    /// For nodes.
    pub(crate) nodes: Arc<ServerConfig>,
    pub(crate) gossip: Arc<ClientConfig>,
    pub(crate) commands: Arc<ClientConfig>,
    /// Both ends between rate limiters, on their own port.
    pub(crate) limits: (Arc<ServerConfig>, Arc<ClientConfig>),
}

impl Tls {
    pub(crate) fn of(node: &Identity) -> Result<Tls, TlsError> {
        let identity = node.tls()?;
        let roots: Arc<RootCertStore> = Arc::new(trust_store(&[&node.authority])?);
        let client = |alpn: &[u8]| -> Result<Arc<ClientConfig>, TlsError> {
            let trust = ServerTrust::Roots(Arc::clone(&roots));
            let mut config = client_config(trust, Some(&identity))?;
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(Arc::new(config))
        };
        let issued = || ClientAuth::IssuedBy(Arc::clone(&roots));
        let limits = server_config(&identity, issued(), &[rate_limit::ALPN])?;
        Ok(Tls {
            joining: Arc::new(server_config(&identity, ClientAuth::Off, &[JOIN])?),
            nodes: Arc::new(server_config(&identity, issued(), &[GOSSIP, COMMANDS])?),
            gossip: client(GOSSIP)?,
            commands: client(COMMANDS)?,
            limits: (Arc::new(limits), client(rate_limit::ALPN)?),
        })
    }
}

/// Why a machine with a certificate of the cluster is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// It was removed.
    #[error("node {0:?} was removed from the cluster")]
    Removed(String),
    /// Nobody knows its key.
    #[error("its key is of no node of this cluster")]
    Unknown,
}

/// The node whose key a certificate has. The certificate's issuer was checked before; the roster
/// decides, so that a removed node is nobody at once.
pub(crate) fn recognise(
    roster: &Roster,
    certificate: Option<&CertificateDer<'_>>,
) -> Result<Member, Stranger> {
    let digest = certificate.and_then(|it| key_digest(it).ok());
    let digest = digest.ok_or(Stranger::Unknown)?;
    let found = roster.members.iter().find(|it| it.key_digest == digest);
    match found {
        None => Err(Stranger::Unknown),
        Some(member) if member.wanted == Wanted::Removed => {
            Err(Stranger::Removed(member.name.clone()))
        }
        Some(member) => Ok(member.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::found;

    #[test]
    fn a_key_is_recognised_until_its_node_is_removed() {
        let founding = found("n1", "192.0.2.1:7777").unwrap();
        Tls::of(&founding.identity).unwrap();
        let first = founding.new.first;
        let mut roster = Roster {
            revision: 1,
            members: vec![Member {
                id: first.id,
                name: first.name,
                role: first.role,
                address: first.address,
                wanted: Wanted::Drained,
                wanted_at: 1,
                key_digest: first.key_digest,
                joined_at_ms: 0,
            }],
        };
        let shown = founding.identity.tls().unwrap();
        let known = recognise(&roster, Some(shown.leaf())).unwrap();
        assert_eq!(known.id, founding.identity.id);
        let other = found("n1", "192.0.2.1:7777")
            .unwrap()
            .identity
            .tls()
            .unwrap();
        assert_eq!(
            recognise(&roster, Some(other.leaf())),
            Err(Stranger::Unknown)
        );
        assert_eq!(recognise(&roster, None), Err(Stranger::Unknown));
        roster.members[0].wanted = Wanted::Removed;
        let removed = recognise(&roster, Some(shown.leaf()));
        assert_eq!(removed, Err(Stranger::Removed("n1".to_owned())));
    }
}
