//! `sallyport control`: a control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use sallyport_appliance::backup::{self, Sources};
use sallyport_control::{
    AdminSettings, AuditLogSettings, Contributor, Feed, Settings, TelemetrySettings,
    described_addresses,
};
use sallyport_runtime::Tasks;
use sallyport_runtime::tls::{Identity, Leaf};
use sallyport_wire::config_sync::SHARED_SERVER_NAME;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use crate::administration::{self, Administration};
use crate::home::{self, Home};
use crate::logging::{self, LogTail};
use crate::shutdown::{Hint, Hints, Shutdown};

/// Domain of a control plane that was given none; it resolves to this machine.
pub(crate) const BASE_DOMAIN: &str = "sallyport.localhost";
/// Geo of a control plane that was given none.
pub(crate) const GEO: &str = "us";

/// Requests a second of one token where nothing else is set: more than decK sends.
pub(crate) const REQUESTS_PER_SECOND: u32 = 5_000;

/// A backup that is being written when the control plane stops may end, but not for ever.
const BACKUP_GRACE: Duration = Duration::from_secs(60);

/// Runs a control plane.
///
/// Its state (database, certificates, access token) is made in the data directory at the first
/// start. The API wants the token from the file `token` there. SIGHUP reads the certificate
/// (`server.crt`, `server.key`) anew, without dropping a connection.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for database, certificates and token
    #[arg(
        long,
        value_name = "DIR",
        default_value = "sallyport-data/control",
        env = "SALLYPORT_CONTROL_DATA"
    )]
    data: PathBuf,
    /// PostgreSQL database for the state, instead of a file in the data directory: a URL
    /// postgres://user:password@host:5432/name?sslmode=verify-full (see docs/database.md; the
    /// environment variable keeps the password out of the list of processes)
    #[arg(
        long,
        value_name = "URL",
        env = "SALLYPORT_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
    /// Address for APIs and gateways, over TLS [default: port 443 on all addresses]
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_CONTROL_LISTEN")]
    listen: Option<SocketAddr>,
    /// The API without TLS as well, on this loopback address
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_CONTROL_LISTEN_PLAIN")]
    listen_plain: Option<SocketAddr>,
    /// Domain under which the host names of control planes live
    #[arg(long, value_name = "DOMAIN", default_value = BASE_DOMAIN, env = "SALLYPORT_BASE_DOMAIN")]
    base_domain: String,
    /// Geo of this installation
    #[arg(long, default_value = GEO, env = "SALLYPORT_GEO")]
    geo: String,
    /// A further geo whose gateways are served here as well; may be given several times
    #[arg(
        long,
        value_name = "GEO",
        env = "SALLYPORT_SERVE_GEO",
        value_delimiter = ','
    )]
    serve_geo: Vec<String>,
    /// Certificate of Kong's shared mode (`cluster_mtls = shared`), which the gateways have as well; it
    /// must be pinned to exactly one control plane, and Kong's data planes want the name
    /// kong_clustering in it (`sallyport certs --name kong_clustering`)
    #[arg(
        long,
        value_name = "FILE",
        requires = "cluster_cert_key",
        env = "SALLYPORT_CLUSTER_CERT"
    )]
    cluster_cert: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        requires = "cluster_cert",
        env = "SALLYPORT_CLUSTER_CERT_KEY"
    )]
    cluster_cert_key: Option<PathBuf>,
    /// Addresses to publish at ip-addresses.origin.<base domain> (TOML, see docs/ip_addresses.md)
    #[arg(long, value_name = "FILE", env = "SALLYPORT_IP_ADDRESSES")]
    ip_addresses: Option<PathBuf>,
    /// Seconds after which a gateway that was never heard of again is forgotten
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = sallyport_control::NODE_PURGE_DELAY.as_secs(),
        value_parser = clap::value_parser!(u64).range(60..),
        env = "SALLYPORT_NODE_PURGE_DELAY"
    )]
    node_purge_delay: u64,
    /// Settings of the audit log: what it receives and where it goes (TOML, see docs/audit_log.md)
    #[arg(long, value_name = "FILE", env = "SALLYPORT_AUDIT_LOG")]
    audit_log: Option<PathBuf>,
    /// Settings of telemetry: how long it is kept and where it goes (TOML, see docs/telemetry.md)
    #[arg(long, value_name = "FILE", env = "SALLYPORT_TELEMETRY")]
    telemetry: Option<PathBuf>,
    /// Requests a second that one access token may send, and twice as many at once; 0 is no limit
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = REQUESTS_PER_SECOND,
        env = "SALLYPORT_REQUESTS_PER_SECOND"
    )]
    requests_per_second: u32,
    /// Kong's Admin API without TLS, such as on 127.0.0.1:8001; without a token for callers on this
    /// machine only
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Kong's Admin API over TLS, such as on 127.0.0.1:8444
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_ADMIN_LISTEN_TLS")]
    admin_listen_tls: Option<SocketAddr>,
    /// The control plane that the Admin API is for, by name or id
    #[arg(
        long,
        value_name = "CONTROL_PLANE",
        default_value = "default",
        env = "SALLYPORT_ADMIN_CONTROL_PLANE"
    )]
    admin_control_plane: String,
    /// Backups on a schedule (TOML, see docs/backup.md)
    #[arg(long, value_name = "FILE", env = "SALLYPORT_BACKUP")]
    backup: Option<PathBuf>,
    /// Address on which keys that are allowed may give commands (port 10121, see `sallyport keys`);
    /// closed without it
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_CLI_LISTEN")]
    cli_listen: Option<SocketAddr>,
    #[command(flatten)]
    log: logging::LogArgs,
}

