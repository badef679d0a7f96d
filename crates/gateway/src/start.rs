//! Starting and stopping the role.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::RootCertStore;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use sallyport_model::declarative::{Format, parse_text};
use sallyport_runtime::listen::ListenError;
use sallyport_runtime::tls::{self, ClientAuth, Identity, ServerTrust, trust_store};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_hash::hashes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::balancer::{Balancers, ProbeTls, Upstreams, keep};
use crate::conf::{Conf, Declarative, Listener, Material, RouterFlavor};
use crate::config_sync::LinkState;
use crate::configuration::{Configuration, Unservable};
use crate::enabled::Enabled;
use crate::follow::{FollowError, Follower, last_known_good};
use crate::proxy::{Bound, Options, Shared, Via, Workers, open};
use crate::status;

/// Why the gateway did not start. Nothing is bound then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The declarative configuration has problems.
    #[error("{origin} has {} problem{}{}", .problems.len(), plural(.problems), lines(.problems))]
    Declarative {
        /// The file, or the property that holds the text.
        origin: String,
        /// All of them.
        problems: Vec<String>,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The link to the control plane cannot be set up.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The system refuses threads or files.
    #[error("the gateway cannot run here: {0}")]
    System(#[from] io::Error),
}

fn plural(problems: &[String]) -> &'static str {
    if problems.len() == 1 { "" } else { "s" }
}

fn lines(problems: &[String]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

/// A running gateway.
pub struct Gateway {
    proxy: Vec<SocketAddr>,
    status: Vec<SocketAddr>,
    shared: Arc<Shared>,
    workers: Workers,
    follower: Option<Follower>,
    status_tasks: status::Server,
    /// What goes on whether there is traffic or not.
    background: JoinSet<()>,
    stop: CancellationToken,
}

impl Gateway {
    /// Starts everything that the settings say. Needs a tokio runtime for what is not traffic.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(conf: Conf, material: Material) -> Result<Gateway, StartError> {
        let balancers = Arc::new(Balancers::new(conf.dns.clone()));
        let configuration = match (&material.declarative, &conf.cluster) {
            (Some(declarative), _) => declared(declarative, &conf, &balancers)?,
            (None, Some(_)) => last_known_good(&conf, &balancers),
            (None, None) => Configuration::empty(conf.router_flavor),
        };
        let stop = CancellationToken::new();
        let options = options(&conf)?;
        let bounds = bounds(&conf, &material)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let listeners = open(
            &bounds,
            conf.workers.unwrap_or(cores),
            "proxy_listen in kong.conf",
        )?;
        let proxy = listeners
            .first()
            .map(|all| all.iter().map(|(b, _)| b.address).collect());
        let status = status::open(&conf.status_listen, &material.status)?;
        let probe_tls = ProbeTls {
            verified: options.tls_verified.clone(),
            unverified: options.tls_unverified.clone(),
        };
        let shared = Arc::new(Shared::new(options, configuration, balancers.clone()));
        let follower = match &material.cluster {
            Some(cluster) => Some(Follower::start(&conf, cluster, &shared)?),
            None => None,
        };
        let mut background = JoinSet::new();
        background.spawn(keep(balancers, probe_tls, stop.clone()));
        // those that did start serve nobody
        let workers =
            Workers::start(&shared, listeners, &stop, GRACE).inspect_err(|_| stop.cancel())?;
        let status_addresses = status.iter().filter_map(|l| l.local_addr().ok()).collect();
        let status_tasks = status::serve(status, shared.clone(), stop.clone());
        Ok(Gateway {
            proxy: proxy.unwrap_or_default(),
            status: status_addresses,
            shared,
            workers,
            follower,
            status_tasks,
            background,
            stop,
        })
    }

    /// Checks what [`start`](Gateway::start) would serve, and binds nothing.
    ///
    /// # Errors
    /// The problems of the declarative configuration.
    pub fn check(conf: &Conf, material: &Material) -> Result<(), StartError> {
        match &material.declarative {
            None => Ok(()),
            Some(declarative) => {
                let balancers = Balancers::new(conf.dns.clone());
                declared(declarative, conf, &balancers).map(drop)
            }
        }
    }

    /// Addresses that take traffic, in the order of `proxy_listen`.
    pub fn proxy_addresses(&self) -> &[SocketAddr] {
        &self.proxy
    }

    /// Addresses of the Status API.
    pub fn status_addresses(&self) -> &[SocketAddr] {
        &self.status
    }

    /// Hash of the configuration in force; zeros while there is none.
    pub fn configuration_hash(&self) -> ConfigHash {
        self.shared.configuration().hash
    }

    /// The upstreams in force, with the health of their targets: to show it and to set it.
    pub fn upstreams(&self) -> Upstreams {
        Upstreams(self.shared.balancers.clone())
    }

    /// How the link to the control plane is; `None` for a gateway that has none.
    pub fn link(&self) -> Option<LinkState> {
        self.follower
            .as_ref()
            .map(|follower| follower.state().borrow().clone())
    }

    /// Stops: no new connections, requests under way get time to finish.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Some(follower) = self.follower {
            follower.stop().await;
        }
        self.status_tasks.finish().await;
        let workers = self.workers;
        if tokio::task::spawn_blocking(move || workers.join())
            .await
            .is_err()
        {
            warn!("the workers' end was lost");
        }
        let mut background = self.background;
        while let Some(ended) = background.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a background task panicked");
            }
        }
        info!("gateway stopped");
    }
}

