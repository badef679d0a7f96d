//! Starting and stopping the role.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderValue;
use rustls::RootCertStore;
use rustls::server::{ResolvesServerCert, ServerConfig};
use sallyport_model::declarative::{Format, parse_text};
use sallyport_plugins::Facts;
use sallyport_runtime::listen::ListenError;
use sallyport_runtime::memory::Tidy;
use sallyport_runtime::tls::{self, Offer, ServerTrust, trust_store};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_hash::hashes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::api::{self, Kind, Node};
use crate::balancer::{Balancers, ProbeTls, Upstreams, keep};
use crate::certificates::{ByName, Certificates, TlsDefaults};
use crate::conf::{Conf, Declarative, Listener, Material, RouterFlavor, Source};
use crate::config_sync::{ApplyError, ClusterTls, LinkState, hostname, node_id};
use crate::configuration::{Configuration, Unservable};
use crate::enabled::Enabled;
use crate::follow::{FollowError, Follower, Start, first, last_known_good};
use crate::log_queue::{Queues, Ways, supervise};
use crate::logs::{Access, AccessFormat, LogFileError, LogFiles};
use crate::proxy::{Bound, Options, Shared, Speaks, Via, Workers, open};
use crate::rate_limit;
use crate::telemetry::{self, Inbox};

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
    /// A log file cannot be written.
    #[error(transparent)]
    Log(#[from] LogFileError),
    /// The configuration of the control plane cannot be made ready anew.
    #[error("the configuration in force: {0}")]
    Renew(ApplyError),
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
    streams: Vec<SocketAddr>,
    status: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    shared: Arc<Shared>,
    workers: Workers,
    follower: Option<Follower>,
    /// What goes on whether there is traffic or not.
    background: JoinSet<()>,
    telemetry_stop: CancellationToken,
    telemetry_tls: Option<ClusterTls>,
    apis: [api::Server; 2],
    apis_stop: CancellationToken,
    logs: Arc<LogFiles>,
    log_queues: Queues,
    log_queues_stop: CancellationToken,
    certificates: ListenerCertificates,
    enabled: Enabled,
    stop: CancellationToken,
}

