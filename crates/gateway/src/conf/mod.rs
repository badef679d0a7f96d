//! `kong.conf` and `KONG_*`: what this gateway was told to do.
//!
//! Everything is read once, at start, and every problem is listed before anything is bound:
//! [`Conf::load`] judges the settings themselves, [`Material::read`] the files they name.
//! Precedence: environment, then file, then Kong's defaults. Properties that Kong knows and this
//! build does not act on are warned about; those whose absence would be dangerous are problems.

mod checks;
mod cluster;
mod dns;
mod file;
pub mod listener;
mod material;
mod names;
mod proxy;
mod rate_limit;
mod reader;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod tracing;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use sallyport_plugins::Tracing;
use sallyport_runtime::NoProxy;
use sallyport_runtime::tls::Offer;
use sallyport_wire::config_sync::edits::{KNOWS, KNOWS_GROUPS};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use cluster::{Cluster, ControlPlaneAddr, Mtls, Proxy, Telemetry};
pub use dns::{Dns, RecordKind};
pub use listener::{ListenHost, Listener, ListenerError};
pub use material::{ClusterMaterial, Declarative, Material};
pub use proxy::{
    ClientLimits, ErrorType, HeadersAdded, LogLevel, LogTarget, RealIp, UpstreamKeepalive,
};
pub use rate_limit::RateLimit;
pub use sallyport_model::RouterFlavor;
pub use settings::{Problem, Source, Warning};

use crate::vaults::Vaults;
use reader::Reader;
use settings::Settings;

/// What the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Alone, configured by a declarative file (`role=traditional`, `database=off`).
    Traditional,
    /// Configured by a control plane (`role=data_plane`).
    DataPlane,
}

/// A certificate setting and its key setting: path, PEM text, or base64 of PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateSetting {
    /// The certificate (chain).
    pub certificate: String,
    /// The private key; never printed.
    pub key: String,
}

impl fmt::Debug for CertificateSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSetting").finish_non_exhaustive()
    }
}

/// Where the declarative configuration is.
#[derive(Clone, PartialEq, Eq)]
pub enum DeclarativeSetting {
    /// A file (`declarative_config`).
    Path(PathBuf),
    /// The text itself (`declarative_config_string`); it may hold secrets.
    Text(String),
}

impl fmt::Debug for DeclarativeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeclarativeSetting::Path(path) => write!(f, "Path({})", path.display()),
            DeclarativeSetting::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// The settings of a gateway, judged and typed. Field names are Kong's where there is one.
#[derive(Clone, Debug)]
pub struct Conf {
    /// What the gateway is.
    pub role: Role,
    /// Working directory; relative paths of other settings start here.
    pub prefix: PathBuf,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Where requests are logged.
    pub proxy_access_log: LogTarget,
    /// Where sessions of streams are logged.
    pub proxy_stream_access_log: LogTarget,
    /// Where everything else is logged.
    pub proxy_error_log: LogTarget,
    /// Where requests to the Admin API are logged.
    pub admin_access_log: LogTarget,
    /// Where requests to the Status API are logged.
    pub status_access_log: LogTarget,
    /// Names of the plugins that may be configured, each of them in this build.
    pub plugins: Vec<String>,
    /// The public port of a listener port, where they differ: listener port → public port.
    pub port_maps: BTreeMap<u16, u16>,
    /// The node's id, if it was fixed.
    pub node_id: Option<Uuid>,
    /// The control plane; always there if `role` is `DataPlane`.
    pub cluster: Option<Cluster>,
    /// The declarative configuration to start with.
    pub declarative: Option<DeclarativeSetting>,
    /// Listeners for traffic.
    pub proxy_listen: Vec<Listener>,
    /// Listeners for streams.
    pub stream_listen: Vec<Listener>,
    /// Listeners of the Status API.
    pub status_listen: Vec<Listener>,
    /// Listeners of the Admin API.
    pub admin_listen: Vec<Listener>,
    /// Certificates of the traffic listeners (several: RSA and ECDSA); none: one is generated.
    pub ssl_cert: Vec<CertificateSetting>,
    /// Certificates of the Status API listeners.
    pub status_ssl_cert: Vec<CertificateSetting>,
    /// Certificates of the Admin API listeners.
    pub admin_ssl_cert: Vec<CertificateSetting>,
    /// What listeners offer beside certificates (`ssl_cipher_suite`, `ssl_session_*`, …).
    pub offer: Offer,
    /// What upstreams are shown that ask for a certificate (`client_ssl`).
    pub client_ssl: Option<CertificateSetting>,
    /// Whether upstreams are verified where a service says nothing
    /// (`nginx_proxy_proxy_ssl_verify`), and the longest chain.
    pub upstream_verify: (bool, Option<u8>),
    /// Trusted authorities: `system`, paths or PEM texts.
    pub lua_ssl_trusted_certificate: Vec<String>,
    /// Response headers the gateway adds.
    pub headers: HeadersAdded,
    /// Whether upstreams get `X-Kong-Request-Id`.
    pub headers_upstream_request_id: bool,
    /// Whose word about the client's address is taken.
    pub real_ip: RealIp,
    /// Idle connections to upstreams.
    pub upstream_keepalive: UpstreamKeepalive,
    /// How names are resolved.
    pub dns: Dns,
    /// Largest request body in bytes; `None`: no limit.
    pub client_max_body_size: Option<u64>,
    /// What one client connection may take.
    pub client_limits: ClientLimits,
    /// Most bytes of responses that `proxy-cache` keeps.
    pub mem_cache_size: u64,
    /// How routes are matched.
    pub router_flavor: RouterFlavor,
    /// Content type of error bodies for clients that accept anything.
    pub error_default_type: ErrorType,
    /// Threads that serve traffic; `None`: one per core.
    pub workers: Option<usize>,
    /// The Kong version this node claims to be (`sallyport_kong_version`).
    pub kong_version: String,
    /// What `{vault://…}` in configurations stands for.
    pub vaults: Vaults,
    /// What of a request becomes a span, and how many traces are kept.
    pub tracing: Tracing,
    /// Where the syslog daemon of the machine listens (`sallyport_syslog_socket`).
    pub syslog_socket: PathBuf,
    /// The nodes that count rate limits (`sallyport_rate_limit*`).
    pub rate_limit: RateLimit,
    sources: BTreeMap<String, Source>,
}

