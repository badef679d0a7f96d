//! What the client needs to know, out of `kong.conf`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, RootCertStore};
use sallyport_runtime::ForwardProxy;
use sallyport_runtime::tls::client::ClientConfigError;
use sallyport_runtime::tls::{Identity, ServerTrust, client_config, not_after, trust_store};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{DP_LABELS, Hello, OWN, SYNC, SyncVersion};
use sallyport_wire::config_sync::rpc::ENCODING;
use sallyport_wire::config_sync::{BasicInfo, OutletQuery, PluginVersion};
use serde_json::{Map, Value};
use tracing::warn;
use uuid::Uuid;

use super::connection::Place;
use super::link::Timings;
use crate::conf::{ClusterMaterial, Conf, ControlPlaneAddr, Proxy};

/// Everything the client needs to know.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where to dial.
    pub control_plane: ControlPlaneAddr,
    /// Through what; `None` for directly.
    pub proxy: Option<Through>,
    /// Name asked for by SNI.
    pub tls_name: String,
    /// Whom to believe and what to show; may be exchanged, for the next connection.
    pub tls: ClusterTls,
    /// Who is dialling.
    pub query: OutletQuery,
    /// The first frame.
    pub hello: BasicInfo,
    /// Which protocols are tried.
    pub protocol: SyncProtocol,
    /// The first frame of protocol v2.
    pub rpc_hello: Hello,
    /// Largest frame accepted, in bytes.
    pub payload_bytes_max: usize,
    /// The hash in force at the start: that of the last-known-good configuration, or zeros.
    pub hash: ConfigHash,
    /// What the control plane calls it, if it came in changes.
    pub version: SyncVersion,
    /// Intervals; the default is what Kong uses.
    pub timings: Timings,
}

/// Whom to believe and what to show, exchangeable; clones share it.
#[derive(Clone, Debug)]
pub struct ClusterTls(Arc<ArcSwap<ClientConfig>>);

impl ClusterTls {
    pub(crate) fn new(material: &ClusterMaterial) -> Result<ClusterTls, ClientConfigError> {
        let config = client_config(material.trust.clone(), Some(&material.identity))?;
        Ok(ClusterTls(Arc::new(ArcSwap::from_pointee(config))))
    }

    /// Takes another certificate, from the next connection on.
    ///
    /// # Errors
    /// It cannot be used; the one before stays.
    pub(crate) fn exchange(&self, material: &ClusterMaterial) -> Result<(), ClientConfigError> {
        let config = client_config(material.trust.clone(), Some(&material.identity))?;
        self.0.store(Arc::new(config));
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        self.0.load_full()
    }
}

/// Seconds before its end from which a certificate is warned of, as at the control plane.
const EXPIRY_WARN_SECS: i64 = 30 * 24 * 3600;

/// Says in the log that the certificate that a control plane is shown ends soon, or has ended.
pub(crate) fn warn_of_end(identity: &Identity) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs() as i64);
    let Ok(end) = not_after(identity.leaf()) else {
        return;
    };
    match end - now {
        ..0 => warn!("cluster_cert has expired; the control plane refuses it"),
        left @ 0..EXPIRY_WARN_SECS => {
            warn!(days = left / (24 * 3600), "cluster_cert expires soon");
        }
        _ => {}
    }
}

/// Which protocols of configuration sync a node tries (`sallyport_sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncProtocol {
    /// Changes where the control plane has them, whole configurations elsewhere.
    Auto,
    /// Whole configurations only: Kong's protocol v1.
    Whole,
}

/// Bytes a payload may have once decompressed, per byte of `cluster_max_payload`. JSON of
/// entities compresses about tenfold.
const EXPANSION_MAX: usize = 32;

