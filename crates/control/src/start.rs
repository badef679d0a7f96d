//! Start and end of the role.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sallyport_model::schema::PluginSchemas;
use sallyport_runtime::certs::LocalCa;
use sallyport_runtime::tls::server::server_config_by_name;
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use sallyport_runtime::{ListenError, ListenOptions, Tasks, listen};
use sallyport_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::app::{App, Shared, router};
use crate::audit_log::{self, Audit, AuditLogError, AuditLogSettings, CommandLog};
use crate::config_sync::{Links, record, supervise};
use crate::control_planes::host;
use crate::core_entities;
use crate::ip_addresses::{Feed, in_front_of};
use crate::kic;
use crate::limits::Limits;
use crate::listener::{Doors, Handshakes, Shown, serve, serve_plain, serve_tls};
use crate::metrics::Metrics;
use crate::nodes;
use crate::telemetry::{Telemetry, TelemetryError, TelemetrySettings};

/// For connections to finish and contacts to be stored when the role stops.
const GRACE: Duration = Duration::from_secs(10);

/// How long a data plane may be silent before it is forgotten, unless a setting says otherwise:
/// 14 days, as with Kong.
pub const NODE_PURGE_DELAY: Duration = Duration::from_secs(14 * 24 * 3600);
/// Kong's Admin API beside the other APIs.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Address without TLS. Callers on the same machine need no token, others do.
    pub listen: Option<SocketAddr>,
    /// Address with TLS.
    pub listen_tls: Option<SocketAddr>,
    /// Id or name of the control plane that it is for.
    pub control_plane: String,
}

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
    /// Further geos whose data planes are served here.
    pub more_geos: Vec<String>,
    /// Certificate and key that the listener shows.
    pub identity: Identity,
    /// Certificate and key of Kong's shared mode, which data planes show as well.
    pub shared_identity: Option<Identity>,
    /// The authority that certifies data planes which enrol.
    pub issuer: Option<Arc<LocalCa>>,
    /// How long a data plane may be silent before it is forgotten.
    pub node_purge_delay: Duration,
    /// Where the audit log is, what it takes from others and where it goes.
    pub audit_log: AuditLogSettings,
    /// Where telemetry is kept and where it goes.
    pub telemetry: TelemetrySettings,
    /// Requests a second that one token may send, and twice as many at once; 0 is no limit.
    pub requests_per_second: u32,
    /// Kong's Admin API, if it is asked for.
    pub admin: Option<AdminSettings>,
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
    /// The Admin API has no control plane to be that of.
    #[error("the Admin API is for control plane {0:?}, which does not exist")]
    NoSuchControlPlane(String),
    /// The database failed at the start.
    #[error("could not look up the Admin API's control plane")]
    Store(#[from] StoreError),
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
    /// The address of the Admin API without TLS, if it was asked for.
    pub admin_addr: Option<SocketAddr>,
    /// The address of the Admin API with TLS, if it was asked for.
    pub admin_tls_addr: Option<SocketAddr>,
    /// The address on which audit records are received, over TCP and UDP, if it was asked for.
    pub audit_log_addr: Option<SocketAddr>,
    audit: Audit,
    telemetry: Telemetry,
    shown: Shown,
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

    /// Shows this certificate from the next handshake on.
    pub fn exchange(&self, identity: &Identity) {
        self.shown.exchange(identity);
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
    let shown = Shown::new(&settings.identity);
    let by_name = |auth, alpn: &[&[u8]]| {
        server_config_by_name(Arc::new(shown.clone()), auth, alpn).map(Arc::new)
    };
    let api_tls = by_name(ClientAuth::Off, &alpn)?;
    let node_tls = by_name(ClientAuth::Presented, &[])?;
    let kic_tls = by_name(ClientAuth::Presented, &alpn)?;
    let shared_tls = settings.shared_identity.as_ref();
    let shared_tls = shared_tls
        .map(|identity| server_config(identity, ClientAuth::Presented, &[]).map(Arc::new))
        .transpose()?;
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
    let admin = match &settings.admin {
        Some(admin) => Some(Admin::open(admin, &store).await?),
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
        issuer: settings.issuer.clone(),
        limits: Limits::new(settings.requests_per_second),
        metrics: Metrics::default(),
        base_domain: settings.base_domain.clone(),
        geo: settings.geo.clone(),
        node_id: Uuid::new_v4(),
    }));
    let (mut admin_addr, mut admin_tls_addr) = (None, None);
    if let Some(admin) = admin {
        let api = core_entities::admin::router(app.clone(), admin.control_plane);
        admin_addr = admin.plain.as_ref().and_then(|it| it.local_addr().ok());
        admin_tls_addr = admin.tls.as_ref().and_then(|it| it.local_addr().ok());
        if let Some(plain) = admin.plain {
            let api = api.clone();
            tasks.spawn("admin", |stop| serve_plain(plain, api, stop));
        }
        if let Some(listener) = admin.tls {
            let tls = Arc::clone(&api_tls);
            tasks.spawn("admin_tls", |stop| serve_tls(listener, tls, api, stop));
        }
    }
    let kic = kic::router(app.clone());
    let feed = feed.map(Arc::new);
    if let Some(feed) = feed.clone() {
        tasks.spawn("ip_addresses", |stop| feed.follow(stop));
    }
    let api = in_front_of(router(app), feed, &settings.base_domain);
    let doors = Arc::new(Doors {
        handshakes: Handshakes {
            api: api_tls,
            node: node_tls,
            kic: kic_tls,
            shared: shared_tls,
            base_domain: settings.base_domain,
            geos: [vec![settings.geo], settings.more_geos].concat(),
        },
        api: api.clone(),
        kic,
        links,
        telemetry: telemetry.clone(),
        recorder: audit.recorder.clone(),
    });
    let own = store.clone();
    tasks.spawn("config_sync", |stop| supervise(own, subscriptions, stop));
    let (own, after) = (store.clone(), settings.node_purge_delay);
    tasks.spawn("purge", move |stop| nodes::purge(own, after, stop));
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
        admin_addr,
        admin_tls_addr,
        audit_log_addr,
        audit,
        telemetry,
        shown,
        org_id,
        tasks,
    })
}

/// The Admin API's listeners, bound, and what it is for.
struct Admin {
    control_plane: Uuid,
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
}

impl Admin {
    async fn open(settings: &AdminSettings, store: &Store) -> Result<Admin, StartError> {
        let wanted = &settings.control_plane;
        let known = store.control_planes().await?.into_iter();
        let mut found = known.filter(|cp| cp.name == *wanted || cp.id.to_string() == *wanted);
        let found = found.next();
        let found = found.ok_or_else(|| StartError::NoSuchControlPlane(wanted.clone()))?;
        let bind = |id, addr: Option<SocketAddr>, setting: &str| match addr {
            Some(addr) => listen(id, addr, setting, ListenOptions::default()).map(Some),
            None => Ok(None),
        };
        Ok(Admin {
            control_plane: found.id,
            plain: bind("admin.http", settings.listen, "--admin-listen")?,
            tls: bind("admin.https", settings.listen_tls, "--admin-listen-tls")?,
        })
    }
}

/// Whether host names can be made at all, so that nothing later can fail on it.
fn check_names(settings: &Settings) -> Result<(), StartError> {
    for geo in [&settings.geo].into_iter().chain(&settings.more_geos) {
        check_geo(settings.base_domain.as_str(), geo)?;
    }
    Ok(())
}

fn check_geo(base: &str, geo: &str) -> Result<(), StartError> {
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