/// The settings cannot be used.
#[derive(Debug)]
pub struct ConfError {
    /// Everything that is wrong; at least one.
    pub problems: Vec<Problem>,
    /// What else an operator should know; may explain a problem.
    pub warnings: Vec<Warning>,
}

impl std::error::Error for ConfError {}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(
            f,
            "the configuration has {count} problem{}",
            if count == 1 { "" } else { "s" }
        )?;
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))?;
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "\n  note: {warning}"))
    }
}

impl Conf {
    /// Reads settings from the text of a `kong.conf` (if there is one) and environment variables
    /// (those that do not start with `KONG_` matter only to `{vault://env/…}`; `NO_PROXY` says what
    /// is dialled without `proxy_server`).
    ///
    /// `installed` names the plugins of this build: what `plugins = bundled` stands for.
    ///
    /// # Errors
    /// Every problem, each with key, value and place.
    pub fn load(
        file_text: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
        installed: &[&str],
    ) -> Result<(Conf, Vec<Warning>), ConfError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let no_proxy = ["NO_PROXY", "no_proxy"]
            .iter()
            .find_map(|name| environment.get(*name))
            .map_or_else(NoProxy::default, |list| NoProxy::parse(list));
        let mut reader = Reader {
            settings: Settings::merge(file_text, &environment),
        };
        let mut conf = Conf::read(&mut reader, installed);
        conf.vaults = vaults(&mut reader, environment);
        if let Some(cluster) = &mut conf.cluster
            && no_proxy.has(&cluster.control_plane.host)
        {
            cluster.proxy = None;
        }
        checks::check(&conf, &mut reader);
        let Settings {
            problems, warnings, ..
        } = reader.settings;
        if problems.is_empty() {
            Ok((conf, warnings))
        } else {
            Err(ConfError { problems, warnings })
        }
    }

    fn read(reader: &mut Reader, installed: &[&str]) -> Conf {
        let role = reader.choice(
            "role",
            &[
                ("traditional", Some(Role::Traditional)),
                ("data_plane", Some(Role::DataPlane)),
                ("control_plane", None),
            ],
        );
        if role.is_none() {
            reader.problem(
                "role",
                "this is the gateway; run the control plane by its own command",
            );
        }
        let role = role.unwrap_or(Role::Traditional);
        let prefix = PathBuf::from(reader.text("prefix").unwrap_or_default());
        if !prefix.is_absolute() {
            reader.problem("prefix", "must be an absolute path");
        }
        Conf {
            role,
            log_level: proxy::log_level(reader),
            proxy_access_log: proxy::log_target(reader, "proxy_access_log", &prefix),
            proxy_stream_access_log: proxy::log_target(reader, "proxy_stream_access_log", &prefix),
            proxy_error_log: proxy::log_target(reader, "proxy_error_log", &prefix),
            admin_access_log: proxy::log_target(reader, "admin_access_log", &prefix),
            status_access_log: proxy::log_target(reader, "status_access_log", &prefix),
            plugins: plugins(reader, installed),
            port_maps: proxy::port_maps(reader),
            node_id: node_id(reader),
            cluster: cluster::read(reader, role),
            declarative: declarative(reader),
            proxy_listen: proxy::listeners(reader, "proxy_listen"),
            stream_listen: proxy::stream_listeners(reader),
            status_listen: proxy::listeners(reader, "status_listen"),
            admin_listen: proxy::listeners(reader, "admin_listen"),
            ssl_cert: proxy::certificates(reader, "ssl_cert", "ssl_cert_key"),
            status_ssl_cert: proxy::certificates(reader, "status_ssl_cert", "status_ssl_cert_key"),
            admin_ssl_cert: proxy::certificates(reader, "admin_ssl_cert", "admin_ssl_cert_key"),
            offer: tls::offer(reader),
            client_ssl: tls::client(reader),
            upstream_verify: tls::verify(reader),
            lua_ssl_trusted_certificate: reader.list("lua_ssl_trusted_certificate"),
            headers: proxy::headers(reader),
            headers_upstream_request_id: proxy::headers_upstream(reader),
            real_ip: proxy::real_ip(reader),
            upstream_keepalive: proxy::upstream_keepalive(reader),
            dns: dns::dns(reader),
            client_max_body_size: Some(reader.bytes("nginx_http_client_max_body_size"))
                .filter(|bytes| *bytes > 0),
            client_limits: proxy::client_limits(reader),
            mem_cache_size: reader.bytes("mem_cache_size"),
            router_flavor: proxy::router_flavor(reader),
            error_default_type: proxy::error_default_type(reader),
            workers: proxy::workers(reader),
            kong_version: kong_version(reader),
            vaults: Vaults::default(),
            tracing: tracing::tracing(reader),
            syslog_socket: PathBuf::from(
                reader.text("sallyport_syslog_socket").unwrap_or_default(),
            ),
            rate_limit: rate_limit::rate_limit(reader),
            sources: reader.settings.sources(),
            prefix,
        }
    }

    /// Where the value of a property comes from.
    pub fn source_of(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// What the node tells a control plane about its settings (`process_conf`); no secrets.
    pub fn process_conf(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let role = match self.role {
            Role::Traditional => "traditional",
            Role::DataPlane => "data_plane",
        };
        fields.insert("role".to_owned(), json!(role));
        fields.insert("database".to_owned(), json!("off"));
        fields.insert(
            "router_flavor".to_owned(),
            json!(self.router_flavor.as_str()),
        );
        fields.insert("plugins".to_owned(), json!(self.plugins));
        fields.insert(KNOWS.to_owned(), json!([KNOWS_GROUPS]));
        if let Some(cluster) = &self.cluster {
            fields.insert("cluster_max_payload".to_owned(), json!(cluster.max_payload));
            fields.insert("cluster_mtls".to_owned(), json!(cluster.mtls.as_str()));
        }
        fields
    }
}

