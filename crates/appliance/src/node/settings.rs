//! The settings of a node: one TOML file with a section for each slug.
//!
//! A key that nobody knows is refused with file, line and the nearest known one, so that a
//! misspelt setting never goes unheard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sallyport_contract::Net;
use sallyport_store::NodeRole;
use serde::Deserialize;

use crate::backup;
use crate::rate_limit::ANSWER_MS;

/// What a node is told by its file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it came from, for messages.
    pub file: PathBuf,
    /// `[node] name`: unique in the cluster; the host name by default.
    pub name: String,
    /// `[node] role`.
    pub role: NodeRole,
    /// `[node] data`: directory of everything that this node keeps.
    pub data: PathBuf,
    /// `[database]`; `None` is a file in the data directory, for a single node.
    pub database: Option<Database>,
    /// `[node_control]`.
    pub node_control: NodeControl,
    /// `[healthcheck]`; `None` opens nothing.
    pub healthcheck: Option<Healthcheck>,
    /// `[control_planes]`.
    pub control_planes: ControlPlane,
    /// `[rate_limit]`; `None` runs none.
    pub rate_limit: Option<RateLimitSection>,
    /// `[appliance_cli] listen`; `None` opens nothing.
    pub appliance_cli: Option<SocketAddr>,
    /// `[backup]`; `None` makes none by itself.
    pub backup: Option<backup::Settings>,
}

/// `[database]`: what the nodes share.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// `postgres://…`, with several hosts if there are.
    pub url: String,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database(***)") // the URL has a password
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// `[node_control]`: how the nodes reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeControl {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// What the others dial; the address of the listener if that is a single one.
    pub advertise: Option<SocketAddr>,
}

/// `[healthcheck]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// Password of the user `api_keys_health`; without it `/testall` is all that answers.
    pub key: Option<Secret>,
    /// Certificate and key (PEM) for TLS on the same port, which plain HTTP shares.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Directories whose file systems must have room; the data directory is always among them.
    pub volumes: Vec<PathBuf>,
    /// URL of which a HEAD request proves the way to the internet.
    pub internet: Option<String>,
    /// Mail relay, `host:port`.
    pub smtp: Option<(String, u16)>,
}

/// `[control_planes]`: the APIs of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// Address of the TLS listener.
    pub listen: SocketAddr,
    /// Domain below which host names live.
    pub base_domain: String,
    /// Geo of this installation.
    pub geo: String,
    /// Further geos whose gateways are served here as well.
    pub more_geos: Vec<String>,
    /// Certificate and key of Kong's shared mode, if gateways use it (see docs/trust.md).
    pub cluster_cert: Option<(PathBuf, PathBuf)>,
    /// Settings of the audit log.
    pub audit_log: Option<PathBuf>,
    /// Settings of telemetry (see docs/telemetry.md).
    pub telemetry: Option<PathBuf>,
    /// Addresses to publish beside those of the nodes (see docs/ip_addresses.md).
    pub ip_addresses: Option<PathBuf>,
    /// Addresses under which clients reach this node, for the published list; `None` takes the
    /// listener's, or the one of [`NodeControl`].
    pub ingress: Option<Vec<Net>>,
    /// Addresses from which this node connects to others; `None` as there.
    pub egress: Option<Vec<Net>>,
}

