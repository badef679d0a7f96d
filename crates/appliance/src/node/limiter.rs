//! The rate limiter of a node, if its settings have one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::database::Fatal;
use super::settings::RateLimitSection;
use crate::rate_limit::{Config, ConfigError, RateLimit, StartError};

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum LimiterError {
    /// Its bucket configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its listener.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Starts it, with the bucket configuration that the section names.
///
/// # Errors
/// See [`LimiterError`].
pub(super) fn start(section: &RateLimitSection) -> Result<RateLimit, LimiterError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |it| it.as_millis());
    let config = Config::load(&section.conf, u64::try_from(now).unwrap_or(0))?;
    let port = sallyport_contract::entry("rate_limit").port().get();
    let host = config.hostname.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = section
        .listen
        .unwrap_or_else(|| SocketAddr::new(host, config.port.unwrap_or(port)));
    let running = RateLimit::start(config, section.conf.clone(), address, "rate_limit.listen")?;
    info!(address = %running.address(), "rate limiter started");
    Ok(running)
}

/// Lets it run until `stop`.
pub(super) async fn keep(running: RateLimit, stop: CancellationToken) -> Result<(), Fatal> {
    stop.cancelled().await;
    running.stop().await;
    Ok(())
}
