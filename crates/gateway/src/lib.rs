//! Role: data plane. Takes traffic, runs plugins, balances over upstreams.

mod api;
mod balancer;
mod certificates;
mod chain;
mod closed;
pub mod conf;
pub mod config_sync;
mod configuration;
mod dns;
mod enabled;
mod entities;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod last_known_good;
mod log_queue;
pub mod logs;
mod proxy;
mod rate_limit;
mod redis;
pub mod router;
mod start;
mod telemetry;
mod vaults;

pub use balancer::{
    AddressHealth, Health, SetHealthError, TargetHealth, UpstreamHealth, Upstreams,
};
pub use configuration::{Configuration, Unservable};
pub use start::{Gateway, StartError};
