//! `sallyport quickstart`: everything on this machine, for trying it out.

mod echo;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sallyport_control::{AuditLogSettings, Settings, TelemetrySettings, import};
use sallyport_gateway::conf::{Conf, Material};
use sallyport_gateway::config_sync::LinkState;
use sallyport_gateway::{Gateway, StartError};
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{Identity, leaf_digest};
use sallyport_store::{Actor, NewCertificate, StoreError};
use tracing::level_filters::LevelFilter;

use super::control::{BASE_DOMAIN, GEO, REQUESTS_PER_SECOND};
use crate::home::{self, Home};
use crate::logging;
use crate::shutdown::Shutdown;
use echo::Echo;

const SEED: &str = include_str!("seed.yml");
/// How long the gateway may take until it has its first configuration.
const READY_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the gateway's certificate is valid.
const PAIR_DAYS: u32 = 1095;

/// Starts a control plane, a gateway connected to it, and an echo service, all on loopback.
///
/// Needs no root. State is kept in the data directory; a second start finds it again. Ctrl-C
/// stops everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for all state
    #[arg(long, value_name = "DIR", default_value = "sallyport-data")]
    data: PathBuf,
    /// Port of the control plane's APIs
    #[arg(long, value_name = "PORT", default_value_t = 10_000 + contract_port("config_sync"))]
    control_port: u16,
    /// Port of the gateway for HTTP
    #[arg(long, value_name = "PORT", default_value_t = contract_port("proxy.http"))]
    proxy_port: u16,
    /// Port of the gateway for HTTPS
    #[arg(long, value_name = "PORT", default_value_t = contract_port("proxy.https"))]
    proxy_tls_port: u16,
    /// Port of the gateway's Status API
    #[arg(long, value_name = "PORT", default_value_t = contract_port("status"))]
    status_port: u16,
    /// Port of the echo service
    #[arg(long, value_name = "PORT", default_value_t = contract_port("quickstart.echo"))]
    echo_port: u16,
}

fn contract_port(id: &str) -> u16 {
    sallyport_contract::entry(id).port().get()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    logging::start(LevelFilter::WARN);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(start(args))
}

async fn start(args: &Args) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen();
    progress("echo service");
    let echo = Echo::start(loopback(args.echo_port), "--echo-port")?;
    progress("control plane");
    let home = Home::open(&args.data.join("control"), None, BASE_DOMAIN, &[GEO]).await?;
    seed(&home, args.echo_port).await?;
    let settings = Settings {
        listen: loopback(args.control_port),
        listen_setting: "--control-port".to_owned(),
        listen_plain: None,
        base_domain: BASE_DOMAIN.to_owned(),
        geo: GEO.to_owned(),
        identity: home.identity.clone(),
        node_purge_delay: sallyport_control::NODE_PURGE_DELAY,
        more_geos: Vec::new(),
        shared_identity: None,
        issuer: Some(home.issuer.clone()),
        audit_log: AuditLogSettings::quiet(&home.path),
        telemetry: TelemetrySettings::quiet(&home.path),
        requests_per_second: REQUESTS_PER_SECOND,
        admin: None,
    };
    let plugins = sallyport_plugins::schemas();
    let control = sallyport_control::start(settings, home.store.clone(), plugins).await?;
    progress("gateway");
    let gateway_dir = args.data.join("gateway");
    let conf_file = gateway_conf(args, &gateway_dir, &home).await?;
    let gateway = start_gateway(&conf_file).await?;
    progress("configuration over mTLS");
    let ready = tokio::select! {
        ready = configured(&gateway) => ready.map(|()| true),
        () = shutdown.requested() => Ok(false),
    };
    if matches!(ready, Ok(true)) {
        super::print(&greeting(args, &home))?;
        shutdown.requested().await;
    }
    progress("stopping");
    gateway.stop().await;
    control.stop().await;
    home.store.close().await;
    echo.stop().await;
    ready.map(drop)
}

#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn progress(what: &str) {
    eprintln!("… {what}");
}

/// What a person needs next, short enough to read.
fn greeting(args: &Args, home: &Home) -> String {
    let Args {
        control_port,
        proxy_port,
        proxy_tls_port,
        ..
    } = args;
    let id = home.bootstrap.control_plane.id;
    let token = &home.bootstrap.token;
    let ca = home.ca_path();
    format!(
        "\n\
         Gateway        http://127.0.0.1:{proxy_port}  https://127.0.0.1:{proxy_tls_port}\n\
         Control plane  https://127.0.0.1:{control_port}  (its CA: {ca})\n\
         Access token   {token}\n\n\
         A request through the gateway:\n  \
         curl http://127.0.0.1:{proxy_port}/echo -H 'apikey: quickstart-key'\n\n\
         Its configuration, with decK (then edit kong.yml, and `deck sync` it with the same options):\n  \
         deck dump -o kong.yml --ca-cert \"$(cat '{ca}')\" \\\n    \
         --kong-addr https://127.0.0.1:{control_port}/v2/control-planes/{id}/core-entities \\\n    \
         --headers 'Authorization:Bearer {token}'\n\n\
         Ctrl-C stops everything.",
        ca = ca.display(),
    )
}

