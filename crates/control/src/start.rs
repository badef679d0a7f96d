//! Start and end of the role.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sallyport_model::schema::PluginSchemas;
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use sallyport_runtime::{ListenError, ListenOptions, Tasks, listen};
use sallyport_store::Store;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::app::{App, Shared, router};
use crate::audit_log::{self, Audit, AuditLogError, AuditLogSettings, CommandLog};
use crate::config_sync::{Links, record, supervise};
use crate::control_planes::host;
use crate::ip_addresses::{Feed, in_front_of};
use crate::listener::{Doors, serve, serve_plain};
use crate::telemetry::{Telemetry, TelemetryError, TelemetrySettings};

/// For connections to finish and contacts to be stored when the role stops.
const GRACE: Duration = Duration::from_secs(10);

/// How a control plane is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the TLS listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Name of the setting behind `listen`, for error messages.
    pub listen_setting: String,
    /// The API without TLS on this loopback address, only if set. Error messages name its setting
    /// as `<listen_setting>-plain`.
    pub listen_plain: Option<SocketAddr>,
    /// Domain under which host names of control planes live, such as `sallyport.example`.
    pub base_domain: String,
    /// Geo of this installation, such as `eu`.
    pub geo: String,
    /// Certificate and key that the listener shows.
    pub identity: Identity,
    /// Where the audit log is, what it takes from others and where it goes.
    pub audit_log: AuditLogSettings,
    /// Where telemetry is kept and where it goes.
    pub telemetry: TelemetrySettings,
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate cannot be used.
    #[error("the control plane's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The audit log cannot be opened.
    #[error(transparent)]
    AuditLog(#[from] AuditLogError),
    /// Telemetry cannot be kept.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Base domain and geo make no host names.
    #[error("base domain {base_domain:?} and geo {geo:?} make no host names: {reason}")]
    Names {
        /// The setting.
        base_domain: String,
        /// The setting.
        geo: String,
        /// What is wrong.
        reason: String,
    },
    /// Tokens would cross the network in the clear.
    #[error("the API without TLS may only listen on a loopback address, not on {0}")]
    PlainNotLoopback(IpAddr),
}

/// A control plane that runs.
pub struct Running {
    /// The address of the TLS listener.
    pub local_addr: SocketAddr,
    /// The address of the API without TLS, if it was asked for.
    pub plain_addr: Option<SocketAddr>,
    /// The address on which audit records are received, over TCP and UDP, if it was asked for.
    pub audit_log_addr: Option<SocketAddr>,
    audit: Audit,
    telemetry: Telemetry,
    org_id: Option<Uuid>,
    tasks: Tasks,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Waits for a part of the role to end although nobody stopped it, which only a bug does;
    /// what it says belongs in the log. May be dropped while waiting.
    pub async fn failed(&mut self) -> String {
        match self.tasks.ended().await {
            Some(ended) => {
                let reason = ended.panic.as_deref().unwrap_or("no reason");
                format!("part {:?} of the control plane ended: {reason}", ended.name)
            }
            None => "every part of the control plane has ended".to_owned(),
        }
    }

    /// The audit log, for commands that are given to the node.
    pub fn commands(&self) -> CommandLog {
        let org_id = self.org_id.map(|id| id.to_string());
        CommandLog::new(self.audit.log.clone(), org_id)
    }

    /// Stops accepting, lets open requests finish, ends links to data planes, stores what is known
    /// of them. The store stays open; it belongs to the caller.
    pub async fn stop(self) {
        for name in self.tasks.finish(GRACE).await {
            warn!(task = name, "the control plane did not stop in time");
        }
        self.telemetry.close().await;
        self.audit.end().await;
    }
}

impl From<audit_log::OpenError> for StartError {
    fn from(error: audit_log::OpenError) -> StartError {
        match error {
            audit_log::OpenError::Log(error) => error.into(),
            audit_log::OpenError::Listen(error) => error.into(),
        }
    }
}

