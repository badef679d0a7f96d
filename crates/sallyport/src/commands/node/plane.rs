//! The control plane of a node, as the handle that the appliance takes.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use async_trait::async_trait;
use sallyport_appliance::node::{Plane, RunningPlane, Settings};
use sallyport_control::{AuditLogSettings, Feed, Running};
use sallyport_runtime::certs::PemPair;
use sallyport_store::Store;
use tracing::info;

use crate::home::{self, Home};

/// Opens the database that the settings name.
pub(super) async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = match &settings.database {
        Some(database) => Store::connect(&database.url).await?,
        None => Store::open(&settings.data.join("control").join("store.sqlite"))?,
    };
    Ok(store)
}

/// See [`Plane`].
pub(super) struct ControlPlane(pub(super) Settings);

#[async_trait]
impl Plane for ControlPlane {
    async fn open(&self) -> anyhow::Result<Store> {
        open_store(&self.0).await
    }

    async fn start(&self, store: Store, api: PemPair) -> anyhow::Result<Box<dyn RunningPlane>> {
        let settings = &self.0.control_planes;
        let data = self.0.data.join("control");
        home::make_directory(&data)?;
        // Gateways and operators trust one authority, whichever node they meet.
        if home::read_optional(&data.join("ca.crt"))?.as_deref() != Some(&api.cert) {
            home::write_private(&data.join("ca.key"), &api.key)?;
            home::write_public(&data.join("ca.crt"), &api.cert)?;
            _ = std::fs::remove_file(data.join("server.names"));
        }
        let home = Home::on(&data, store, &settings.base_domain, &settings.geo).await?;
        let audit_log = match &settings.audit_log {
            None => AuditLogSettings::quiet(&home.path),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?;
                AuditLogSettings::parse(&home.path, &text)
                    .with_context(|| path.display().to_string())?
            }
        };
        let feed = match &settings.ip_addresses {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                let feed = Feed::open(
                    &text,
                    &settings.base_domain,
                    &home.path,
                    i64::try_from(now)?,
                );
                Some(feed.with_context(|| path.display().to_string())?)
            }
        };
        let running = sallyport_control::start_publishing(
            sallyport_control::Settings {
                listen: settings.listen,
                listen_setting: "control_planes.listen".to_owned(),
                listen_plain: None,
                base_domain: settings.base_domain.clone(),
                geo: settings.geo.clone(),
                identity: home.identity.clone(),
                audit_log,
            },
            home.store.clone(),
            sallyport_plugins::schemas(),
            feed,
        )
        .await?;
        info!(
            control_plane = %home.bootstrap.control_plane.id,
            address = %running.local_addr,
            token_file = %home.path.join("token").display(),
            ca = %home.ca_path().display(),
            "control plane ready"
        );
        Ok(Box::new(Started(running)))
    }
}

struct Started(Running);

#[async_trait]
impl RunningPlane for Started {
    fn address(&self) -> SocketAddr {
        self.0.local_addr
    }

    async fn failed(&mut self) -> String {
        self.0.failed().await
    }

    async fn stop(self: Box<Self>) {
        self.0.stop().await;
    }
}
