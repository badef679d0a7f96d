//! placeholder
pub mod conf;
