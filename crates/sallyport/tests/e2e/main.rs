//! The built executable, driven from outside over real sockets: every promise of the README and
//! the docs that a user would notice if it broke.
//!
//! Each test has processes, ports and directories of its own, so they run side by side. A wait
//! ends as soon as its condition holds; the slowest one is the pause of 5 to 10 seconds after
//! which a gateway dials its control plane again.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod appliance_cli;
mod audit_log;
mod auth;
mod backup;
mod bad_input;
mod bad_upstream;
mod bodies;
mod certs;
mod config_sync;
mod config_sync_crowd;
mod config_sync_faults;
mod config_sync_hash;
mod config_sync_trust;
mod consumer_groups;
mod control_plane;
mod database;
mod deck;
mod deck_traffic;
mod drafts;
mod forward_proxy;
mod framing;
mod gateway;
mod grpc;
mod http2;
mod http_cache;
mod hybrid_frames;
mod key_auth;
mod lab;
mod last_known_good;
#[path = "../shared/limitd_client.rs"]
mod limitd_client;
mod limits;
mod log_queue;
mod openapi;
mod operations;
mod plugins;
mod ports;
mod power_cut;
mod proxy_protocol;
mod quickstart;
mod rate_limit;
mod rate_limiting;
mod readme;
mod redis;
mod soak;
mod streams;
mod telemetry;
mod tls;
mod tracing;
mod traffic;
mod vaults;
mod websocket;
