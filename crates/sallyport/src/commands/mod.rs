//! One file for each command.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod described;
pub(crate) mod doctor;
pub(crate) mod enrol;
pub(crate) mod firewall;
pub(crate) mod gateway;
mod gateway_bootstrap;
pub(crate) mod gateway_conf;
pub(crate) mod keys;
pub(crate) mod maintenance;
pub(crate) mod node;
pub(crate) mod plugins;
pub(crate) mod ports;
pub(crate) mod ports_explain;
pub(crate) mod ports_watch;
pub(crate) mod quickstart;
pub(crate) mod rate_limit;
pub(crate) mod remote;
pub(crate) mod wait;

use std::io::{ErrorKind, Write};

/// Prints a command's answer; a reader that has seen enough is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
