//! The proxies that are compared. A new one is a file here, a name, and a line in `make`.

pub(crate) mod nginx;
pub(crate) mod sallyport;

pub(crate) use sallyport::build;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::workload::Workload;

/// A proxy that can be set up for each workload.
pub(crate) trait Peer {
    /// What the report calls it.
    fn label(&self) -> &str;

    /// Name and version as it states them.
    fn version(&self) -> anyhow::Result<String>;

    /// Writes its configuration for one worker into `plan.dir` and returns the command, program
    /// first, that runs it in the foreground until SIGTERM.
    fn prepare(&self, plan: &Plan<'_>) -> anyhow::Result<Vec<OsString>>;
}

/// What a proxy is to be set up for.
pub(crate) struct Plan<'a> {
    pub(crate) workload: &'a Workload,
    /// An empty directory of this measurement; the proxy runs in it.
    pub(crate) dir: &'a Path,
    /// The port of 127.0.0.1 on which it shall listen, without TLS.
    pub(crate) port: u16,
    /// The port of 127.0.0.1 on which the backend listens.
    pub(crate) backend: u16,
}

/// The name of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// nginx of this system
    Nginx,
    /// nginx that also sends X-Real-IP and the X-Forwarded headers in the workload plain
    NginxForwarded,
    /// This project's gateway
    Sallyport,
}

impl Name {
    /// The proxy of this name. `sallyport` is the executable to use instead of building one.
    pub(crate) fn make(
        self,
        label: String,
        sallyport: Option<&Path>,
    ) -> anyhow::Result<Box<dyn Peer>> {
        Ok(match self {
            Name::Nginx => Box::new(nginx::Nginx {
                label,
                forwarded: false,
            }),
            Name::NginxForwarded => Box::new(nginx::Nginx {
                label,
                forwarded: true,
            }),
            Name::Sallyport => Box::new(sallyport::Sallyport::new(label, sallyport)?),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Nginx => "nginx",
            Name::NginxForwarded => "nginx-forwarded",
            Name::Sallyport => "sallyport",
        })
    }
}
