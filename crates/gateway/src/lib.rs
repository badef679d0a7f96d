//! placeholder
pub mod conf;
pub mod config_sync;
pub mod last_known_good;
