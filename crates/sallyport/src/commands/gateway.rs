//! `sallyport gateway`: a data plane, alone or attached to a control plane.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use sallyport_gateway::Gateway;
use sallyport_gateway::conf::{Conf, Declarative, Material, Problem, Warning};
use tracing::{error, info, warn};

use super::gateway_bootstrap;
use crate::logging::{self, ErrorLog};
use crate::shutdown::{Hint, Hints, Shutdown};

/// Where Kong looks for its settings when no file is named.
const DEFAULT_PATHS: [&str; 2] = ["/etc/kong/kong.conf", "/etc/kong.conf"];

/// Runs a gateway (data plane) from a kong.conf.
///
/// Settings come from the file, then from `KONG_*` environment variables. Without
/// `cluster_control_plane` the gateway runs alone from `declarative_config`.
///
/// SIGHUP reads certificates and the declarative file anew and reopens the logs, without dropping
/// a connection; SIGUSR1 only reopens the logs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Settings file [default: /etc/kong/kong.conf, then /etc/kong.conf, if there is one]
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Starts a new gateway from this exported configuration (see docs/last_known_good.md) while its
    /// control plane is away; one that has a configuration already does not look at it
    #[arg(long, value_name = "FILE", requires = "bootstrap_key")]
    bootstrap: Option<PathBuf>,
    /// The key that FILE must be signed with: the published key set of its control plane
    #[arg(long, value_name = "FILE")]
    bootstrap_key: Option<PathBuf>,
    /// Reads and checks everything, binds nothing
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let text = conf_text(args.conf.as_deref())?;
    // a variable that is not Unicode cannot be a setting
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (conf, warnings) = Conf::load(text.as_deref(), environment, &installed())?;
    if args.check {
        logging::start(logging::level_of_kong(conf.log_level));
        warn_of(&warnings);
        return check(&conf);
    }
    let material = read(&conf)?;
    let error_log = ErrorLog::start(&conf)?;
    warn_of(&warnings);
    if let (Some(file), Some(key)) = (&args.bootstrap, &args.bootstrap_key) {
        gateway_bootstrap::run(&conf, file, key)?;
    }
    let ran = serve(conf, material, &error_log);
    error_log.finish();
    ran
}

fn serve(conf: Conf, material: Material, error_log: &ErrorLog) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let mut hints = Hints::listen();
        let gateway = Gateway::start(conf.clone(), material).await?;
        info!(
            proxy = ?gateway.proxy_addresses(), streams = ?gateway.stream_addresses(), status = ?gateway.status_addresses(),
            admin = ?gateway.admin_addresses(), "gateway started"
        );
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                hint = hints.next() => {
                    error_log.reopen();
                    match hint {
                        Hint::Reopen => gateway.reopen_logs(),
                        Hint::Reload => reload(&conf, &gateway),
                    }
                }
            }
        }
        info!("stopping");
        gateway.stop().await;
        Ok(())
    })
}

/// Reads the files that the settings name anew. What is wrong with them is logged, and everything
/// stays as it was.
fn reload(conf: &Conf, gateway: &Gateway) {
    let reloaded = read(conf).and_then(|material| Ok(gateway.reload(&material)?));
    match reloaded {
        Ok(()) => info!("reloaded"),
        Err(error) => {
            gateway.reopen_logs();
            error!(reason = %format_args!("{error:#}"), "not reloaded, everything stays as it was");
        }
    }
}

fn read(conf: &Conf) -> anyhow::Result<Material> {
    Material::read(conf).map_err(|problems| anyhow!("{}", lines(&problems)))
}

/// Everything that is wrong with the files and with the declarative configuration, at once.
fn check(conf: &Conf) -> anyhow::Result<()> {
    let files = read(conf).err().map(|error| error.to_string());
    // what is wrong with this file alone is among the former
    let document = Declarative::read(conf).unwrap_or_default();
    let document = Gateway::check_document(conf, document.as_ref()).err();
    let all: Vec<String> = files
        .into_iter()
        .chain(document.map(|error| error.to_string()))
        .collect();
    match all.is_empty() {
        true => Ok(()),
        false => Err(anyhow!("{}", all.join("\n"))),
    }
}

fn warn_of(warnings: &[Warning]) {
    for warning in warnings {
        warn!(%warning, "kong.conf");
    }
}

/// Names of the plugins of this build.
pub(super) fn installed() -> Vec<&'static str> {
    sallyport_plugins::ALL
        .iter()
        .map(|plugin| plugin.name())
        .collect()
}

/// What is wrong with the files that settings name.
pub(super) fn lines(problems: &[Problem]) -> String {
    let lines: String = problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect();
    format!("files that the settings name cannot be used:{lines}")
}

fn conf_text(named: Option<&Path>) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("could not read the settings file {}", path.display()))
    };
    match named {
        Some(path) => read(path).map(Some),
        None => {
            let found = DEFAULT_PATHS
                .iter()
                .map(Path::new)
                .find(|path| path.exists());
            found.map(read).transpose()
        }
    }
}