fn plugins(reader: &mut Reader, installed: &[&str]) -> Vec<String> {
    let mut plugins: Vec<String> = Vec::new();
    for name in reader.list("plugins") {
        match name.as_str() {
            "off" => {}
            "bundled" => plugins.extend(installed.iter().map(|name| (*name).to_owned())),
            known if installed.contains(&known) => plugins.push(name),
            _ => {
                let message = match sallyport_plugins::absent(&name) {
                    Some(reason) => format!("plugin {name:?} is not in this build: {reason}"),
                    None => format!(
                        "plugin {name:?} is not in this build; it has {}",
                        installed.join(", ")
                    ),
                };
                reader.problem("plugins", message);
            }
        }
    }
    plugins.sort_unstable();
    plugins.dedup();
    plugins
}

fn vaults(reader: &mut Reader, environment: BTreeMap<String, String>) -> Vaults {
    let prefix = reader.text("vault_env_prefix").unwrap_or_default();
    let directory = PathBuf::from(reader.text("vault_file_prefix").unwrap_or_default());
    if !directory.is_absolute() {
        reader.problem("vault_file_prefix", "must be an absolute path");
    }
    Vaults::new(environment, prefix, directory)
}

fn node_id(reader: &mut Reader) -> Option<Uuid> {
    let id = reader.text("node_id")?.parse().ok();
    if id.is_none() {
        reader.problem("node_id", "must be a UUID");
    }
    id
}

/// A relative path starts at the working directory of the process, as in Kong.
fn declarative(reader: &mut Reader) -> Option<DeclarativeSetting> {
    let path = reader.text("declarative_config");
    let text = reader.text("declarative_config_string");
    if path.is_some() && text.is_some() {
        reader.problem(
            "declarative_config",
            "cannot be combined with declarative_config_string: set one of the two",
        );
    }
    path.map(|path| DeclarativeSetting::Path(path.into()))
        .or(text.map(DeclarativeSetting::Text))
}

fn kong_version(reader: &mut Reader) -> String {
    let version = reader.text("sallyport_kong_version").unwrap_or_default();
    if let Err(problem) = version.parse::<sallyport_wire::config_sync::KongVersion>() {
        reader.problem("sallyport_kong_version", problem.to_string());
    }
    version
}
