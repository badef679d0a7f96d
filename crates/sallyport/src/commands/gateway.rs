//! `sallyport gateway`: a data plane, alone or attached to a control plane.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use sallyport_gateway::Gateway;
use sallyport_gateway::conf::{Conf, Material, Problem};
use tracing::{info, warn};

use crate::logging;
use crate::shutdown::Shutdown;

/// Where Kong looks for its settings when no file is named.
const DEFAULT_PATHS: [&str; 2] = ["/etc/kong/kong.conf", "/etc/kong.conf"];

/// Runs a gateway (data plane) from a kong.conf.
///
/// Settings come from the file, then from `KONG_*` environment variables. Without
/// `cluster_control_plane` the gateway runs alone from `declarative_config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Settings file [default: /etc/kong/kong.conf, then /etc/kong.conf, if there is one]
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
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
    let material = Material::read(&conf).map_err(|problems| anyhow!("{}", lines(&problems)))?;
    logging::start(logging::level_of_kong(conf.log_level));
    for warning in warnings {
        warn!(%warning, "kong.conf");
    }
    if args.check {
        return Gateway::check(&conf, &material).map_err(Into::into);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let gateway = Gateway::start(conf, material).await?;
        info!(proxy = ?gateway.proxy_addresses(), status = ?gateway.status_addresses(), "gateway started");
        shutdown.requested().await;
        info!("stopping");
        gateway.stop().await;
        Ok(())
    })
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
