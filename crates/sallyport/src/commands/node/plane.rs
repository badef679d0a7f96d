//! The control plane of a node, as the handle that the appliance takes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use sallyport_appliance::backup::{self, Sources};
use sallyport_appliance::node::{
    Accepts, Authority, Identity as NodeIdentity, Plane, RecordsHere, RunningPlane, Settings, State,
};
use sallyport_control::{AuditLogSettings, Running, TelemetrySettings};
use sallyport_runtime::Tasks;
use sallyport_runtime::tls::Identity;
use sallyport_store::Store;
use sallyport_store::dump::Database;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::probe::{accepts, probe};
use super::published;
use crate::administration::{self, Administration, InAuditLog};
use crate::home::{self, Home};
use crate::logging::LogTail;

/// For a backup that is being written, and for calls of the command line, to end.
const TASKS_GRACE: Duration = Duration::from_secs(10);

/// Opens the database that the settings name.
pub(super) async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = match &settings.database {
        Some(database) => Store::connect(&database.url).await?,
        None => Store::open(&settings.data.join("control").join("store.sqlite"))?,
    };
    Ok(store)
}

/// See [`Plane`].
pub(super) struct ControlPlane {
    pub(super) settings: Settings,
    pub(super) logs: LogTail,
}

#[async_trait]
impl Plane for ControlPlane {
    async fn open(&self) -> anyhow::Result<Store> {
        open_store(&self.settings).await
    }

    async fn probe(&self, state: &State, features: BTreeSet<String>) -> anyhow::Result<Value> {
        probe(state, &features).await
    }

    fn accepts(&self, state: &State) -> Accepts {
        accepts(state)
    }

    async fn start(
        &self,
        state: &State,
        store: Store,
        authority: Authority,
    ) -> anyhow::Result<Box<dyn RunningPlane>> {
        let api = authority.api;
        let settings = &self.settings.control_planes;
        let data = self.settings.data.join("control");
        home::make_directory(&data)?;
        // Gateways and operators trust one authority, whichever node they meet.
        if home::read_optional(&data.join("ca.crt"))?.as_deref() != Some(&api.cert) {
            home::write_private(&data.join("ca.key"), &api.key)?;
            home::write_public(&data.join("ca.crt"), &api.cert)?;
            _ = std::fs::remove_file(data.join("server.names"));
        }
        let geos = [&settings.geo].into_iter().chain(&settings.more_geos);
        let geos: Vec<&str> = geos.map(String::as_str).collect();
        let home = Home::on(&data, store, &settings.base_domain, &geos).await?;
        let shared_identity = match &settings.cluster_cert {
            None => None,
            Some((cert, key)) => {
                let read = Identity::load(&cert.to_string_lossy(), &key.to_string_lossy());
                let what = || {
                    format!(
                        "control_planes.cluster_cert {} cannot be used",
                        cert.display()
                    )
                };
                Some(read.with_context(what)?)
            }
        };
        let audit_log = match &settings.audit_log {
            None => AuditLogSettings::quiet(&home.path),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?;
                AuditLogSettings::parse(&home.path, &text)
                    .with_context(|| path.display().to_string())?
            }
        };
        let telemetry = match &settings.telemetry {
            None => TelemetrySettings::quiet(&home.path),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?;
                TelemetrySettings::parse(&home.path, &text)
                    .with_context(|| path.display().to_string())?
            }
        };
        let sealer = authority.sealer;
        let feed = published::feed(
            &self.settings,
            state,
            home.store.clone(),
            sealer,
            &home.path,
        )
        .await?;
        let running = sallyport_control::start_publishing(
            sallyport_control::Settings {
                node_purge_delay: sallyport_control::NODE_PURGE_DELAY,
                more_geos: settings.more_geos.clone(),
                shared_identity,
                issuer: Some(home.issuer.clone()),
                listen: settings.listen,
                listen_setting: "control_planes.listen".to_owned(),
                listen_plain: None,
                base_domain: settings.base_domain.clone(),
                geo: settings.geo.clone(),
                identity: home.identity.clone(),
                audit_log,
                telemetry,
                requests_per_second: crate::commands::control::REQUESTS_PER_SECOND,
                admin: None,
            },
            home.store.clone(),
            sallyport_plugins::schemas(),
            Some(feed),
        )
        .await?;
        info!(
            control_plane = %home.bootstrap.control_plane.id,
            address = %running.local_addr,
            token_file = %home.path.join("token").display(),
            ca = %home.ca_path().display(),
            "control plane ready"
        );
        let mut tasks = Tasks::new(CancellationToken::new());
        self.administration(&home, &running, &mut tasks)?;
        Ok(Box::new(Started { running, tasks }))
    }
}

impl ControlPlane {
    /// Opens the command line and begins with backups, as the settings say.
    fn administration(
        &self,
        home: &Home,
        running: &Running,
        tasks: &mut Tasks,
    ) -> anyhow::Result<()> {
        let settings = &self.settings;
        let planes = &settings.control_planes;
        let files = [
            Some(&settings.file),
            planes.audit_log.as_ref(),
            planes.telemetry.as_ref(),
            planes.ip_addresses.as_ref(),
        ];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        let data = std::fs::canonicalize(&settings.data)
            .with_context(|| format!("could not open {}", settings.data.display()))?;
        let database_file = PathBuf::from("control/store.sqlite");
        let sources = Sources {
            database: match &settings.database {
                Some(database) => Database::Url(database.url.clone()),
                None => Database::File(data.join(&database_file)),
            },
            identity: NodeIdentity::path(&settings.data)
                .strip_prefix(&settings.data)
                .map(|path| vec![path.to_owned()])
                .unwrap_or_default(),
            data,
            database_file,
            settings: files.clone(),
            node: settings.name.clone(),
        };
        if let Some(backups) = settings.backup.clone() {
            let (status, _) = watch::channel(backup::service::Status::default());
            let sources = sources.clone();
            tasks.spawn("backup", |stop| {
                backup::service::run(sources, backups, status, stop)
            });
        }
        let Some(listen) = settings.appliance_cli else {
            return Ok(());
        };
        let it = Administration {
            listen,
            listen_setting: "appliance_cli.listen",
            role: "node",
            sources,
            backups: settings
                .backup
                .as_ref()
                .map(|it| (it.to.clone(), it.seal.clone())),
            configuration: files,
            logs: self.logs.clone(),
            more: super::remote::entries(settings),
        };
        administration::start(it, &home.path, running.commands(), tasks)?;
        Ok(())
    }
}

struct Started {
    running: Running,
    tasks: Tasks,
}

#[async_trait]
impl RunningPlane for Started {
    fn address(&self) -> SocketAddr {
        self.running.local_addr
    }

    fn records(&self) -> Arc<dyn RecordsHere> {
        Arc::new(InAuditLog(self.running.commands()))
    }

    async fn failed(&mut self) -> String {
        self.running.failed().await
    }

    async fn stop(self: Box<Self>) {
        for name in self.tasks.finish(TASKS_GRACE).await {
            tracing::warn!(task = name, "did not stop in time");
        }
        self.running.stop().await;
    }
}