/// `[rate_limit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitSection {
    /// Bucket configuration.
    pub conf: PathBuf,
    /// Address of the listener, unless the bucket configuration says it.
    pub listen: Option<SocketAddr>,
    /// What other nodes dial; the listener's address, or that of `node_control` if it listens
    /// everywhere.
    pub advertise: Option<SocketAddr>,
    /// How long another node may take to answer, in milliseconds.
    pub answer_ms: u32,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("could not read the settings {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}:{line}: {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what may be meant.
        what: String,
    },
    /// A value that cannot be used.
    #[error("{path}: {key}: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// `section.key`.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// The file as it stands, section by section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    node: RawNode,
    database: RawDatabase,
    node_control: RawNodeControl,
    healthcheck: Option<RawHealthcheck>,
    control_planes: RawControlPlanes,
    rate_limit: Option<RawRateLimit>,
    appliance_cli: Option<RawApplianceCli>,
    backup: Option<backup::RawSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawApplianceCli {
    listen: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNode {
    name: Option<String>,
    role: Option<String>,
    data: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDatabase {
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNodeControl {
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHealthcheck {
    listen: Option<SocketAddr>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    certificate_key: Option<PathBuf>,
    volumes: Vec<PathBuf>,
    internet: Option<String>,
    smtp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawControlPlanes {
    listen: Option<SocketAddr>,
    base_domain: Option<String>,
    geo: Option<String>,
    more_geos: Vec<String>,
    cluster_cert: Option<PathBuf>,
    cluster_cert_key: Option<PathBuf>,
    audit_log: Option<PathBuf>,
    telemetry: Option<PathBuf>,
    ip_addresses: Option<PathBuf>,
    ingress: Option<Vec<Net>>,
    egress: Option<Vec<Net>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRateLimit {
    conf: PathBuf,
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
    answer_ms: Option<u32>,
}

impl RawRateLimit {
    fn typed(
        self,
        beside: &impl Fn(PathBuf) -> PathBuf,
    ) -> Result<RateLimitSection, (&'static str, String)> {
        if let Some(address) = self.advertise
            && (address.ip().is_unspecified() || address.port() == 0)
        {
            let what = format!("{address} is no address that other nodes could dial");
            return Err(("rate_limit.advertise", what));
        }
        let answer_ms = self.answer_ms.unwrap_or(ANSWER_MS);
        if !(1..=10_000).contains(&answer_ms) {
            let what = format!("it is {answer_ms}, it has to be 1 to 10000");
            return Err(("rate_limit.answer_ms", what));
        }
        Ok(RateLimitSection {
            conf: beside(self.conf),
            listen: self.listen,
            advertise: self.advertise,
            answer_ms,
        })
    }
}

impl Settings {
    /// Reads the file. `hostname` is the name of a node that was given none.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(path: &Path, hostname: &str) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Settings::parse(path, &text, hostname)
    }

    /// As [`Settings::load`], of a text that is at hand. Paths in it are relative to the file's
    /// directory.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn parse(path: &Path, text: &str, hostname: &str) -> Result<Settings, SettingsError> {
        let raw: Raw = toml::from_str(text).map_err(|error| SettingsError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            what: explained(error.message()),
        })?;
        let bad = |key, what: String| SettingsError::Value {
            path: path.to_owned(),
            key,
            what,
        };
        let beside = |file: PathBuf| match path.parent() {
            Some(parent) => parent.join(file),
            None => file,
        };
        let name = raw.node.name.unwrap_or_else(|| hostname.to_owned());
        check_name(&name).map_err(|what| bad("node.name", what))?;
        let role = match raw.node.role {
            None => NodeRole::Data,
            Some(word) => word
                .parse()
                .map_err(|error| bad("node.role", format!("{error}")))?,
        };
        let database = raw.database.url.map(|url| Database { url });
        let advertise = raw.node_control.advertise;
        if let Some(address) = advertise
            && (address.ip().is_unspecified() || address.port() == 0)
        {
            let what = format!("{address} is no address that other nodes could dial");
            return Err(bad("node_control.advertise", what));
        }
        let healthcheck = match raw.healthcheck {
            None => None,
            Some(raw) => {
                let key = match (raw.key, raw.key_file) {
                    (Some(_), Some(_)) => {
                        let what = "give key or key_file, not both".to_owned();
                        return Err(bad("healthcheck.key", what));
                    }
                    (Some(key), None) => Some(key),
                    (None, Some(file)) => {
                        let file = beside(file);
                        let read = std::fs::read_to_string(&file).map_err(|error| {
                            bad(
                                "healthcheck.key_file",
                                format!("{}: {error}", file.display()),
                            )
                        })?;
                        Some(read.trim().to_owned())
                    }
                    (None, None) => None,
                };
                if key.as_ref().is_some_and(|key| key.len() < 16) {
                    let what = "a key has at least 16 characters".to_owned();
                    return Err(bad("healthcheck.key", what));
                }
                let tls = match (raw.certificate, raw.certificate_key) {
                    (None, None) => None,
                    (Some(certificate), Some(key)) => Some((beside(certificate), beside(key))),
                    (Some(_), None) => {
                        let what = "it needs healthcheck.certificate_key beside it".to_owned();
                        return Err(bad("healthcheck.certificate", what));
                    }
                    (None, Some(_)) => {
                        let what = "it needs healthcheck.certificate beside it".to_owned();
                        return Err(bad("healthcheck.certificate_key", what));
                    }
                };
                let smtp = match raw.smtp {
                    None => None,
                    Some(text) => Some(host_port(&text).ok_or_else(|| {
                        bad("healthcheck.smtp", format!("{text:?} is not host:port"))
                    })?),
                };
                if let Some(url) = &raw.internet
                    && !(url.starts_with("https://") || url.starts_with("http://"))
                {
                    let what = format!("{url:?} is no http or https URL");
                    return Err(bad("healthcheck.internet", what));
                }
                Some(Healthcheck {
                    listen: raw.listen.unwrap_or_else(|| everywhere("healthcheck")),
                    key: key.map(Secret),
                    tls,
                    volumes: raw.volumes.into_iter().map(beside).collect(),
                    internet: raw.internet,
                    smtp,
                })
            }
        };
        let planes = raw.control_planes;
        let cluster_cert = match (planes.cluster_cert, planes.cluster_cert_key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((beside(cert), beside(key))),
            (Some(_), None) => {
                let what = "it needs control_planes.cluster_cert_key beside it".to_owned();
                return Err(bad("control_planes.cluster_cert", what));
            }
            (None, Some(_)) => {
                let what = "it needs control_planes.cluster_cert beside it".to_owned();
                return Err(bad("control_planes.cluster_cert_key", what));
            }
        };
        let backup = match raw.backup {
            None => None,
            Some(raw) => {
                let read = backup::Settings::try_from(raw.beside(&beside));
                Some(read.map_err(|error| bad("backup", error.to_string()))?)
            }
        };
        let rate_limit = match raw.rate_limit {
            None => None,
            Some(raw) => Some(raw.typed(&beside).map_err(|(key, what)| bad(key, what))?),
        };
        Ok(Settings {
            file: path.to_owned(),
            name,
            role,
            data: beside(raw.node.data.unwrap_or_else(|| PathBuf::from("data"))),
            database,
            node_control: NodeControl {
                listen: raw
                    .node_control
                    .listen
                    .unwrap_or_else(|| everywhere("node_control")),
                advertise,
            },
            healthcheck,
            control_planes: ControlPlane {
                listen: planes.listen.unwrap_or_else(|| everywhere("config_sync")),
                base_domain: planes
                    .base_domain
                    .unwrap_or_else(|| "sallyport.localhost".to_owned()),
                geo: planes.geo.unwrap_or_else(|| "us".to_owned()),
                more_geos: planes.more_geos,
                cluster_cert,
                audit_log: planes.audit_log.map(beside),
                telemetry: planes.telemetry.map(beside),
                ip_addresses: planes.ip_addresses.map(beside),
                ingress: planes.ingress,
                egress: planes.egress,
            },
            rate_limit,
            appliance_cli: raw
                .appliance_cli
                .map(|raw| raw.listen.unwrap_or_else(|| everywhere("appliance_cli"))),
            backup,
        })
    }

    /// Addresses of this node for the published list: those to which connections go, and those
    /// from which it connects. By default the one that its control plane or its listener for nodes
    /// is on, if that is a single one that others can dial; else none.
    pub fn published(&self) -> (Vec<Net>, Vec<Net>) {
        let listens = [
            Some(self.control_planes.listen),
            self.node_control.advertise,
            Some(self.node_control.listen),
        ];
        let single = |it: &IpAddr| !it.is_unspecified() && !it.is_loopback();
        let listens = listens.into_iter().flatten().map(|it| it.ip());
        let own: Vec<Net> = listens.filter(single).map(Net::from).take(1).collect();
        let planes = &self.control_planes;
        let or_own = |told: &Option<Vec<Net>>| told.clone().unwrap_or_else(|| own.clone());
        (or_own(&planes.ingress), or_own(&planes.egress))
    }

    /// What the other nodes dial: `node_control.advertise`, or the listener's address.
    ///
    /// # Errors
    /// The listener is on every address, so one of them has to be named.
    pub fn advertised(&self) -> Result<SocketAddr, SettingsError> {
        let listen = self.node_control.listen;
        match self.node_control.advertise {
            Some(address) => Ok(address),
            None if !listen.ip().is_unspecified() => Ok(listen),
            None => Err(SettingsError::Value {
                path: self.file.clone(),
                key: "node_control.advertise",
                what: format!(
                    "name the address by which the other nodes reach this one, such as \
                     advertise = \"192.0.2.11:{}\"",
                    listen.port()
                ),
            }),
        }
    }
}

/// The canonical port of a contract entry, on every address.
fn everywhere(id: &str) -> SocketAddr {
    let port = sallyport_contract::entry(id).port().get();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// A name that can be a label of a host name, so that it fits into certificates, metrics and URLs.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = sallyport_contract::is_label(name) && name.bytes().all(plain);
    fits.then_some(()).ok_or_else(|| {
        format!(
            "{name:?} is no name for a node: lower-case letters, digits and hyphens, at most 63, \
             such as \"a0-1\""
        )
    })
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// The parser's message; an unknown key comes with the nearest of those that it lists.
fn explained(message: &str) -> String {
    let message = message.trim_end();
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.to_owned();
    };
    let mut words = rest.split('`');
    let key = words.next().unwrap_or_default();
    let known: Vec<&str> = words.skip(1).step_by(2).collect();
    let nearest = known
        .iter()
        .map(|word| (edits(key, word), *word))
        .min()
        .filter(|(steps, _)| *steps <= 2 + key.len() / 4);
    match nearest {
        Some((_, word)) => format!("unknown key {key:?}; did you mean {word:?}?"),
        None => format!("unknown key {key:?}; known here: {}", known.join(", ")),
    }
}

/// Levenshtein distance, by bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
