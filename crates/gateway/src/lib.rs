//! Role: data plane. Takes traffic, runs plugins, balances over upstreams.

mod balancer;
mod chain;
pub mod conf;
mod configuration;
mod proxy;
mod router;

pub use configuration::{Configuration, Unservable};
