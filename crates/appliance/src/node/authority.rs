//! The cluster's authorities: who may say that a machine is a node, and that a server is an API.
//!
//! Their keys are in the database that all nodes share, sealed with a secret that only nodes have:
//! every data node can take a new one in, and a copy of the database is worth nothing to a forger.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sallyport_runtime::certs::{CertsError, LocalCa, NewKey, PemPair, Request};
use sallyport_store::{Cluster, NewCluster, NewMember, NodeRole};
use uuid::Uuid;

use super::identity::Identity;
use super::settings::Secret;
use crate::node_control::names_of;

/// How long authorities and certificates of nodes are valid. A node is cast out by removing it,
/// which takes effect at once, and not by waiting.
const DAYS: u32 = 20 * 365;
const SECRET_LEN: usize = 32;

/// Why a key of the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The secret of this node is not the one.
    #[error("the cluster's keys do not open with this node's secret; it is of another cluster")]
    Sealed,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Randomness,
    /// A certificate could not be made or read.
    #[error(transparent)]
    Certs(#[from] CertsError),
}

/// Both authorities, opened.
#[derive(Debug)]
pub struct Authority {
    /// Of nodes.
    pub nodes: LocalCa,
    /// Of the servers of APIs, which gateways and operators trust.
    pub api: PemPair,
    /// For what only nodes may read in the database.
    pub sealer: Sealer,
}

/// Seals with the secret that only the cluster's nodes have.
pub struct Sealer {
    cluster: Uuid,
    secret: Vec<u8>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Seals `plain`, so that it can only be opened as the same `what`.
    ///
    /// # Errors
    /// [`SealError::Randomness`].
    pub fn seal(&self, what: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.secret, self.cluster, what, plain)
    }

    /// Opens what was sealed as `what`.
    ///
    /// # Errors
    /// [`SealError::Sealed`].
    pub fn open(&self, what: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.secret, self.cluster, what, sealed)
    }
}

impl Authority {
    /// Opens the authorities of a cluster with a node's secret.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(cluster: &Cluster, secret: &[u8]) -> Result<Authority, SealError> {
        let text = |sealed: &[u8], what| {
            let opened = open(secret, cluster.id, what, sealed)?;
            String::from_utf8(opened).map_err(|_| SealError::Sealed)
        };
        let nodes = PemPair {
            cert: cluster.node_ca.clone(),
            key: text(&cluster.node_ca_key, "nodes")?,
        };
        let api = PemPair {
            cert: cluster.api_ca.clone(),
            key: text(&cluster.api_ca_key, "api")?,
        };
        Ok(Authority {
            nodes: LocalCa::load(nodes)?,
            api,
            sealer: Sealer {
                cluster: cluster.id,
                secret: secret.to_vec(),
            },
        })
    }

    /// Certifies a node's key.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn certify(&self, request: Request, id: Uuid, name: &str) -> Result<String, CertsError> {
        self.nodes
            .issue_requested(request, name, &names_of(id), DAYS)
    }
}

/// A new cluster, before it is stored.
#[derive(Debug)]
pub struct Founding {
    /// The first node.
    pub identity: Identity,
    /// For the database.
    pub new: NewCluster,
}

/// Makes a cluster with a first node of this name, reachable at `address`.
///
/// # Errors
/// See [`SealError`].
pub fn found(name: &str, address: &str) -> Result<Founding, SealError> {
    let (cluster, id) = (Uuid::new_v4(), Uuid::new_v4());
    let mut secret = vec![0; SECRET_LEN];
    getrandom::fill(&mut secret).map_err(|_| SealError::Randomness)?;
    let nodes = LocalCa::create("Sallyport nodes", DAYS)?;
    let api = LocalCa::create("Sallyport", DAYS)?;
    let key = NewKey::create()?;
    let request = Request::parse(&key.request)?;
    let key_digest = request.key_digest();
    let certificate = nodes.issue_requested(request, name, &names_of(id), DAYS)?;
    let sealed = |what, pair: &PemPair| seal(&secret, cluster, what, pair.key.as_bytes());
    let shared = Cluster {
        id: cluster,
        node_ca: nodes.pem().cert.clone(),
        node_ca_key: sealed("nodes", nodes.pem())?,
        api_ca: api.pem().cert.clone(),
        api_ca_key: sealed("api", api.pem())?,
    };
    let role = NodeRole::Data;
    Ok(Founding {
        identity: Identity {
            cluster,
            id,
            name: name.to_owned(),
            role,
            authority: shared.node_ca.clone(),
            certificate,
            key: Secret(key.key),
            secret,
        },
        new: NewCluster {
            cluster: shared,
            first: NewMember {
                id,
                name: name.to_owned(),
                role,
                address: address.to_owned(),
                key_digest,
            },
        },
    })
}

fn sealing_key(secret: &[u8]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| SealError::Sealed)?;
    Ok(LessSafeKey::new(key))
}

/// What a sealed key is bound to, so that one cannot stand in for another.
fn context(cluster: Uuid, what: &str) -> Aad<Vec<u8>> {
    Aad::from([cluster.as_bytes(), what.as_bytes()].concat())
}

fn seal(secret: &[u8], cluster: Uuid, what: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Randomness)?;
    let mut sealed = plain.to_vec();
    let at = Nonce::assume_unique_for_key(nonce);
    sealing_key(secret)?
        .seal_in_place_append_tag(at, context(cluster, what), &mut sealed)
        .map_err(|_| SealError::Sealed)?;
    Ok([&nonce[..], &sealed].concat())
}

fn open(secret: &[u8], cluster: Uuid, what: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, rest) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(SealError::Sealed)?;
    let mut bytes = rest.to_vec();
    let at = Nonce::assume_unique_for_key(*nonce);
    let plain = sealing_key(secret)?
        .open_in_place(at, context(cluster, what), &mut bytes)
        .map_err(|_| SealError::Sealed)?;
    Ok(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_founded_cluster_opens_with_its_secret_only() {
        let founding = found("n1", "192.0.2.1:7777").unwrap();
        let secret = &founding.identity.secret;
        let authority = Authority::open(&founding.new.cluster, secret).unwrap();
        let key = NewKey::create().unwrap();
        let request = Request::parse(&key.request).unwrap();
        let id = Uuid::from_u128(7);
        let certificate = authority.certify(request, id, "n2").unwrap();
        let identity = sallyport_runtime::tls::Identity::from_pem(&certificate, &key.key).unwrap();
        let leaf = sallyport_runtime::tls::Leaf::parse(identity.leaf()).unwrap();
        assert_eq!(leaf.names, names_of(id));
        founding.identity.tls().unwrap();

        let sealed = authority.sealer.seal("list", b"a key").unwrap();
        assert_eq!(authority.sealer.open("list", &sealed).unwrap(), b"a key");
        assert!(authority.sealer.open("nodes", &sealed).is_err());
        assert!(!format!("{:?}", authority.sealer).contains("secret"));

        let mut other = secret.clone();
        other[0] ^= 1;
        assert!(Authority::open(&founding.new.cluster, &other).is_err());
        let mut swapped = founding.new.cluster;
        std::mem::swap(&mut swapped.node_ca_key, &mut swapped.api_ca_key);
        assert!(Authority::open(&swapped, secret).is_err());
    }
}
