//! Which data planes may connect: those whose certificate is pinned to the control plane that they
//! dialled, or was issued by an authority of it, while it is valid.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sallyport_runtime::tls::{Leaf, issued_by};
use sallyport_store::{AuthType, ClusterType, ControlPlane, Store, StoreError};
use tracing::warn;

/// A data plane that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) control_plane: ControlPlane,
    pub(crate) digest: [u8; 32],
    /// Its certificate and those between it and an authority; only where authorities count.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Unix seconds up to which its certificate is valid.
    pub(crate) cert_expires_at: i64,
    pub(crate) ip: IpAddr,
}

/// How a data plane says which control plane it wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialled<'a> {
    /// By the first label of a host name.
    Prefix(&'a str),
    /// By its certificate alone: Kong's shared mode.
    Shared,
}

/// Why a data plane is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no control plane has the prefix {0:?}")]
    NoControlPlane(String),
    #[error("control plane {0:?} serves no data planes")]
    OtherCluster(String),
    #[error("it presented no usable certificate: {0}")]
    Unreadable(String),
    #[error("its certificate expired (last valid Unix second {0})")]
    Expired(i64),
    #[error("its certificate is not valid yet (from Unix second {0})")]
    NotYet(i64),
    #[error("its certificate {digest} is not pinned to control plane {control_plane:?}{elsewhere}")]
    NotPinned {
        digest: String,
        control_plane: String,
        elsewhere: String,
    },
    #[error(
        "its certificate {digest} is pinned to {planes} control planes, in shared mode it must be one"
    )]
    Shared { digest: String, planes: usize },
    #[error("no authority of control plane {control_plane:?} issued its certificate: {reason}")]
    NotIssued {
        control_plane: String,
        reason: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Days before its end from which a certificate is warned of.
pub(crate) const EXPIRY_WARN_SECS: i64 = 30 * 24 * 3600;

/// Lets a data plane in, which showed these certificates, its own first.
pub(crate) async fn admit(
    store: &Store,
    dialled: Dialled<'_>,
    chain: &[CertificateDer<'_>],
    ip: IpAddr,
) -> Result<Guest, Refusal> {
    let first = chain
        .first()
        .ok_or_else(|| Refusal::Unreadable("none".to_owned()))?;
    let leaf = Leaf::parse(first).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let found = match dialled {
        Dialled::Prefix(prefix) => {
            let found = store.control_plane_by_prefix(prefix).await?;
            found.ok_or_else(|| Refusal::NoControlPlane(prefix.to_owned()))?
        }
        Dialled::Shared => {
            let pins = store.certificates_by_digest(leaf.digest.0).await?;
            match pins.as_slice() {
                [pin] => store.control_plane(pin.control_plane).await?,
                pins => {
                    let (digest, planes) = (leaf.digest.to_string(), pins.len());
                    return Err(Refusal::Shared { digest, planes });
                }
            }
        }
    };
    let serves = [ClusterType::ControlPlane, ClusterType::ControlPlaneGroup];
    if !serves.contains(&found.cluster_type) {
        return Err(Refusal::OtherCluster(found.name));
    }
    let chain = match found.auth_type {
        AuthType::PinnedClientCerts => Vec::new(),
        AuthType::PkiClientCerts => chain.iter().map(|it| it.clone().into_owned()).collect(),
    };
    let guest = Guest {
        control_plane: found,
        digest: leaf.digest.0,
        chain,
        cert_expires_at: leaf.not_after,
        ip,
    };
    if now_secs() < leaf.not_before {
        return Err(Refusal::NotYet(leaf.not_before));
    }
    check(store, &guest).await?;
    let left = guest.cert_expires_at - now_secs();
    if left < EXPIRY_WARN_SECS {
        let (days, control_plane) = (left / (24 * 3600), &guest.control_plane.name);
        warn!(%ip, control_plane, days, "the certificate of a data plane expires soon");
    }
    Ok(guest)
}

/// Whether a certificate is valid now and pinned to a control plane.
pub(crate) async fn is_trusted(
    store: &Store,
    control_plane: &ControlPlane,
    certificate: &CertificateDer<'_>,
) -> Result<(), Refusal> {
    let leaf = Leaf::parse(certificate).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    if now_secs() < leaf.not_before {
        return Err(Refusal::NotYet(leaf.not_before));
    }
    let guest = Guest {
        control_plane: control_plane.clone(),
        digest: leaf.digest.0,
        chain: vec![certificate.clone().into_owned()],
        cert_expires_at: leaf.not_after,
        ip: IpAddr::from([0, 0, 0, 0]),
    };
    check(store, &guest).await
}

/// Checks what may change while a link is open: pins and authorities, the way they are checked, and
/// the end of the certificate.
pub(crate) async fn check(store: &Store, guest: &Guest) -> Result<(), Refusal> {
    if now_secs() > guest.cert_expires_at {
        return Err(Refusal::Expired(guest.cert_expires_at));
    }
    let plane = &guest.control_plane;
    if store.control_plane(plane.id).await?.auth_type == AuthType::PkiClientCerts {
        let authorities = store.certificates(plane.id).await?;
        let pems = authorities.iter().map(|it| it.pem.as_str());
        return issued_by(pems, &guest.chain).map_err(|reason| Refusal::NotIssued {
            control_plane: plane.name.clone(),
            reason,
        });
    }
    let pins = store.certificates_by_digest(guest.digest).await?;
    if pins.iter().any(|pin| pin.control_plane == plane.id) {
        return Ok(());
    }
    let mut elsewhere = String::new();
    if let Some(pin) = pins.first() {
        let other = store.control_plane(pin.control_plane).await?;
        elsewhere = format!(", but to control plane {:?}", other.name);
    }
    Err(Refusal::NotPinned {
        digest: sallyport_runtime::tls::CertDigest(guest.digest).to_string(),
        control_plane: plane.name.clone(),
        elsewhere,
    })
}

pub(crate) fn now_secs() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use sallyport_runtime::certs::{Curve, data_plane_pair};
    use sallyport_runtime::tls::Identity;
    use sallyport_store::{Actor, NewCertificate, NewControlPlane};

    use super::*;

    #[tokio::test]
    async fn a_refusal_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let actor = Actor("test".to_owned());
        let make = async |name: &str| {
            let new = NewControlPlane {
                name: name.to_owned(),
                ..NewControlPlane::default()
            };
            store.create_control_plane(&actor, new).await.unwrap()
        };
        let (shop, bank) = (make("shop").await, make("bank").await);
        let pair = data_plane_pair("gateway", Curve::P256, 30).unwrap();
        let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let check = async |prefix: &str, expected: &str| {
            let told = admit(&store, Dialled::Prefix(prefix), identity.chain(), ip).await;
            let told = told.map_or_else(|refusal| refusal.to_string(), |_| "in".to_owned());
            assert!(told.contains(expected), "{told}");
        };
        check("0000000000", "no control plane has the prefix").await;
        check(&shop.prefix, "is not pinned to control plane \"shop\"").await;
        let pin = |cp: &ControlPlane| {
            let digest = identity.digest().0;
            let new = NewCertificate {
                pem: pair.cert.clone(),
                digest,
                title: String::new(),
            };
            store.pin_certificate(cp.id, &actor, new)
        };
        pin(&bank).await.unwrap();
        check(&shop.prefix, "but to control plane \"bank\"").await;
        pin(&shop).await.unwrap();
        check(&shop.prefix, "in").await;

        let guest = admit(&store, Dialled::Prefix(&shop.prefix), identity.chain(), ip)
            .await
            .unwrap();
        let expired = Guest {
            cert_expires_at: now_secs() - 1,
            ..guest
        };
        let told = super::check(&store, &expired)
            .await
            .unwrap_err()
            .to_string();
        assert!(told.contains("expired"), "{told}");
        let told = admit(&store, Dialled::Prefix(&shop.prefix), &[], ip)
            .await
            .unwrap_err()
            .to_string();
        assert!(told.contains("no usable certificate"), "{told}");
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2]);
        let told = admit(&store, Dialled::Prefix(&shop.prefix), &[garbage], ip)
            .await
            .unwrap_err()
            .to_string();
        assert!(told.contains("not an X.509 certificate"), "{told}");
    }
}
