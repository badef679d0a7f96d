//! The bytes on each port: one codec module per slug.
//!
//! Everything here is a pure function of its arguments: no socket, file, clock, randomness or
//! async runtime. Bytes that come from outside may be anything; they decode to a value or to an
//! error that says what was wrong, and never panic.

pub mod appliance_cli;
pub mod audit_log;
pub mod config_hash;
pub mod config_sync;
pub mod node_control;
pub mod opentelemetry;
pub mod protobuf;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod redis;
pub mod telemetry;

pub use config_hash::{ConfigHash, Hashes, hashes};
