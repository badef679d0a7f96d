//! `sallyport firewall`: rules for any firewall, rendered from the network contract.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Catalogue, Policy, Role, View, diff, policy};

use super::described::{Described, answer, remark, role};
use super::gateway_conf::GatewayConf;

/// Prints firewall rules for a machine or for all machines of a role.
///
/// The rules allow new connections in the direction and to the port of each row of the network
/// contract that applies; everything else is dropped. Keep `--format json` of what is in force:
/// `--diff` compares with it after a change.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Dialect of the rules
    #[arg(long, value_parser = format, required_unless_present = "diff")]
    format: Option<Format>,
    /// Any machine of this role, such as `gateway`
    #[arg(long, value_parser = role, required_unless_present = "node", conflicts_with = "node")]
    role: Option<Role>,
    /// Only this geo, such as `eu`
    #[arg(long, conflicts_with = "node")]
    geo: Option<String>,
    /// The machine of this name in the installation
    #[arg(long, requires = "installation")]
    node: Option<String>,
    /// Prints what to add (+) and to remove (-) since this policy, written by `--format json`
    #[arg(long, value_name = "OLD.json", conflicts_with = "format")]
    diff: Option<PathBuf>,
    /// Settings of a gateway: the name of its control plane, and its ports
    #[arg(long, value_name = "FILE", conflicts_with_all = ["installation", "base", "prefix", "geo"])]
    conf: Option<PathBuf>,
    #[command(flatten)]
    described: Described,
}

fn format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| {
        let all: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
        format!("no such format; there are: {}", all.join(", "))
    })
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let catalogue = args.described.catalogue()?;
    let known = match &args.conf {
        Some(path) => GatewayConf::read(path)?.installation(&catalogue),
        None => args
            .described
            .installation(&catalogue, args.role, args.geo.as_deref())?,
    };
    let view = match (&args.node, args.role) {
        (Some(node), _) => View::Node(node.clone()),
        (None, Some(role)) => View::Role {
            role,
            geo: args.geo.as_ref().map(|geo| geo.to_ascii_lowercase()),
        },
        (None, None) => bail!("say whose rules: --role or --node"),
    };
    let policy = policy(&catalogue, &known.installation, &view)
        .map_err(|error| anyhow!("the installation cannot be used: {error}"))?;
    if policy.rules.is_empty() && policy.withheld.is_empty() {
        return Err(nothing(&catalogue, args.role));
    }
    if !known.made_up.is_empty() && uses_names(&policy) {
        let flags: Vec<String> = known.made_up.iter().map(|it| format!("--{it}")).collect();
        let flags = flags.join(" and ");
        // Names decide in these dialects; a made-up one would lock the machine out.
        if matches!(
            args.format,
            Some(Format::Cilium | Format::Squid | Format::AllowList)
        ) {
            bail!(
                "this format allows by name, so the names must be real: give {flags}, or --installation"
            );
        }
        remark(&format!(
            "note: names in comments are made up; give {flags}, or --installation"
        ));
    }
    for it in &policy.withheld {
        remark(&format!("not opened: {}: {}", it.id, it.reason));
    }
    match (&args.diff, args.format) {
        (Some(path), _) => {
            let old = std::fs::read_to_string(path)
                .with_context(|| format!("could not read the old policy {}", path.display()))?;
            let change = diff(&old, &policy).with_context(|| path.display().to_string())?;
            if change.is_empty() {
                remark("nothing changes");
            }
            answer(&change.to_string())
        }
        (None, Some(format)) => answer(&firewall(&policy, format)),
        (None, None) => bail!("say which dialect: --format"),
    }
}

fn uses_names(policy: &Policy) -> bool {
    policy.rules.iter().any(|rule| !rule.hosts.is_empty())
}

fn nothing(catalogue: &Catalogue, role: Option<Role>) -> anyhow::Error {
    let Some(role) = role else {
        return anyhow!("no row of the contract concerns this node");
    };
    let concerned = catalogue
        .entries
        .iter()
        .filter(|entry| entry.direction(role).is_some());
    let mut features: Vec<&str> = concerned.filter_map(|it| it.feature.as_deref()).collect();
    features.sort_unstable();
    features.dedup();
    if features.is_empty() {
        return anyhow!("no row of this contract concerns the role {role}");
    }
    anyhow!(
        "no row applies to the role {role}; these features would bring some: {} (--feature)",
        features.join(", ")
    )
}
