//! One file for each command.

pub(crate) mod described;
pub(crate) mod doctor;
pub(crate) mod firewall;
pub(crate) mod gateway;
pub(crate) mod ports_explain;

/// What can be done with the network contract.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Ports {
    Explain(ports_explain::Args),
}

impl Ports {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Ports::Explain(args) => ports_explain::run(args),
        }
    }
}