impl Gateway {
    /// Starts everything that the settings say. Needs a tokio runtime for what is not traffic.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(conf: Conf, material: Material) -> Result<Gateway, StartError> {
        let balancers = Arc::new(Balancers::new(conf.dns.clone()));
        let nothing = first(&conf).speaking_tls(TlsDefaults {
            roots: Some(trusted(&conf)),
            identity: material.client.clone(),
            verify: conf.upstream_verify.0,
            depth: conf.upstream_verify.1,
        });
        let mut begin = match (&material.declarative, &conf.cluster) {
            (Some(declarative), _) => Start::with(declared(
                declarative,
                &Enabled::new(&conf),
                (&nothing, &balancers),
            )?),
            (None, Some(_)) => last_known_good(&conf, nothing, &balancers),
            (None, None) => Start::with(nothing),
        };
        let source = begin.take_source();
        let configuration = begin.configuration;
        let stop = CancellationToken::new();
        let mut logs = LogFiles::default();
        let access_log = access_log(&conf, &mut logs)?;
        let id = own_id(&conf);
        let stream_access_log = stream_access_log(&conf, &mut logs)?;
        let reporter = reporter(&conf, &material)?;
        let counters = reporter.as_ref().map(|it| it.inbox.counters.clone());
        let telemetry_tls = reporter.as_ref().map(|it| it.settings.tls());
        let options = Options {
            stream_access_log,
            telemetry: reporter.as_ref().map(|it| it.inbox.clone()),
            ..options(&conf, id, access_log)?
        };
        let certificates = ListenerCertificates::new(&conf, &material);
        let by_name = ByName::new(certificates.proxy.clone());
        let bounds = bounds(&conf, &certificates, &by_name)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let listeners = open(
            &bounds,
            conf.workers.unwrap_or(cores),
            "proxy_listen in kong.conf",
        )?;
        let opened = |streams: bool| -> Vec<SocketAddr> {
            let all = listeners.first().into_iter().flatten();
            all.filter(|(bound, _)| (bound.speaks != Speaks::Http) == streams)
                .map(|(bound, _)| bound.address)
                .collect()
        };
        let (proxy, streams) = (opened(false), opened(true));
        let status_log = logs.access(&conf.status_access_log, AccessFormat::Combined)?;
        let status = api::open(
            Kind::Status,
            &conf.status_listen,
            (&certificates.status, &conf.offer),
            status_log,
        )?;
        let admin_log = admin_access_log(&conf, &mut logs)?;
        let admin = api::open(
            Kind::Admin,
            &conf.admin_listen,
            (&certificates.admin, &conf.offer),
            admin_log,
        )?;
        let probe_tls = ProbeTls {
            verified: options.tls_verified.clone(),
            unverified: options.tls_unverified.clone(),
            roots: trusted(&conf),
        };
        let ways = Ways::new(
            &options.tls_verified,
            &options.tls_unverified,
            conf.syslog_socket.clone(),
        );
        let (log_queues, new_queues) = Queues::new(ways.clone());
        let (nodes, counting) = counting(&conf, &options);
        let nodes_stats = nodes.stats();
        let given = (by_name, log_queues.clone(), nodes);
        let shared = Shared::new(options, configuration, balancers.clone(), given);
        let shared = Arc::new(shared);
        let follower = match &material.cluster {
            Some(cluster) => Some(Follower::start(&conf, cluster, &shared, source)?),
            None => None,
        };
        let mut background = JoinSet::new();
        background.spawn(keep(balancers, probe_tls, stop.clone()));
        // it sends what workers hand in at their end
        let telemetry_stop = CancellationToken::new();
        if let Some(Reporter {
            settings,
            inbox,
            folded,
        }) = reporter
        {
            let stop = telemetry_stop.clone();
            background.spawn(telemetry::run(settings, folded, inbox.counters, stop));
        }
        if let Some(counting) = counting {
            // for requests under way as well
            background.spawn(rate_limit::run(counting, telemetry_stop.clone()));
        }
        // they are emptied once no request is left
        let log_queues_stop = CancellationToken::new();
        background.spawn(supervise(new_queues, ways, log_queues_stop.clone()));
        // those that did start serve nobody
        let workers =
            Workers::start(&shared, listeners, &stop, GRACE).inspect_err(|_| stop.cancel())?;
        let logs = Arc::new(logs);
        let node = Arc::new(Node {
            shared: shared.clone(),
            id,
            hostname: hostname(),
            version: conf.kong_version.clone(),
            settings: api::settings(&conf),
            enabled: Enabled::new(&conf),
            takes_config: conf.cluster.is_none(),
            link: follower.as_ref().map(Follower::state),
            sync: follower.as_ref().map(Follower::stats),
            logs: logs.clone(),
            telemetry: counters,
            log_queues: log_queues.clone(),
            nodes: nodes_stats,
            draining: AtomicBool::new(false),
            stop: stop.clone(),
        });
        let (status_addresses, admin_addresses) = (status.addresses(), admin.addresses());
        // they answer until the last request is over, so that a load balancer sees what happens
        let apis_stop = CancellationToken::new();
        let apis = [status, admin].map(|sockets| api::serve(sockets, &node, &apis_stop));
        Ok(Gateway {
            proxy,
            streams,
            status: status_addresses,
            admin: admin_addresses,
            shared,
            workers,
            follower,
            background,
            telemetry_stop,
            telemetry_tls,
            apis,
            apis_stop,
            logs,
            log_queues,
            log_queues_stop,
            certificates,
            enabled: Enabled::new(&conf),
            stop,
        })
    }

    /// Checks what [`start`](Gateway::start) would serve, and binds nothing.
    ///
    /// # Errors
    /// The problems of the declarative configuration.
    pub fn check(conf: &Conf, material: &Material) -> Result<(), StartError> {
        Gateway::check_document(conf, material.declarative.as_ref())
    }

    /// The same, where other files of the settings may be missing.
    ///
    /// # Errors
    /// The problems of the declarative configuration.
    pub fn check_document(conf: &Conf, document: Option<&Declarative>) -> Result<(), StartError> {
        match document {
            None => Ok(()),
            Some(declarative) => {
                let balancers = Balancers::new(conf.dns.clone());
                let before = (&first(conf), &balancers);
                declared(declarative, &Enabled::new(conf), before).map(drop)
            }
        }
    }

    /// Addresses that take traffic, in the order of `proxy_listen`.
    pub fn proxy_addresses(&self) -> &[SocketAddr] {
        &self.proxy
    }

    /// Addresses that take streams, in the order of `stream_listen`.
    pub fn stream_addresses(&self) -> &[SocketAddr] {
        &self.streams
    }

    /// Addresses of the Status API.
    pub fn status_addresses(&self) -> &[SocketAddr] {
        &self.status
    }

    /// Addresses of the Admin API.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.admin
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

    /// Takes the certificates (that of the link to the control plane is shown from its next connection
    /// on, that of telemetry from the next report on) and the declarative configuration of `material`, which was read
    /// anew, and opens all log files anew. Connections stay; requests under way finish with the
    /// configuration they began with. On an error nothing changes but the log files.
    ///
    /// # Errors
    /// The problems of the declarative configuration.
    pub fn reload(&self, material: &Material) -> Result<(), StartError> {
        self.reopen_logs();
        let configuration = match &material.declarative {
            Some(declarative) => Some(declared(
                declarative,
                &self.enabled,
                (&self.shared.configuration(), &self.shared.balancers),
            )?),
            None => None,
        };
        if let (Some(follower), Some(cluster)) = (&self.follower, &material.cluster) {
            follower.exchange(cluster)?;
        }
        if let (Some(telemetry), Some(cluster)) = (&self.telemetry_tls, &material.cluster) {
            let exchanged = telemetry.exchange(cluster);
            exchanged.map_err(|error| StartError::Tls(error.to_string()))?;
        }
        if let (None, Some(follower)) = (&configuration, &self.follower) {
            follower.renew().map_err(StartError::Renew)?;
        }
        self.certificates.exchange(material);
        if let Some(configuration) = configuration {
            let (hash, routes) = (configuration.hash, configuration.routes());
            self.shared.swap(configuration);
            info!(%hash, routes, "configuration in force");
        }
        Ok(())
    }

    /// Opens all log files anew, for log rotation.
    pub fn reopen_logs(&self) {
        self.logs.reopen();
        self.log_queues.reopen();
    }

    /// Stops: no new connections, requests under way get time to finish.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Some(follower) = self.follower {
            follower.stop().await;
        }
        let workers = self.workers;
        if tokio::task::spawn_blocking(move || workers.join())
            .await
            .is_err()
        {
            warn!("the workers' end was lost");
        }
        self.telemetry_stop.cancel();
        self.log_queues_stop.cancel();
        self.apis_stop.cancel();
        for api in self.apis {
            api.finish().await;
        }
        let mut background = self.background;
        while let Some(ended) = background.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a background task panicked");
            }
        }
        let logs = self.logs;
        _ = tokio::task::spawn_blocking(move || logs.finish()).await;
        info!("gateway stopped");
    }
}

