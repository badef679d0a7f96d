//! What a gateway's settings say about its far ends and its ports.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow};
use sallyport_contract::{Catalogue, ControlPlane, Installation, PortUse, Role};
use sallyport_gateway::conf::{Cluster, Conf, Material, Mtls};
use sallyport_runtime::ForwardProxy;
use sallyport_runtime::tls::{Identity, ServerTrust};

use super::described::{Known, placeholder_base, placeholder_prefix};

/// The part of `kong.conf` that concerns the network.
pub(crate) struct GatewayConf {
    control_plane: Option<(String, u16)>,
    telemetry: Option<(String, u16)>,
    ports: BTreeMap<String, Vec<PortUse>>,
    /// Through what the control plane is dialled.
    pub(crate) proxy: Option<ForwardProxy>,
    /// Whom to believe, and who to be.
    pub(crate) cluster: Option<(ServerTrust, Identity)>,
    /// By contract id, the server names that the settings ask for.
    pub(crate) server_names: BTreeMap<String, String>,
}

impl GatewayConf {
    /// Reads the file, the environment, and the files that they name.
    pub(crate) fn read(path: &Path) -> anyhow::Result<GatewayConf> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read the settings file {}", path.display()))?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let (conf, _) = Conf::load(Some(&text), environment, &super::gateway::installed())?;
        let material = Material::read(&conf)
            .map_err(|problems| anyhow!("{}", super::gateway::lines(&problems)))?;
        let mut ports: BTreeMap<String, Vec<PortUse>> = BTreeMap::new();
        for listener in &conf.proxy_listen {
            let id = if listener.tls {
                "proxy.https"
            } else {
                "proxy.http"
            };
            if let Ok(port) = format!("{}/tcp", listener.port).parse() {
                ports.entry(id.to_owned()).or_default().push(port);
            }
        }
        for listener in &conf.stream_listen {
            let transport = if listener.udp { "udp" } else { "tcp" };
            if let Ok(port) = format!("{}/{transport}", listener.port).parse() {
                ports.entry("stream".to_owned()).or_default().push(port);
            }
        }
        let cluster = conf.cluster.as_ref();
        Ok(GatewayConf {
            control_plane: cluster.map(|it| (it.control_plane.host.clone(), it.control_plane.port)),
            telemetry: cluster
                .and_then(|it| it.telemetry.as_ref())
                .map(|it| (it.endpoint.host.clone(), it.endpoint.port)),
            ports,
            proxy: cluster.and_then(|it| Some(it.proxy.as_ref()?.server.clone())),
            server_names: cluster.map(server_names).unwrap_or_default(),
            cluster: material.cluster.map(|it| (it.trust, it.identity)),
        })
    }

    /// The installation, as far as the control plane's name tells it.
    pub(crate) fn installation(&self, catalogue: &Catalogue) -> Known {
        let host = self
            .control_plane
            .as_ref()
            .map(|(host, _)| host.as_str())
            .unwrap_or_default();
        let mut made_up = Vec::new();
        let (base, prefix, geo) = parts(catalogue, host).unwrap_or_else(|| {
            made_up.extend(["base", "prefix"]);
            let geo = catalogue.geos.first().cloned().unwrap_or_default();
            (placeholder_base(), placeholder_prefix(), geo)
        });
        let installation = Installation {
            base: Some(base),
            roles: vec![Role::Gateway, Role::ControlPlane],
            geos: vec![geo.clone()],
            control_planes: vec![ControlPlane { prefix, geo }],
            ports: self.ports.clone(),
            ..Installation::default()
        };
        Known {
            installation,
            made_up,
        }
    }

    /// The control plane's hosts are dialled exactly as the settings say, whatever its name.
    pub(crate) fn direct(&self) -> BTreeMap<String, (String, u16)> {
        let places = [
            ("config_sync", &self.control_plane),
            ("telemetry", &self.telemetry),
        ];
        places
            .into_iter()
            .filter_map(|(id, place)| Some((id.to_owned(), place.clone()?)))
            .collect()
    }
}

/// With a shared certificate every link asks for the same name.
fn server_names(cluster: &Cluster) -> BTreeMap<String, String> {
    let telemetry = match cluster.mtls {
        Mtls::Shared => Some(cluster.tls_name()),
        Mtls::Pki => cluster.telemetry_tls_name(),
    };
    let names = [
        ("config_sync", Some(cluster.tls_name())),
        ("telemetry", telemetry),
    ];
    names
        .into_iter()
        .filter_map(|(id, name)| Some((id.to_owned(), name?.to_owned())))
        .collect()
}

/// Base domain, prefix and geo of a control plane's host name, if the contract made it.
fn parts(catalogue: &Catalogue, host: &str) -> Option<(String, String, String)> {
    for (at, _) in host.match_indices('.') {
        let base = &host[at + 1..];
        if let Some(found) = catalogue.match_host(base, host)
            && let (Some(prefix), Some(geo)) = (found.prefix, found.geo)
        {
            return Some((base.to_owned(), prefix, geo));
        }
    }
    None
}
