//! `sallyport rate-limit`: token buckets for limitd clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use sallyport_appliance::rate_limit::{Config, RateLimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing::level_filters::LevelFilter;

use crate::logging;
use crate::shutdown::Shutdown;

/// Runs a rate limiter that existing limitd clients speak to.
///
/// Bucket types come from a file in limitd's format, which is followed while it changes and read
/// again on SIGHUP (see docs/rate_limit.md).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bucket configuration (YAML); files in `<FILE>.d` are added
    #[arg(short, long, value_name = "FILE", env = "SALLYPORT_RATE_LIMIT_CONF")]
    conf: PathBuf,
    /// Address to listen on [default: hostname and port of the file, else port 9001 on all addresses]
    #[arg(long, value_name = "ADDRESS", env = "SALLYPORT_RATE_LIMIT_LISTEN")]
    listen: Option<SocketAddr>,
    /// File in which buckets that take an hour or more to fill outlive a restart
    #[arg(long, value_name = "FILE", env = "SALLYPORT_RATE_LIMIT_SNAPSHOT")]
    snapshot: Option<PathBuf>,
    /// Reads and checks the file, binds nothing
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let config = Config::load(&args.conf, u64::try_from(now.as_millis())?)?;
    logging::start(LevelFilter::INFO);
    if args.check {
        for warning in &config.warnings {
            super::print(&format!("warning: {warning}"))?;
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let mut hangup = signal(SignalKind::hangup()).context("could not listen for SIGHUP")?;
        let (address, setting) = address(&args, &config);
        let mut running = RateLimit::start(config, args.conf, address, &setting, None)?;
        if let Some(path) = args.snapshot {
            let kept = running.keep_in(path.clone());
            kept.with_context(|| format!("the snapshot {} cannot be used", path.display()))?;
        }
        info!(address = %running.address(), "rate limiter started");
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                _ = hangup.recv() => running.reload(),
            }
        }
        info!("stopping");
        running.stop().await;
        Ok(())
    })
}

/// Where to listen, and what changes it.
fn address(args: &Args, config: &Config) -> (SocketAddr, String) {
    if let Some(listen) = args.listen {
        return (listen, "--listen".to_owned());
    }
    let port = sallyport_contract::entry("rate_limit").port().get();
    let host = config.hostname.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(host, config.port.unwrap_or(port));
    let file = args.conf.display();
    (address, format!("--listen, or hostname and port in {file}"))
}