/// How long open requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(10);

/// What telemetry needs to run.
struct Reporter {
    settings: telemetry::Settings,
    inbox: Inbox,
    folded: mpsc::Receiver<telemetry::Folded>,
}

fn reporter(conf: &Conf, material: &Material) -> Result<Option<Reporter>, StartError> {
    let settings = telemetry::Settings::new(conf, material.cluster.as_ref(), own_id(conf));
    let settings = settings.map_err(|error| StartError::Tls(error.to_string()))?;
    Ok(settings.map(|settings| {
        let (inbox, folded) = Inbox::new();
        Reporter {
            settings,
            inbox,
            folded,
        }
    }))
}

/// The configuration of a declarative document.
fn declared(
    declarative: &Declarative,
    plugins: &Enabled,
    (before, balancers): (&Configuration, &Balancers),
) -> Result<Configuration, StartError> {
    let Declarative { origin, text } = declarative;
    let _tidy = Tidy::after(text.len());
    let refuse = |problems: Vec<String>| StartError::Declarative {
        origin: origin.clone(),
        problems,
    };
    let declared = parse_text(text, Format::File, plugins)
        .map_err(|bad| refuse(bad.iter().map(ToString::to_string).collect()))?;
    for warning in &declared.warnings {
        warn!(%warning, origin, "declarative configuration");
    }
    let hash = hashes(&declared.value).config;
    before
        .next_with(&declared, hash, balancers, &[])
        .map_err(|bad| refuse(bad.iter().map(Unservable::to_string).collect()))
}