/// How long open requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(10);

/// The configuration of a declarative document.
fn declared(
    declarative: &Declarative,
    conf: &Conf,
    balancers: &Balancers,
) -> Result<Configuration, StartError> {
    let Declarative { origin, text } = declarative;
    let refuse = |problems: Vec<String>| StartError::Declarative {
        origin: origin.clone(),
        problems,
    };
    let declared = parse_text(text, Format::File, &Enabled::new(conf))
        .map_err(|bad| refuse(bad.iter().map(ToString::to_string).collect()))?;
    for warning in &declared.warnings {
        warn!(%warning, origin, "declarative configuration");
    }
    let hash = hashes(&declared.value).config;
    Configuration::empty(conf.router_flavor)
        .next_with(&declared, hash, balancers)
        .map_err(|bad| refuse(bad.iter().map(Unservable::to_string).collect()))
}

fn bounds(conf: &Conf, material: &Material) -> Result<Vec<Bound>, StartError> {
    // with nginx, one listener that speaks HTTP/2 makes all of them do
    let http2 = conf.proxy_listen.iter().any(|listener| listener.http2);
    let secure = tls_config(&material.proxy, http2)?;
    let bound = |listener: &Listener| {
        let options = listener.options();
        Ok(Bound {
            id: if listener.tls {
                "proxy.https"
            } else {
                "proxy.http"
            },
            address: listener.addr()?,
            backlog: options.backlog,
            ipv6_only: options.ipv6_only,
            tls: secure.clone().filter(|_| listener.tls),
            http2,
        })
    };
    conf.proxy_listen
        .iter()
        .map(bound)
        .collect::<io::Result<_>>()
        .map_err(StartError::System)
}

/// TLS for a listener that has these certificates; `None` without any.
pub(crate) fn tls_config(
    identities: &[Identity],
    http2: bool,
) -> Result<Option<Arc<ServerConfig>>, StartError> {
    if identities.is_empty() {
        return Ok(None);
    }
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let alpn = if http2 { &both[..] } else { &both[1..] };
    let keys = identities.iter().map(Identity::certified_key).collect();
    tls::server::server_config_by_name(Arc::new(ByKeyType(keys)), ClientAuth::Off, alpn)
        .map(|config| Some(Arc::new(config)))
        .map_err(|error| StartError::Tls(error.to_string()))
}

/// Shows the first certificate whose key type the client knows (RSA and ECDSA may both be given).
#[derive(Debug)]
struct ByKeyType(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByKeyType {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(known).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

fn options(conf: &Conf) -> Result<Options, StartError> {
    let roots = match trust_store(&conf.lua_ssl_trusted_certificate) {
        Ok(roots) => roots,
        Err(error) => {
            warn!(%error, "lua_ssl_trusted_certificate: verified upstreams will be refused");
            RootCertStore::empty()
        }
    };
    let client = |trust| {
        tls::client_config(trust, None)
            .map(|mut config| {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Arc::new(config)
            })
            .map_err(|error| StartError::Tls(error.to_string()))
    };
    let token = format!("kong/{}", conf.kong_version);
    Ok(Options {
        via: Via::new(&token),
        server: HeaderValue::from_str(&token).expect("a version is ASCII"),
        shown: conf.headers,
        request_id_upstream: conf.headers_upstream_request_id,
        real_ip: conf.real_ip.clone(),
        port_maps: conf.port_maps.clone(),
        routes_by_address: conf.router_flavor == RouterFlavor::Expressions,
        body_bytes_max: conf.client_max_body_size.unwrap_or(u64::MAX),
        cache_bytes_max: conf.mem_cache_size,
        keepalive: conf.upstream_keepalive,
        error_type: conf.error_default_type,
        tls_verified: client(ServerTrust::Roots(Arc::new(roots)))?,
        tls_unverified: client(ServerTrust::Anybody)?,
    })
}
