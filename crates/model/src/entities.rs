//! Typed entities, as a gateway runs them.
//!
//! They are decoded from values that passed the schema, so defaults are filled
//! and ranges hold; decoding them from anything else is a bug of the caller. Fields that the
//! gateway does not act on (tags, times) are not here.

mod credentials;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::balancing::or_default;
pub use crate::balancing::{Algorithm, CheckType, HashOn, Healthchecks};
pub use credentials::{Acl, BasicAuth, HmacAuth, Jwt, JwtAlgorithm, KeyAuth};

/// A protocol of a route or of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the protocols")]
pub enum Protocol {
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Tls,
    TlsPassthrough,
    Udp,
    Ws,
    Wss,
}

impl Protocol {
    /// Whether bytes on this protocol are encrypted by TLS that the gateway ends or starts.
    pub fn is_tls(self) -> bool {
        matches!(
            self,
            Protocol::Https | Protocol::Grpcs | Protocol::Tls | Protocol::Wss
        )
    }
}

/// A reference to another entity by its id: a bare string in hybrid payloads, `{"id": …}` in
/// the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "RawForeign")]
pub struct Foreign(pub Uuid);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawForeign {
    Bare(Uuid),
    Object { id: Uuid },
}

impl From<RawForeign> for Foreign {
    fn from(raw: RawForeign) -> Foreign {
        match raw {
            RawForeign::Bare(id) | RawForeign::Object { id } => Foreign(id),
        }
    }
}

/// An API behind the gateway.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Identity.
    pub id: Uuid,
    /// Unique name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// How the upstream is spoken to.
    pub protocol: Protocol,
    /// Host name, address, or the name of an [`Upstream`].
    pub host: String,
    /// Port on `host`; ignored when `host` names an upstream.
    pub port: u16,
    /// Prefix of the path sent upstream.
    #[serde(default)]
    pub path: Option<String>,
    /// Further tries after a failed one, 0..=32767.
    pub retries: u16,
    /// Milliseconds, 1..=2147483646.
    pub connect_timeout: u32,
    /// Milliseconds between two writes.
    pub write_timeout: u32,
    /// Milliseconds between two reads.
    pub read_timeout: u32,
    /// Whether routes to it are served.
    pub enabled: bool,
    /// What the upstream is shown when it asks for a certificate.
    #[serde(default)]
    pub client_certificate: Option<Foreign>,
    /// Whether the upstream's certificate is verified; unset means the gateway's default.
    #[serde(default)]
    pub tls_verify: Option<bool>,
    /// Most certificates between the upstream's own and the authority's, 0..=64.
    #[serde(default)]
    pub tls_verify_depth: Option<u8>,
    /// Ids of the authorities that are believed; empty means the gateway's own list.
    #[serde(default)]
    pub ca_certificates: Vec<Uuid>,
}

/// How the path of a service, of a route and of a request become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathHandling {
    /// Paths are segments: they meet in one slash.
    #[default]
    V0,
    /// Paths are prefixes; only the router flavour `traditional` knows it.
    V1,
}

/// Where a connection comes from, or where it goes to: what is set must match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Peer {
    /// An address, or a network in CIDR form.
    #[serde(default)]
    pub ip: Option<String>,
    /// A port.
    #[serde(default)]
    pub port: Option<u16>,
}

