//! The bucket configuration file: limitd's own, with sections for TLS and for several nodes.
//!
//! Source: limitd 7.0.2 `conf/config.schema.js`, `conf/parser`. What limitd reads and we do not need
//! (`db`, logging) is accepted and named in a warning.

mod problem;
mod raw;
#[cfg(test)]
mod tests;
mod typed;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use problem::{ConfigError, Problem};

use super::types::BucketType;
use crate::node::Secret;

/// Milliseconds that another node may take to answer; clients are promised an answer in 50.
pub const ANSWER_MS: u32 = 30;

/// One file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is, as errors name it.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port to listen on.
    pub port: Option<u16>,
    /// Address to listen on.
    pub hostname: Option<IpAddr>,
    /// The certificate that clients are shown.
    pub tls: Option<TlsSection>,
    /// The nodes that count together.
    pub cluster: Option<ClusterSection>,
    /// The Redis server that holds the buckets instead of this process.
    pub redis: Option<RedisSection>,
    /// The bucket types.
    pub types: Vec<BucketType>,
    /// What was passed over.
    pub warnings: Vec<Problem>,
}

/// The section `redis`: where buckets are instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSection {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User to log in as; only with a password.
    pub username: Option<String>,
    /// Password to log in with.
    pub password: Option<Secret>,
    /// Number of the database.
    pub database: u32,
    /// Path of the authority of its certificate; without it the connection is not encrypted.
    pub ca: Option<PathBuf>,
    /// How long it may take to answer, before `when_unreachable` does.
    pub answer_within: Duration,
}

/// The section `tls`: TLS for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSection {
    /// Path of the certificate, PEM, leaf first.
    pub certificate: PathBuf,
    /// Path of its key.
    pub key: PathBuf,
    /// Whether clients without TLS are sent away.
    pub required: bool,
}

/// The section `cluster`: the nodes among which keys are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSection {
    /// This node's name.
    pub node: String,
    /// Address (`host:port`) of each node by name, also of this one.
    pub nodes: BTreeMap<String, String>,
    /// Milliseconds that another node may take to answer, before `when_unreachable` does.
    pub answer_ms: u32,
    /// Path of the authority that issues nodes' certificates.
    pub ca: PathBuf,
    /// Path of this node's certificate; it has to bear the node's name.
    pub certificate: PathBuf,
    /// Path of its key.
    pub key: PathBuf,
}

impl Config {
    /// Reads the file at `path` and those of the directory `<path>.d`, by name.
    ///
    /// # Errors
    /// A file cannot be read, or has problems; all of them are listed.
    pub fn load(path: &Path, unix_ms: u64) -> Result<Config, ConfigError> {
        Config::parse(&read(path)?, unix_ms)
    }

    /// Understands the texts of [`read`]. Bucket types of later ones replace those of the same name,
    /// everything else is taken from the first. An override whose time is over at `unix_ms` is
    /// left out.
    ///
    /// # Errors
    /// All problems, with file and line.
    pub fn parse(sources: &[Source], unix_ms: u64) -> Result<Config, ConfigError> {
        typed::config(sources, unix_ms)
    }
}

/// The texts that make up a configuration: the file at `path`, then the `.yml` and `.yaml` files
/// of the directory `<path>.d` by name, if there is one.
///
/// # Errors
/// Something cannot be read.
pub fn read(path: &Path) -> Result<Vec<Source>, ConfigError> {
    let text = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        Ok::<_, ConfigError>(Source { path, text })
    };
    let mut sources = vec![text(path)?];
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let failed = |source| ConfigError::Read {
        path: directory.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(sources),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        sources.push(text(&path)?);
    }
    Ok(sources)
}