/// Gives an empty control plane its first configuration.
async fn seed(home: &Home, echo_port: u16) -> anyhow::Result<()> {
    let cp = home.bootstrap.control_plane.id;
    if home.store.revision(cp).await? > 0 {
        return Ok(());
    }
    let text = SEED.replace("ECHO_PORT", &echo_port.to_string());
    let actor = Actor("quickstart".to_owned());
    import(&home.store, sallyport_plugins::schemas(), cp, &actor, &text)
        .await
        .context("could not store the first configuration")
}

/// Writes the gateway's kong.conf, with a certificate that is pinned to the control plane.
async fn gateway_conf(args: &Args, dir: &Path, home: &Home) -> anyhow::Result<PathBuf> {
    home::make_directory(dir)?;
    let dir = std::fs::canonicalize(dir).context("could not open the gateway's directory")?;
    let pair = home::pair(&dir, "cluster", || {
        data_plane_pair("quickstart-gateway", Curve::default(), PAIR_DAYS)
    })?;
    let identity = Identity::from_pem(&pair.cert, &pair.key)
        .context("cluster.crt and cluster.key cannot be used")?;
    let certificate = NewCertificate {
        digest: leaf_digest(identity.leaf()).0,
        pem: pair.cert,
        title: "quickstart-gateway".to_owned(),
    };
    let control_plane = &home.bootstrap.control_plane;
    let actor = Actor("quickstart".to_owned());
    match home
        .store
        .pin_certificate(control_plane.id, &actor, certificate)
        .await
    {
        Ok(_) | Err(StoreError::UniqueTaken { .. }) => {}
        Err(error) => return Err(error).context("could not pin the gateway's certificate"),
    }
    let text = format!(
        "# Written by quickstart at each start. Run the gateway alone with:\n\
         #   sallyport gateway -c {dir}/kong.conf\n\
         role = data_plane\n\
         database = off\n\
         prefix = {dir}\n\
         proxy_listen = 127.0.0.1:{proxy}, 127.0.0.1:{proxy_tls} http2 ssl\n\
         status_listen = 127.0.0.1:{status}\n\
         admin_listen = off\n\
         cluster_mtls = pki\n\
         cluster_control_plane = 127.0.0.1:{control}\n\
         cluster_server_name = {prefix}.{GEO}.cp0.{BASE_DOMAIN}\n\
         cluster_telemetry_endpoint = 127.0.0.1:{control}\n\
         cluster_telemetry_server_name = {prefix}.{GEO}.tp0.{BASE_DOMAIN}\n\
         cluster_cert = {dir}/cluster.crt\n\
         cluster_cert_key = {dir}/cluster.key\n\
         lua_ssl_trusted_certificate = {ca}\n",
        dir = dir.display(),
        proxy = args.proxy_port,
        proxy_tls = args.proxy_tls_port,
        status = args.status_port,
        control = args.control_port,
        prefix = control_plane.prefix,
        ca = home.ca_path().display(),
    );
    let file = dir.join("kong.conf");
    home::write_public(&file, &text)?;
    Ok(file)
}

async fn start_gateway(conf_file: &Path) -> anyhow::Result<Gateway> {
    let text =
        std::fs::read_to_string(conf_file).context("could not read the gateway's settings")?;
    let installed = super::gateway::installed();
    let (conf, _) = Conf::load(Some(&text), [], &installed)?;
    let material =
        Material::read(&conf).map_err(|bad| anyhow!("{}", super::gateway::lines(&bad)))?;
    Gateway::start(conf, material)
        .await
        .map_err(|error| match error {
            StartError::Listen(mut error) => {
                error.setting = match error.id.as_str() {
                    "proxy.http" => "--proxy-port",
                    "proxy.https" => "--proxy-tls-port",
                    _ => "--status-port",
                }
                .to_owned();
                error.into()
            }
            other => other.into(),
        })
}

/// Waits until the gateway serves what the control plane has.
async fn configured(gateway: &Gateway) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(READY_TIME_MAX, async {
        while gateway.configuration_hash().is_zero() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if waited.await.is_err() {
        match gateway.link() {
            Some(LinkState::Down { reason }) => {
                bail!("the gateway cannot reach its control plane: {reason}")
            }
            _ => bail!(
                "the gateway got no configuration within {} s",
                READY_TIME_MAX.as_secs()
            ),
        }
    }
    Ok(())
}
