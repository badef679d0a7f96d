//! Rate limiting over the network: token buckets that existing limitd clients ask for, on port
//! 9001 (contract entry `rate_limit`).
//!
//! [`bucket`] is the arithmetic, without a clock. [`limits::Limits`] holds all buckets and answers
//! requests from them. [`server`] speaks the protocol on a listener. [`config`] reads limitd's own
//! configuration file, which is followed while it changes.

pub mod bucket;
#[cfg(test)]
mod bucket_tests;
mod cluster;
pub mod config;
mod counts;
pub mod limits;
#[cfg(test)]
mod limits_tests;
mod redis;
pub mod server;
mod snapshot;
mod table;
pub mod types;

pub use cluster::{ALPN, Admits, Members, Peer, Peers, owner_of};
pub use config::{ANSWER_MS, Config, ConfigError};
pub use limits::Limits;
pub use server::{RateLimit, StartError};