/// A rule that matches requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Route {
    /// Identity.
    pub id: Uuid,
    /// Unique name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// What the client may speak.
    pub protocols: Vec<Protocol>,
    /// Upper-case methods; unset matches all.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Host names, with `*` at one end or a port.
    #[serde(default)]
    pub hosts: Option<Vec<String>>,
    /// Prefixes, or regular expressions after `~`.
    #[serde(default)]
    pub paths: Option<Vec<String>>,
    /// Header name to allowed values.
    #[serde(default)]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// Server names of the TLS handshake.
    #[serde(default)]
    pub snis: Option<Vec<String>>,
    /// Where the client is; any of them.
    #[serde(default)]
    pub sources: Option<Vec<Peer>>,
    /// What the client connected to; any of them.
    #[serde(default)]
    pub destinations: Option<Vec<Peer>>,
    /// A condition that stands instead of all the lists above.
    #[serde(default)]
    pub expression: Option<String>,
    /// Order among expressions, larger first, 0..2^46.
    #[serde(default)]
    pub priority: Option<u64>,
    /// Seconds since 1970; older routes win ties in the flavour `traditional`.
    #[serde(default)]
    pub created_at: Option<i64>,
    /// How the upstream path is made; v1 only in the flavour `traditional`.
    #[serde(default)]
    pub path_handling: PathHandling,
    /// Status for plain HTTP on an https-only route: 426, 301, 302, 307 or 308.
    pub https_redirect_status_code: u16,
    /// Order among regex paths, larger first.
    pub regex_priority: i64,
    /// Whether the matched part of the path is removed.
    pub strip_path: bool,
    /// Whether the client's `Host` is sent upstream.
    pub preserve_host: bool,
    /// Whether the request body is read before it is sent upstream.
    pub request_buffering: bool,
    /// Whether the response body is read before it is sent to the client.
    pub response_buffering: bool,
    /// Where matching requests go; without one a plugin must answer.
    #[serde(default)]
    pub service: Option<Foreign>,
}

/// Somebody who calls.
#[derive(Clone, Debug, Deserialize)]
pub struct Consumer {
    /// Identity.
    pub id: Uuid,
    /// Unique name; this or `custom_id` is set.
    #[serde(default)]
    pub username: Option<String>,
    /// Unique id in somebody else's system.
    #[serde(default)]
    pub custom_id: Option<String>,
}

/// Consumers that plugins are configured for together.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerGroup {
    /// Identity.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
}

/// A consumer's place in a group.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerGroupMember {
    /// Unique id; nil where a control plane gives none.
    #[serde(default)]
    pub id: Uuid,
    /// The group.
    pub consumer_group: Foreign,
    /// Who is in it.
    pub consumer: Foreign,
}

/// A place for secrets. What is in it is known to the gateway alone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Vault {
    /// Identity.
    pub id: Uuid,
    /// What references name it by.
    pub prefix: String,
    /// Its type: `env` or `file`.
    pub name: String,
    /// Settings of the type.
    #[serde(default)]
    pub config: VaultConfig,
}

/// Settings of a [`Vault`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct VaultConfig {
    /// What the names of secrets begin with: of variables, or a directory.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Whether secrets are stored in base64.
    #[serde(default)]
    pub base64_decode: Option<bool>,
}

/// A plugin's configuration in one scope.
#[derive(Clone, Debug, Deserialize)]
pub struct Plugin {
    /// Identity.
    pub id: Uuid,
    /// The plugin's name, such as `key-auth`.
    pub name: String,
    /// Only requests of this route.
    #[serde(default)]
    pub route: Option<Foreign>,
    /// Only requests to this service.
    #[serde(default)]
    pub service: Option<Foreign>,
    /// Only requests of this consumer.
    #[serde(default)]
    pub consumer: Option<Foreign>,
    /// Only requests of consumers in this group.
    #[serde(default)]
    pub consumer_group: Option<Foreign>,
    /// What it runs for; empty where it was never said.
    #[serde(default)]
    pub protocols: Vec<Protocol>,
    /// Checked against the plugin's schema, defaults filled.
    pub config: Value,
    /// Whether it runs.
    pub enabled: bool,
}

