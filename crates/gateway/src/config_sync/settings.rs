//! What the client needs to know, out of `kong.conf`.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use sallyport_runtime::ForwardProxy;
use sallyport_runtime::tls::client::ClientConfigError;
use sallyport_runtime::tls::{ServerTrust, client_config, trust_store};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{BasicInfo, OutletQuery, PluginVersion};
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
    /// Whom to believe and what to show.
    pub tls: Arc<ClientConfig>,
    /// Who is dialling.
    pub query: OutletQuery,
    /// The first frame.
    pub hello: BasicInfo,
    /// Largest frame accepted, in bytes.
    pub payload_bytes_max: usize,
    /// The hash in force at the start: that of the last-known-good configuration, or zeros.
    pub hash: ConfigHash,
    /// Intervals; the default is what Kong uses.
    pub timings: Timings,
}

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
        let version = |name: &String| PluginVersion {
            name: name.clone(),
            version: conf.kong_version.clone(),
        };
        Ok(ClientSettings {
            control_plane: cluster.control_plane.clone(),
            proxy: proxy(conf)?,
            tls_name: cluster.tls_name().to_owned(),
            tls: Arc::new(client_config(
                material.trust.clone(),
                Some(&material.identity),
            )?),
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
            payload_bytes_max: cluster.max_payload,
            hash,
            timings: Timings::default(),
        })
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            at: &self.control_plane,
            proxy: self.proxy.as_ref(),
            tls_name: &self.tls_name,
            tls: &self.tls,
        }
    }
}

/// The forward proxy of the settings, if there is one.
///
/// # Errors
/// TLS to it cannot be set up.
pub(crate) fn proxy(conf: &Conf) -> Result<Option<Through>, ClientConfigError> {
    let proxy = conf.cluster.as_ref().and_then(|it| it.proxy.as_ref());
    proxy.map(|proxy| through(proxy, conf)).transpose()
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
