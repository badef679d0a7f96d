//! The appliance cluster: nodes as real processes, each in a network namespace of its own, with a
//! real PostgreSQL behind them.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "cluster/bad_input.rs"]
mod bad_input;
#[path = "cluster/chaos.rs"]
mod chaos;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/gateways.rs"]
mod gateways;
#[path = "cluster/health.rs"]
mod health;
#[path = "cluster/ip_addresses.rs"]
mod ip_addresses;
#[path = "cluster/keys.rs"]
mod keys;
#[path = "cluster/lab.rs"]
mod lab;
#[path = "cluster/life.rs"]
mod life;
#[path = "shared/limitd_client.rs"]
mod limitd_client;
#[path = "cluster/loopback.rs"]
mod loopback;
#[path = "cluster/matrix.rs"]
mod matrix;
#[path = "cluster/rate_limit.rs"]
mod rate_limit;
#[path = "cluster/recovery.rs"]
mod recovery;
#[path = "cluster/single.rs"]
mod single;