/// A forward proxy, ready to be dialled.
#[derive(Clone, Debug)]
pub struct Through {
    /// The proxy.
    pub server: ForwardProxy,
    /// Whom to believe, if it is spoken to over TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// The settings do not describe a data plane, or its certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `role` is not `data_plane`.
    #[error("only a gateway with role = data_plane has a control plane")]
    NoCluster,
    /// The cluster certificate cannot be used.
    #[error("cluster_cert: {0}")]
    Certificate(#[from] ClientConfigError),
}

impl ClientSettings {
    /// Settings from `kong.conf`. `hash` is the one in force at the start.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(
        conf: &Conf,
        material: &ClusterMaterial,
        node_id: Uuid,
        hostname: String,
        hash: ConfigHash,
    ) -> Result<ClientSettings, SettingsError> {
        let cluster = conf.cluster.as_ref().ok_or(SettingsError::NoCluster)?;
        warn_of_end(&material.identity);
        let version = |name: &String| PluginVersion {
            name: name.clone(),
            version: conf.kong_version.clone(),
        };
        let rpc_hello = Hello {
            rpc_capabilities: vec![SYNC.to_owned(), OWN.to_owned()],
            rpc_frame_encodings: vec![ENCODING.to_owned()],
            kong_version: conf.kong_version.clone(),
            kong_hostname: hostname.clone(),
            kong_node_id: node_id.to_string(),
            kong_conf: rpc_conf(conf, &cluster.dp_labels),
            plugins: conf.plugins.iter().map(version).collect(),
            labels: cluster.dp_labels.clone(),
        };
        Ok(ClientSettings {
            control_plane: cluster.control_plane.clone(),
            proxy: proxy(conf)?,
            tls_name: cluster.tls_name().to_owned(),
            tls: ClusterTls::new(material)?,
            query: OutletQuery {
                node_id: node_id.to_string(),
                node_hostname: Some(hostname),
                node_version: conf.kong_version.clone(),
            },
            hello: BasicInfo {
                plugins: conf.plugins.iter().map(version).collect(),
                process_conf: conf.process_conf(),
                labels: cluster.dp_labels.clone(),
                ..BasicInfo::default()
            },
            protocol: cluster.protocol,
            rpc_hello,
            payload_bytes_max: cluster.max_payload,
            hash,
            version: SyncVersion::NONE,
            timings: Timings::default(),
        })
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            at: &self.control_plane,
            proxy: self.proxy.as_ref(),
            tls_name: &self.tls_name,
            tls: self.tls.current(),
        }
    }
}

/// The settings as the hello of protocol v2 has them: Kong's control plane reads the labels there.
fn rpc_conf(conf: &Conf, labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut settings = conf.process_conf();
    if !labels.is_empty() {
        let pairs = labels.iter().map(|(key, value)| format!("{key}:{value}"));
        settings.insert(DP_LABELS.to_owned(), pairs.collect());
    }
    settings
}

/// The forward proxy of the settings, if there is one.
///
/// # Errors
/// TLS to it cannot be set up.
pub(crate) fn proxy(conf: &Conf) -> Result<Option<Through>, ClientConfigError> {
    let proxy = conf.cluster.as_ref().and_then(|it| it.proxy.as_ref());
    proxy.map(|proxy| through(proxy, conf)).transpose()
}

impl ClientSettings {
    /// Largest frame accepted once decompressed, in bytes.
    pub(super) fn expanded_bytes_max(&self) -> usize {
        self.payload_bytes_max.saturating_mul(EXPANSION_MAX)
    }
}

fn through(proxy: &Proxy, conf: &Conf) -> Result<Through, ClientConfigError> {
    let config = || {
        let trust = match proxy.verify {
            false => ServerTrust::Anybody,
            true => ServerTrust::Roots(Arc::new(
                trust_store(&conf.lua_ssl_trusted_certificate).unwrap_or_else(|error| {
                    warn!(%error, "lua_ssl_trusted_certificate: the proxy will be refused");
                    RootCertStore::empty()
                }),
            )),
        };
        client_config(trust, None).map(Arc::new)
    };
    Ok(Through {
        tls: proxy.server.tls.then(config).transpose()?,
        server: proxy.server.clone(),
    })
}