/// A virtual host name that balances.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Upstream {
    /// Identity.
    pub id: Uuid,
    /// What a service's `host` refers to.
    pub name: String,
    /// How a target is chosen.
    pub algorithm: Algorithm,
    /// What of a request is hashed.
    #[serde(default, deserialize_with = "or_default")]
    pub hash_on: HashOn,
    /// What is hashed if that is not there.
    #[serde(default, deserialize_with = "or_default")]
    pub hash_fallback: HashOn,
    /// Header for `hash_on`.
    #[serde(default)]
    pub hash_on_header: Option<String>,
    /// Header for `hash_fallback`.
    #[serde(default)]
    pub hash_fallback_header: Option<String>,
    /// Cookie for either of them; made if it is not there.
    #[serde(default)]
    pub hash_on_cookie: Option<String>,
    /// Path of a cookie that is made.
    #[serde(default, deserialize_with = "or_default")]
    pub hash_on_cookie_path: String,
    /// Query argument for `hash_on`.
    #[serde(default)]
    pub hash_on_query_arg: Option<String>,
    /// Query argument for `hash_fallback`.
    #[serde(default)]
    pub hash_fallback_query_arg: Option<String>,
    /// Named group of the route's path for `hash_on`.
    #[serde(default)]
    pub hash_on_uri_capture: Option<String>,
    /// Named group of the route's path for `hash_fallback`.
    #[serde(default)]
    pub hash_fallback_uri_capture: Option<String>,
    /// Places on the ring of consistent hashing, 10..=65536.
    #[serde(default, deserialize_with = "or_default")]
    pub slots: u32,
    /// How the health of its targets is found out.
    pub healthchecks: Healthchecks,
    /// `Host` to send instead of the target's name.
    #[serde(default)]
    pub host_header: Option<String>,
    /// What targets are shown when they ask for a certificate, unless the service has its own.
    #[serde(default)]
    pub client_certificate: Option<Foreign>,
    /// Whether `Host` is the name in the SRV record instead of the target's.
    #[serde(default, deserialize_with = "or_default")]
    pub use_srv_name: bool,
}

/// An address of an upstream.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Target {
    /// Identity.
    pub id: Uuid,
    /// `host:port`.
    pub target: String,
    /// Share of requests, 0..=65535; 0 gets none.
    pub weight: u16,
    /// Which upstream it belongs to.
    pub upstream: Foreign,
}

/// A certificate (chain) with its key, and perhaps a second pair of another key type.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Certificate {
    /// Identity.
    pub id: Uuid,
    /// PEM text, leaf first.
    pub cert: String,
    /// PEM text of the private key.
    pub key: String,
    /// As `cert`, for clients that cannot use it.
    #[serde(default)]
    pub cert_alt: Option<String>,
    /// As `key`, of `cert_alt`.
    #[serde(default)]
    pub key_alt: Option<String>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.id)
    }
}

/// A server name that a certificate is shown for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sni {
    /// Identity.
    pub id: Uuid,
    /// A name, with `*` as its first or last label or without; `*` alone is every name.
    pub name: String,
    /// The certificate.
    pub certificate: Foreign,
}

/// An authority whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CaCertificate {
    /// Identity.
    pub id: Uuid,
    /// PEM text of one certificate.
    pub cert: String,
}

/// A whole configuration: what a declarative file or a control plane gives to a gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigTable {
    /// What is shown to clients and to upstreams.
    pub certificates: Vec<Certificate>,
    /// The server names they are shown for.
    pub snis: Vec<Sni>,
    /// Authorities that are believed.
    pub ca_certificates: Vec<CaCertificate>,
    /// APIs behind the gateway.
    pub services: Vec<Service>,
    /// Rules that match requests.
    pub routes: Vec<Route>,
    /// Callers.
    pub consumers: Vec<Consumer>,
    /// Keys of callers.
    pub keyauth_credentials: Vec<KeyAuth>,
    /// User names and passwords of callers.
    pub basicauth_credentials: Vec<BasicAuth>,
    /// User names and signing secrets of callers.
    pub hmacauth_credentials: Vec<HmacAuth>,
    /// What verifies tokens of callers.
    pub jwt_secrets: Vec<Jwt>,
    /// Groups of callers.
    pub acls: Vec<Acl>,
    /// Groups of callers that share plugin configurations.
    pub consumer_groups: Vec<ConsumerGroup>,
    /// Who is in them.
    pub consumer_group_consumers: Vec<ConsumerGroupMember>,
    /// Places for secrets.
    pub vaults: Vec<Vault>,
    /// Plugin configurations.
    pub plugins: Vec<Plugin>,
    /// Virtual host names.
    pub upstreams: Vec<Upstream>,
    /// Their addresses.
    pub targets: Vec<Target>,
}
