//! `sallyport doctor`: proves each row of the network contract from this machine.

mod cluster;
mod known;

pub(crate) use known::trust;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sallyport_contract::{Catalogue, Installation, Role};
use sallyport_doctor::{Here, Options, Plan, Skipped, Target, Via, across, plan, report};
use sallyport_runtime::ForwardProxy;
use sallyport_runtime::tls::{Identity, ServerTrust};
use tokio_util::sync::CancellationToken;

use super::described::{Described, Known, answer, remark, role};
use super::gateway_conf::GatewayConf;
use super::maintenance;
use crate::shutdown::Shutdown;

/// Proves each row of the network contract from this machine: is it open, and does the right far
/// end answer?
///
/// Exits with status 1 if a row is not ok. Rows that come in are tried from the other side; before
/// the product is installed there, run `sallyport doctor --listen` on it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What this machine is, such as `gateway`, `client` or `operator`; may be repeated
    #[arg(long, value_parser = role)]
    role: Vec<Role>,
    /// The name of this machine in the installation; with --cluster, the one node that shall try
    #[arg(long, visible_alias = "from")]
    node: Option<String>,
    /// Only this geo, such as `eu`
    #[arg(long)]
    geo: Option<String>,
    /// Settings of the gateway on this machine: its control plane, certificates and ports
    #[arg(long, value_name = "FILE", conflicts_with_all = ["installation", "base", "prefix"])]
    conf: Option<PathBuf>,
    /// Forward proxy to the control plane, `http://[user:password@]host:port` [default: that of --conf]
    #[arg(long, value_name = "URL")]
    proxy: Option<Via>,
    /// Certificate of the authority that issues the installation's certificates (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// This machine's certificate, where both ends show one (PEM)
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "conf")]
    cert: Option<String>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
    /// The published list of addresses (ip-addresses.json), which names must agree with
    #[arg(long, value_name = "FILE or URL")]
    published: Option<String>,
    /// Limit of each step: lookup, connection, handshake, answer
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Instead: how long the way keeps connections on which nothing is said, tried up to this
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=7200))]
    idle: Option<u64>,
    /// Prints JSON
    #[arg(long, conflicts_with = "junit")]
    json: bool,
    /// Prints JUnit XML
    #[arg(long)]
    junit: bool,
    /// Opens the ports on which the role accepts, and greets whoever tries them
    #[arg(long, requires = "role")]
    listen: bool,
    /// Where to listen [default: all addresses]
    #[arg(long, value_name = "IP", requires = "listen")]
    address: Option<IpAddr>,
    /// How long to listen [default: until stopped]
    #[arg(long = "for", value_name = "SECONDS", requires = "listen")]
    listen_secs: Option<u64>,
    /// Instead: every node of the appliance cluster tries every other one, on every row between nodes
    /// that is in use, by way of the node that runs on this machine; --feature adds rows that no
    /// node shows, such as `maintenance`
    #[arg(long, conflicts_with_all = ["role", "conf", "listen", "surface"])]
    cluster: bool,
    /// Settings of the node that runs on this machine, for --cluster
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sallyport/node.toml",
        env = "SALLYPORT_NODE_CONFIG"
    )]
    config: PathBuf,
    /// Shows the product's listening sockets on this machine, and those outside the contract
    #[arg(long, conflicts_with = "listen")]
    surface: bool,
    /// Instead: checks this node's access for maintenance over SSH, as `sallyport maintenance check`
    #[arg(long, conflicts_with_all = ["cluster", "role", "conf", "listen", "surface", "json", "junit"])]
    maintenance: bool,
    #[command(flatten, next_help_heading = "With --maintenance")]
    ssh: maintenance::Check,
    #[command(flatten, next_help_heading = "Installation")]
    described: Described,
}

/// Checks at once.
const AT_ONCE: usize = 64;
/// Under this id the doctor presents itself to a control plane; no gateway has it.
const NODE_ID: &str = "d0c70d0c-70d0-4c70-8d0c-70d0c70d0c70";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.maintenance {
        return maintenance::check(&args.ssh);
    }
    if args.cluster {
        let features = args.described.features(sallyport_contract::catalogue())?;
        let form = match (args.json, args.junit) {
            (true, _) => cluster::Form::Json,
            (_, true) => cluster::Form::Junit,
            _ => cluster::Form::Text,
        };
        return cluster::run(&args.config, args.node.as_deref(), &features, form);
    }
    if args.node.is_some() && !args.described.has_installation() {
        bail!("--node names a machine of an installation: give --installation FILE, or --cluster");
    }
    let catalogue = args.described.catalogue()?;
    let conf = args.conf.as_deref().map(GatewayConf::read).transpose()?;
    let first = args.role.first().copied();
    let Known {
        installation,
        made_up,
    } = match &conf {
        Some(conf) => conf.installation(&catalogue),
        None => args
            .described
            .installation(&catalogue, first, args.geo.as_deref())?,
    };
    if args.surface {
        return known::surface(&catalogue, installation);
    }
    if args.listen {
        return listen(args, &catalogue, &installation);
    }
    let mut roles = args.role.clone();
    if let Some(name) = &args.node {
        let node = installation.nodes.iter().find(|node| node.name == *name);
        roles.extend(node.into_iter().flat_map(|node| &node.roles));
    } else if roles.is_empty() && conf.is_some() {
        roles.push(Role::Gateway);
    }
    if roles.is_empty() {
        bail!("say what this machine is: --role, --node with --installation, or --conf");
    }
    let options = Options {
        limit: Duration::from_secs(args.timeout),
        at_once: AT_ONCE,
        trust: trust(args.ca.as_deref())?,
        cluster: match &conf {
            Some(conf) => conf.cluster.clone(),
            None => own_identity(args)?,
        },
    };
    let here = Here {
        roles,
        node: args.node.clone(),
        geo: args.geo.as_ref().map(|geo| geo.to_ascii_lowercase()),
        resolvers: known::resolvers(),
        via: via(args, conf.as_ref())?,
        direct: conf.as_ref().map(GatewayConf::direct).unwrap_or_default(),
        server_names: conf
            .as_ref()
            .map(|conf| conf.server_names.clone())
            .unwrap_or_default(),
        published: known::published(args.published.as_deref(), args.ca.as_deref())?,
        issuer_known: args.ca.is_some(),
        cluster_known: conf.as_ref().is_some_and(|conf| conf.cluster.is_some()),
        node_id: NODE_ID.to_owned(),
    };
    let plan = plan(&catalogue, &installation, &here)
        .map_err(|error| anyhow!("the installation cannot be used: {error}"))?;
    let plan = without_made_up(plan, &made_up);
    if plan.checks.is_empty() && plan.skipped.is_empty() {
        bail!("no row of the contract concerns this machine");
    }
    try_all(args, plan, options)
}