/// The certificates of each kind of listener.
struct ListenerCertificates {
    proxy: Certificates,
    status: Certificates,
    admin: Certificates,
    /// Whether settings name them.
    named: [bool; 3],
}

impl ListenerCertificates {
    fn new(conf: &Conf, material: &Material) -> ListenerCertificates {
        let settings = [&conf.ssl_cert, &conf.status_ssl_cert, &conf.admin_ssl_cert];
        ListenerCertificates {
            proxy: Certificates::new(&material.proxy),
            status: Certificates::new(&material.status),
            admin: Certificates::new(&material.admin),
            named: settings.map(|setting| !setting.is_empty()),
        }
    }

    /// Those that settings name; a generated one stays as it is.
    fn exchange(&self, material: &Material) {
        let [proxy, status, admin] = self.named;
        for (named, certificates, identities) in [
            (proxy, &self.proxy, &material.proxy),
            (status, &self.status, &material.status),
            (admin, &self.admin, &material.admin),
        ] {
            if named {
                certificates.exchange(identities);
            }
        }
    }
}

/// The id this node is known by. A gateway without a control plane that cannot keep one takes
/// another at each start.
fn own_id(conf: &Conf) -> Uuid {
    node_id(&conf.prefix, conf.node_id).unwrap_or_else(|error| {
        warn!(%error, "the node has another id at each start");
        let mut bytes = [0; 16];
        _ = getrandom::fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    })
}

fn bounds(
    conf: &Conf,
    certificates: &ListenerCertificates,
    by_name: &ByName,
) -> Result<Vec<Bound>, StartError> {
    // with nginx, one listener that speaks HTTP/2 makes all of them do
    let http2 = conf.proxy_listen.iter().any(|listener| listener.http2);
    let alpn: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    let (mut requests, mut streams) = (None, None);
    if !certificates.proxy.is_empty() {
        requests = Some(tls_config(by_name.clone(), alpn, &conf.offer)?);
        // what a stream says inside is nobody's business
        streams = Some(tls_config(by_name.clone(), &[], &conf.offer)?);
    }
    let bound = |(listener, is_stream): (&Listener, bool)| {
        let options = listener.options();
        let (speaks, id, tls) = match (is_stream, listener.udp, listener.tls) {
            (false, _, true) => (Speaks::Http, "proxy.https", &requests),
            (false, _, false) => (Speaks::Http, "proxy.http", &requests),
            (true, true, _) => (Speaks::Datagrams, "stream", &None),
            (true, false, _) => (Speaks::Streams, "stream", &streams),
        };
        Ok(Bound {
            id,
            address: listener.addr()?,
            backlog: options.backlog,
            ipv6_only: options.ipv6_only,
            tls: tls.clone().filter(|_| listener.tls),
            http2,
            speaks,
            proxy_protocol: listener.proxy_protocol,
            keepalive: options.keepalive,
        })
    };
    let requests = conf.proxy_listen.iter().map(|listener| (listener, false));
    let streams = conf.stream_listen.iter().map(|listener| (listener, true));
    requests
        .chain(streams)
        .map(bound)
        .collect::<io::Result<_>>()
        .map_err(StartError::System)
}

