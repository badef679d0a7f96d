//! The proxies that are compared. A new one is a file here, a name, and a line in `make`.

mod haproxy;
pub(crate) mod nginx;
mod nginx_lua;
pub(crate) mod sallyport;

pub(crate) use sallyport::build;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::tls;
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
    /// The port of 127.0.0.1 on which it shall listen.
    pub(crate) port: u16,
    /// The certificate to show, if clients come with TLS.
    pub(crate) tls: Option<tls::Files>,
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
    /// nginx with its Lua module, as gateways of the OpenResty class work
    NginxLua,
    /// HAProxy of this system
    Haproxy,
    /// This project's gateway
    Sallyport,
}

impl Name {
    /// What else must be installed for it: a file that tells, and the Debian package.
    pub(crate) fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Name::NginxLua => Some((nginx_lua::MODULE, "libnginx-mod-http-lua")),
            Name::Haproxy => Some(("/usr/sbin/haproxy", "haproxy")),
            Name::Nginx | Name::NginxForwarded | Name::Sallyport => None,
        }
    }

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
            Name::NginxLua => Box::new(nginx_lua::NginxLua { label }),
            Name::Haproxy => Box::new(haproxy::Haproxy { label }),
            Name::Sallyport => Box::new(sallyport::Sallyport::new(label, sallyport)?),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Nginx => "nginx",
            Name::NginxForwarded => "nginx-forwarded",
            Name::NginxLua => "nginx-lua",
            Name::Haproxy => "haproxy",
            Name::Sallyport => "sallyport",
        })
    }
}
