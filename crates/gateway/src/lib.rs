//! Role: data plane. Takes traffic, runs plugins, balances over upstreams.

mod balancer;
mod chain;
pub mod conf;
mod configuration;
mod follow;
mod proxy;
mod router;
mod start;
mod status;

pub use configuration::{Configuration, Unservable};
pub use start::{Gateway, StartError};