/// Through what the control plane is reached: as this run is told, else as the gateway is.
fn via(args: &Args, conf: Option<&GatewayConf>) -> anyhow::Result<Option<Via>> {
    if args.proxy.is_some() {
        return Ok(args.proxy.clone());
    }
    match conf.and_then(|conf| conf.proxy.clone()) {
        None => Ok(None),
        Some(proxy) if proxy.tls => bail!(
            "proxy_server {proxy}: the doctor does not speak TLS to a forward proxy yet; if it \
             has a port without TLS as well, give that by --proxy"
        ),
        Some(ForwardProxy {
            host,
            port,
            credentials,
            ..
        }) => Ok(Some(Via {
            host,
            port,
            credentials,
        })),
    }
}

fn try_all(args: &Args, plan: Plan, options: Options) -> anyhow::Result<()> {
    let total = plan.checks.len();
    let watched = std::io::stderr().is_terminal();
    let mut done = 0;
    let progress = |_: &sallyport_doctor::Outcome| {
        done += 1;
        if watched {
            let end = if done == total { "\r          \r" } else { "" };
            eprint_now(&format!("\r{done} of {total}{end}"));
        }
    };
    let runtime = runtime()?;
    let checks = plan.checks;
    let mut outcomes = match args.idle {
        None => runtime.block_on(sallyport_doctor::run(checks, options, progress)),
        Some(secs) => {
            remark(&format!("keeping silent for {secs} s"));
            let longest = Duration::from_secs(secs);
            runtime.block_on(sallyport_doctor::idle(checks, options, longest, progress))
        }
    };
    // A lookup that hangs in the system's library must not keep the answer back.
    runtime.shutdown_background();
    across(&mut outcomes);
    answer(&match (args.json, args.junit) {
        (true, _) => report::json(&outcomes, &plan.skipped),
        (_, true) => report::junit(&outcomes, &plan.skipped),
        _ => report::text(&outcomes, &plan.skipped),
    })?;
    match outcomes
        .iter()
        .filter(|it| it.verdict.status.is_bad())
        .count()
    {
        0 => Ok(()),
        bad => bail!("{bad} of {total} connections are not ok"),
    }
}

fn eprint_now(text: &str) {
    use std::io::Write;
    // If standard error is closed there is nobody to tell.
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")
}

fn own_identity(args: &Args) -> anyhow::Result<Option<(ServerTrust, Identity)>> {
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else {
        return Ok(None);
    };
    let identity = Identity::load(cert, key)
        .map_err(|error| anyhow!("--cert and --key cannot be used: {error}"))?;
    Ok(Some((trust(args.ca.as_deref())?, identity)))
}

/// Rows whose names nobody told are left out, so that no made-up name is dialled.
fn without_made_up(plan: Plan, made_up: &[&'static str]) -> Plan {
    let flags: Vec<String> = made_up.iter().map(|it| format!("--{it}")).collect();
    let Plan {
        checks,
        mut skipped,
    } = plan;
    let (unknown, checks): (Vec<_>, Vec<_>) = checks.into_iter().partition(
        |check| matches!(&check.target, Target::Name(name) if super::described::is_made_up(name)),
    );
    for check in unknown {
        let reason = format!(
            "its name is not known; give {}, --installation or --conf",
            flags.join(" and ")
        );
        let it = Skipped {
            id: check.id,
            title: check.title,
            reason,
        };
        if !skipped.contains(&it) {
            skipped.push(it);
        }
    }
    Plan { checks, skipped }
}

fn listen(args: &Args, catalogue: &Catalogue, installation: &Installation) -> anyhow::Result<()> {
    let ports = sallyport_doctor::inbound(catalogue, installation, &args.role)
        .map_err(|error| anyhow!("the installation cannot be used: {error}"))?;
    if ports.is_empty() {
        bail!("nobody connects to the role {}", args.role[0]);
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let listening = sallyport_doctor::listen(&ports, args.address)
            .context("a port in use means that the product runs already: no need to listen")?;
        for (port, ids) in &ports {
            remark(&format!("listening on {port} ({})", ids.join(", ")));
        }
        remark("now run `sallyport doctor` on the other side; stop with Ctrl-C");
        let stop = CancellationToken::new();
        let serving = listening.serve(stop.clone());
        tokio::pin!(serving);
        let end = async {
            match args.listen_secs {
                Some(secs) => {
                    let time = tokio::time::sleep(Duration::from_secs(secs));
                    tokio::select! { () = time => {}, () = shutdown.requested() => {} }
                }
                None => shutdown.requested().await,
            }
        };
        tokio::select! { () = &mut serving => {}, () = end => {} }
        stop.cancel();
        serving.await;
        Ok(())
    })
}
