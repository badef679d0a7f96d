//! `sallyport node`: a node of the appliance cluster.

mod init;
mod join;
mod list;
mod plane;
mod probe;
mod published;
mod remote;
mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use http::Method;
use sallyport_appliance::node::{Settings, TokenWish, Wish, ask, socket_of};
use serde_json::{Value, json};

use crate::logging;

/// Runs a node of the appliance cluster, and administers the cluster from one.
///
/// On the first machine `node init` and `node run`; on each other one `node join --token TOKEN` and
/// `node run`, with a token that `node token` prints on the first. See docs/cluster.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Settings of the node (TOML)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/sallyport/node.toml",
        env = "SALLYPORT_NODE_CONFIG"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Founds a cluster with this machine as its first node; writes the settings file if there is none
    Init,
    /// Takes this machine into a cluster, with a token that `node token` printed on one of its nodes
    Join {
        /// The token; it works once (the environment variable keeps it out of the list of processes)
        #[arg(
            long,
            value_name = "TOKEN",
            env = "SALLYPORT_JOIN_TOKEN",
            hide_env_values = true
        )]
        token: String,
        /// What the other nodes shall dial [default: node_control.advertise of the settings, else the
        /// address by which this machine reaches the other one, port 7777]
        #[arg(long, value_name = "ADDRESS")]
        advertise: Option<std::net::SocketAddr>,
    },
    /// Runs the node (a service manager starts this, see deploy/)
    Run(logging::LogArgs),
    /// Lists the nodes of the cluster and their states
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Prints a token by which one machine may join, once
    Token {
        /// What the new node is for: data, or witness (counts for majorities, runs nothing else)
        #[arg(long, default_value = "data")]
        role: String,
        /// How long it is valid, in minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
    },
    /// Gives a node no new work: load balancers see it as down, and it does not lead
    Cordon(Name),
    /// Lets a node work again
    Uncordon(Name),
    /// Takes all work from a node, gateways reconnect elsewhere; for maintenance
    Drain(Name),
    /// Takes a node out of the cluster for good; its certificate is worth nothing from then on
    Remove(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// Name of the node
    name: String,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let file = &args.config;
    match args.command {
        Command::Init => init::run(file),
        Command::Join { token, advertise } => join::run(file, &token, advertise),
        Command::Run(log) => run::run(file, log),
        Command::List { output } => list::run(&settings(file)?, &output.output),
        Command::Token { role, minutes } => {
            let secs = minutes * 60;
            let wish = serde_json::to_value(TokenWish { role, secs })?;
            let answer = asked(&settings(file)?, Method::POST, "/token", &wish)?;
            super::print(answer["token"].as_str().unwrap_or_default())
        }
        Command::Cordon(name) => want(file, name, "cordoned"),
        Command::Uncordon(name) => want(file, name, "active"),
        Command::Drain(name) => want(file, name, "drained"),
        Command::Remove(name) => want(file, name, "removed"),
    }
}

fn want(file: &Path, name: Name, wanted: &str) -> anyhow::Result<()> {
    let Name { name } = name;
    let wish = serde_json::to_value(Wish {
        name: name.clone(),
        wanted: wanted.to_owned(),
    })?;
    asked(&settings(file)?, Method::POST, "/want", &wish)?;
    super::print(&match wanted {
        "removed" => format!("{name} is removed; it is refused from now on"),
        _ => format!("{name} is wanted {wanted}; `sallyport node list` shows when it is"),
    })
}

/// The settings, with this machine's name for a node that was given none.
fn settings(file: &Path) -> anyhow::Result<Settings> {
    Ok(Settings::load(file, &hostname())?)
}

/// The first label of this machine's name, as a node's name.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default();
    let label = label.to_ascii_lowercase().replace('_', "-");
    if label.is_empty() {
        "node".to_owned()
    } else {
        label
    }
}

/// Asks the node that runs on this machine.
fn asked(settings: &Settings, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    Ok(runtime.block_on(ask(&socket_of(settings), method, path, body))?)
}

/// What nodes found when they tried each other; with `from` only that one tries. `features` are in
/// use although no node shows it.
pub(crate) fn doctor(
    config: &Path,
    from: Option<&str>,
    features: &BTreeSet<String>,
) -> anyhow::Result<Value> {
    asked(
        &settings(config)?,
        Method::POST,
        "/doctor",
        &json!({"from": from, "features": features}),
    )
}

/// As [`asked`], with nothing to say.
fn get(settings: &Settings, path: &str) -> anyhow::Result<Value> {
    asked(settings, Method::GET, path, &json!({}))
}