/// Starts a control plane. It runs until [`Running::stop`]; dropping [`Running`] ends it at once.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(
    settings: Settings,
    store: Store,
    plugins: &'static dyn PluginSchemas,
) -> Result<Running, StartError> {
    start_publishing(settings, store, plugins, None).await
}

/// As [`start`], with the published list of addresses if there is one.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start_publishing(
    settings: Settings,
    store: Store,
    plugins: &'static dyn PluginSchemas,
    feed: Option<Feed>,
) -> Result<Running, StartError> {
    check_names(&settings)?;
    if let Some(plain) = settings
        .listen_plain
        .filter(|plain| !plain.ip().is_loopback())
    {
        return Err(StartError::PlainNotLoopback(plain.ip()));
    }
    let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let api_tls = Arc::new(server_config(&settings.identity, ClientAuth::Off, &alpn)?);
    let node_tls = Arc::new(server_config(
        &settings.identity,
        ClientAuth::Presented,
        &[],
    )?);
    let options = ListenOptions::default();
    let listener = listen(
        "config_sync",
        settings.listen,
        &settings.listen_setting,
        options,
    )?;
    let plain = match settings.listen_plain {
        Some(addr) => Some(listen(
            "core_entities",
            addr,
            &format!("{}-plain", settings.listen_setting),
            options,
        )?),
        None => None,
    };
    let opened = audit_log::open(settings.audit_log, &settings.identity)?;
    let audit_log_addr = opened.receive_addr();
    let local_addr = listener.local_addr().unwrap_or(settings.listen);
    let plain_addr = plain.as_ref().and_then(|plain| plain.local_addr().ok());

    let mut tasks = Tasks::new(CancellationToken::new());
    let org_id = store.organization().await.ok().map(|it| it.id);
    let audit = opened.start(&mut tasks, &settings.base_domain, org_id);
    let audit = audit.await;
    let telemetry = Telemetry::start(settings.telemetry, &store, &mut tasks)?;
    let (links, subscriptions, inbox) = Links::new(store.clone());
    let app = App(Arc::new(Shared {
        store: store.clone(),
        plugins,
        publishers: links.publishers.clone(),
        audit: audit.clone(),
        telemetry: telemetry.clone(),
        base_domain: settings.base_domain.clone(),
        geo: settings.geo.clone(),
        node_id: Uuid::new_v4(),
    }));
    let api = in_front_of(router(app), feed, &settings.base_domain);
    let doors = Arc::new(Doors {
        api: api.clone(),
        api_tls,
        node_tls,
        links,
        telemetry: telemetry.clone(),
        recorder: audit.recorder.clone(),
        base_domain: settings.base_domain,
        geo: settings.geo,
    });
    let own = store.clone();
    tasks.spawn("config_sync", |stop| supervise(own, subscriptions, stop));
    // Ends when the listener's task has let go of the last recorder.
    tasks.spawn("nodes", |_| record(store, inbox));
    tasks.spawn("listener", |stop| serve(listener, doors, stop));
    if let Some(plain) = plain {
        tasks.spawn("plain_listener", |stop| serve_plain(plain, api, stop));
    }
    info!(%local_addr, ?audit_log_addr, "control plane started");
    Ok(Running {
        local_addr,
        plain_addr,
        audit_log_addr,
        audit,
        telemetry,
        org_id,
        tasks,
    })
}

/// Whether host names can be made at all, so that nothing later can fail on it.
fn check_names(settings: &Settings) -> Result<(), StartError> {
    let (base, geo) = (settings.base_domain.as_str(), settings.geo.as_str());
    let refuse = |reason: String| StartError::Names {
        base_domain: base.to_owned(),
        geo: geo.to_owned(),
        reason,
    };
    let host = host("config_sync", base, geo, "0123456789").map_err(|e| refuse(e.to_string()))?;
    match sallyport_contract::catalogue().match_host(base, &host) {
        Some(_) => Ok(()),
        None => Err(refuse(format!(
            "the network contract does not know the geo {geo:?}"
        ))),
    }
}