/// What may be administered from other machines, if the port is to be open.
fn administered(
    args: &Args,
    logs: LogTail,
    backups: Option<&backup::Settings>,
) -> anyhow::Result<Option<Administration>> {
    let Some(listen) = args.cli_listen else {
        return Ok(None);
    };
    let files = settings_files(args);
    Ok(Some(Administration {
        listen,
        listen_setting: "--cli-listen",
        role: "control",
        sources: super::backup::sources(&args.data, args.database.as_deref(), &files)?,
        backups: backups.map(|it| (it.to.clone(), it.seal.clone())),
        configuration: files,
        logs,
        more: Vec::new(),
    }))
}

/// The files that the command line names.
fn settings_files(args: &Args) -> Vec<PathBuf> {
    let own = [
        &args.backup,
        &args.audit_log,
        &args.ip_addresses,
        &args.telemetry,
    ];
    own.into_iter().flatten().cloned().collect()
}

/// The backups that are to be made, if there are any.
fn backups(args: &Args) -> anyhow::Result<Option<(Sources, backup::Settings)>> {
    let Some(path) = &args.backup else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the settings of backups {}", path.display()))?;
    let settings = backup::Settings::parse(&text).with_context(|| path.display().to_string())?;
    let files = settings_files(args);
    let sources = super::backup::sources(&args.data, args.database.as_deref(), &files)?;
    Ok(Some((sources, settings)))
}

