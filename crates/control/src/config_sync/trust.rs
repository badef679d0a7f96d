//! Which data planes may connect: those whose certificate is pinned to the control plane in the
//! host name they dialled, while it is valid.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sallyport_runtime::tls::Leaf;
use sallyport_store::{ClusterType, ControlPlane, Store, StoreError};

/// A data plane that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) control_plane: ControlPlane,
    pub(crate) digest: [u8; 32],
    /// Unix seconds up to which its certificate is valid.
    pub(crate) cert_expires_at: i64,
    pub(crate) ip: IpAddr,
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
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets a data plane in that dialled the host of the control plane with `prefix`.
pub(crate) async fn admit(
    store: &Store,
    prefix: &str,
    certificate: Option<&CertificateDer<'_>>,
    ip: IpAddr,
) -> Result<Guest, Refusal> {
    let certificate = certificate.ok_or_else(|| Refusal::Unreadable("none".to_owned()))?;
    let leaf = Leaf::parse(certificate).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let found = store.control_plane_by_prefix(prefix).await?;
    let control_plane = found.ok_or_else(|| Refusal::NoControlPlane(prefix.to_owned()))?;
    if control_plane.cluster_type != ClusterType::ControlPlane {
        return Err(Refusal::OtherCluster(control_plane.name));
    }
    let guest = Guest {
        control_plane,
        digest: leaf.digest.0,
        cert_expires_at: leaf.not_after,
        ip,
    };
    if now_secs() < leaf.not_before {
        return Err(Refusal::NotYet(leaf.not_before));
    }
    check(store, &guest).await?;
    Ok(guest)
}

/// Checks what may change while a link is open: the pin and the end of the certificate.
pub(super) async fn check(store: &Store, guest: &Guest) -> Result<(), Refusal> {
    if now_secs() > guest.cert_expires_at {
        return Err(Refusal::Expired(guest.cert_expires_at));
    }
    let pins = store.certificates_by_digest(guest.digest).await?;
    if pins
        .iter()
        .any(|pin| pin.control_plane == guest.control_plane.id)
    {
        return Ok(());
    }
    let mut elsewhere = String::new();
    if let Some(pin) = pins.first() {
        let other = store.control_plane(pin.control_plane).await?;
        elsewhere = format!(", but to control plane {:?}", other.name);
    }
    Err(Refusal::NotPinned {
        digest: sallyport_runtime::tls::CertDigest(guest.digest).to_string(),
        control_plane: guest.control_plane.name.clone(),
        elsewhere,
    })
}

pub(super) fn now_secs() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