/// TLS for a listener.
pub(crate) fn tls_config(
    certificates: impl ResolvesServerCert + 'static,
    alpn: &[&[u8]],
    offer: &Offer,
) -> Result<Arc<ServerConfig>, StartError> {
    tls::server::server_config_offering(Arc::new(certificates), alpn, offer)
        .map(Arc::new)
        .map_err(|error| StartError::Tls(error.to_string()))
}

/// The authorities that are believed where nothing else is said. That there are none keeps nobody
/// from starting.
fn trusted(conf: &Conf) -> Arc<RootCertStore> {
    let roots = trust_store(&conf.lua_ssl_trusted_certificate).unwrap_or_else(|error| {
        warn!(%error, "lua_ssl_trusted_certificate: verified upstreams will be refused");
        RootCertStore::empty()
    });
    Arc::new(roots)
}

/// The access log of streams; see [`access_log`].
fn stream_access_log(conf: &Conf, logs: &mut LogFiles) -> Result<Option<Access>, StartError> {
    if conf.stream_listen.is_empty() {
        return Ok(None);
    }
    let opened = logs.access(&conf.proxy_stream_access_log, AccessFormat::Combined);
    match (opened, conf.source_of("proxy_stream_access_log")) {
        (Err(error), Source::Default) => {
            warn!(%error, "streams are not logged; proxy_stream_access_log says where else");
            Ok(None)
        }
        (opened, _) => Ok(opened?),
    }
}

/// The access log of the Admin API; see [`access_log`].
fn admin_access_log(conf: &Conf, logs: &mut LogFiles) -> Result<Option<Access>, StartError> {
    if conf.admin_listen.is_empty() {
        return Ok(None);
    }
    let opened = logs.access(&conf.admin_access_log, AccessFormat::Combined);
    match (opened, conf.source_of("admin_access_log")) {
        (Err(error), Source::Default) => {
            warn!(%error, "requests to the Admin API are not logged; admin_access_log says where else");
            Ok(None)
        }
        (opened, _) => Ok(opened?),
    }
}

/// The access log of the proxy. That its default place cannot be written keeps nobody from
/// starting.
fn access_log(conf: &Conf, logs: &mut LogFiles) -> Result<Option<Access>, StartError> {
    let opened = logs.access(&conf.proxy_access_log, AccessFormat::Kong);
    match (opened, conf.source_of("proxy_access_log")) {
        (Err(error), Source::Default) => {
            warn!(%error, "requests are not logged; proxy_access_log says where else");
            Ok(None)
        }
        (opened, _) => Ok(opened?),
    }
}

/// The way to the nodes that count rate limits, as the settings name them.
pub(crate) fn counting(
    conf: &Conf,
    options: &Options,
) -> (rate_limit::Nodes, Option<rate_limit::Counting>) {
    let settings = &conf.rate_limit;
    let tls = settings.tls.then(|| {
        let mut config = (*options.tls_verified).clone();
        config.alpn_protocols.clear();
        Arc::new(config)
    });
    rate_limit::Nodes::new(rate_limit::Settings {
        nodes: settings.nodes.clone(),
        tls,
        timeout: settings.timeout,
    })
}

pub(crate) fn options(
    conf: &Conf,
    id: Uuid,
    access_log: Option<Access>,
) -> Result<Options, StartError> {
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
        client: conf.client_limits,
        cache_bytes_max: conf.mem_cache_size,
        facts: Facts {
            id,
            hostname: hostname(),
            version: conf.kong_version.clone(),
            tracing: conf.tracing.clone(),
        },
        keepalive: conf.upstream_keepalive,
        error_type: conf.error_default_type,
        access_log,
        telemetry: None,
        takes_streams: !conf.stream_listen.is_empty(),
        stream_access_log: None,
        tls_verified: client(ServerTrust::Roots(trusted(conf)))?,
        tls_unverified: client(ServerTrust::Anybody)?,
    })
}
