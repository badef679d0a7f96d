//! Role: data plane. Takes traffic, runs plugins, balances over upstreams.

mod balancer;
mod chain;
pub mod conf;
pub mod config_sync;
mod configuration;
mod dns;
mod enabled;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod last_known_good;
mod proxy;
mod redis;
pub mod router;
mod start;
mod status;

pub use balancer::{
    AddressHealth, Health, SetHealthError, TargetHealth, UpstreamHealth, Upstreams,
};
pub use configuration::{Configuration, Unservable};
pub use start::{Gateway, StartError};