fn audit_log(args: &Args, home: &Home) -> anyhow::Result<AuditLogSettings> {
    let Some(path) = &args.audit_log else {
        return Ok(AuditLogSettings::quiet(&home.path));
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the audit log's settings {}", path.display()))?;
    AuditLogSettings::parse(&home.path, &text).with_context(|| path.display().to_string())
}

fn telemetry(args: &Args, home: &Home) -> anyhow::Result<TelemetrySettings> {
    let Some(path) = &args.telemetry else {
        return Ok(TelemetrySettings::quiet(&home.path));
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the telemetry settings {}", path.display()))?;
    TelemetrySettings::parse(&home.path, &text).with_context(|| path.display().to_string())
}

fn shared_identity(args: &Args) -> anyhow::Result<Option<Identity>> {
    let (Some(cert), Some(key)) = (&args.cluster_cert, &args.cluster_cert_key) else {
        return Ok(None);
    };
    let identity = Identity::load(&cert.to_string_lossy(), &key.to_string_lossy())
        .with_context(|| format!("--cluster-cert {} cannot be used", cert.display()))?;
    if Leaf::parse(identity.leaf()).is_ok_and(|leaf| !is_for_kong(&leaf)) {
        warn!(
            certificate = %cert.display(),
            "the shared certificate is not for the name {SHARED_SERVER_NAME}, so data planes of Kong \
             refuse it (`sallyport certs --name {SHARED_SERVER_NAME}` makes one)"
        );
    }
    Ok(Some(identity))
}

/// Whether Kong's data planes take it in shared mode: they look for the name they ask for, in the
/// common name only where there are no others.
fn is_for_kong(leaf: &Leaf) -> bool {
    match leaf.names.is_empty() {
        true => leaf.common_name.as_deref() == Some(SHARED_SERVER_NAME),
        false => leaf.names.iter().any(|name| name == SHARED_SERVER_NAME),
    }
}

/// The published list of addresses, if there is one.
async fn feed(args: &Args, home: &Home) -> anyhow::Result<Option<Feed>> {
    let Some(path) = &args.ip_addresses else {
        return Ok(None);
    };
    let sources = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the addresses {}", path.display()))?;
    let contribution = described_addresses(&sources, &args.base_domain);
    let contribution = contribution.with_context(|| path.display().to_string())?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = i64::try_from(now.as_secs())?;
    let feed = Feed::open(
        home.store.clone(),
        Contributor::ControlPlane,
        contribution,
        &args.base_domain,
        &home.path,
        None,
        now,
    );
    Ok(Some(feed.await?))
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let logs = logging::start_with_tail(LevelFilter::INFO, args.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let mut hints = Hints::listen();
        let database = args.database.as_deref();
        let geos: Vec<&str> = [&args.geo]
            .into_iter()
            .chain(&args.serve_geo)
            .map(String::as_str)
            .collect();
        let home = Home::open(&args.data, database, &args.base_domain, &geos).await?;
        let shared_identity = shared_identity(&args)?;
        let reload = {
            let (path, base) = (home.path.clone(), args.base_domain.clone());
            let geos: Vec<String> = geos.iter().map(|geo| (*geo).to_owned()).collect();
            move || {
                let geos: Vec<&str> = geos.iter().map(String::as_str).collect();
                home::identity(&path, &base, &geos)
            }
        };
        let port = sallyport_contract::entry("config_sync").port().get();
        let feed = feed(&args, &home).await?;
        let audit_log = audit_log(&args, &home)?;
        let telemetry = telemetry(&args, &home)?;
        let admin = (args.admin_listen.is_some() || args.admin_listen_tls.is_some()).then_some(
            AdminSettings {
                listen: args.admin_listen,
                listen_tls: args.admin_listen_tls,
                control_plane: args.admin_control_plane.clone(),
            },
        );
        let backups = backups(&args)?;
        let administered = administered(&args, logs, backups.as_ref().map(|(_, it)| it))?;
        let settings = Settings {
            listen: args
                .listen
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], port))),
            listen_setting: "--listen".to_owned(),
            listen_plain: args.listen_plain,
            base_domain: args.base_domain,
            geo: args.geo,
            more_geos: args.serve_geo,
            identity: home.identity.clone(),
            shared_identity,
            issuer: Some(home.issuer.clone()),
            node_purge_delay: Duration::from_secs(args.node_purge_delay),
            audit_log,
            telemetry,
            requests_per_second: args.requests_per_second,
            admin,
        };
        let running = sallyport_control::start_publishing(
            settings,
            home.store.clone(),
            sallyport_plugins::schemas(),
            feed,
        )
        .await?;
        info!(
            control_plane = %home.bootstrap.control_plane.id,
            token_file = %home.path.join("token").display(),
            ca = %home.ca_path().display(),
            "ready"
        );
        let mut tasks = Tasks::new(CancellationToken::new());
        if let Some(it) = administered {
            administration::start(it, &home.path, running.commands(), &mut tasks)?;
        }
        if let Some((sources, settings)) = backups {
            let (status, _) = watch::channel(backup::service::Status::default());
            tasks.spawn("backup", |stop| {
                backup::service::run(sources, settings, status, stop)
            });
        }
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                hint = hints.next() => if hint == Hint::Reload {
                    match reload() {
                        Ok(identity) => {
                            running.exchange(&identity);
                            info!("certificate read anew");
                        }
                        Err(error) => error!(
                            reason = %format_args!("{error:#}"),
                            "not reloaded, everything stays as it was"
                        ),
                    }
                }
            }
        }
        info!("stopping");
        for name in tasks.finish(BACKUP_GRACE).await {
            tracing::warn!(task = name, "did not stop in time");
        }
        running.stop().await;
        home.store.close().await;
        Ok(())
    })
}
