//! `sallyport node join`: takes this machine into a cluster.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use sallyport_appliance::node_control::join;
use sallyport_store::NodeRole;

use super::init::STARTER;
use crate::home;

pub(super) fn run(file: &Path, token: &str, advertise: Option<SocketAddr>) -> anyhow::Result<()> {
    let written = !file.exists();
    if written {
        if let Some(parent) = file.parent().filter(|it| !it.as_os_str().is_empty()) {
            home::make_directory(parent)?;
        }
        home::write_private(file, &STARTER.replace("HOSTNAME", &super::hostname()))?;
    }
    let settings = super::settings(file)?;
    // What the file says is what the node will say; without a word there, the way to the token's node.
    let advertise = match (advertise, settings.node_control.advertise) {
        (None, None) if settings.node_control.listen.ip().is_unspecified() => None,
        (Some(given), _) => Some(given),
        (None, _) => Some(settings.advertised()?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let joined = runtime.block_on(join(&settings, token, advertise))?;
    let mut more = String::new();
    if settings.node_control.advertise != Some(joined.address)
        && settings.node_control.listen != joined.address
    {
        more.push_str(&format!(
            "node_control.advertise = \"{}\"\n",
            joined.address
        ));
    }
    if joined.identity.role == NodeRole::Data && settings.database.is_none() {
        more.push_str(&format!("database.url = {:?}\n", joined.database));
    }
    if !more.is_empty() {
        add(file, &more)?;
    }
    crate::commands::print(&format!(
        "{} joined cluster {} as a {} node, reachable at {}.\nStart it: sallyport node run --config {}",
        joined.identity.name,
        joined.identity.cluster,
        joined.identity.role,
        joined.address,
        file.display()
    ))
}

/// Puts dotted keys before the first section, where they belong to no section.
fn add(file: &Path, keys: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("could not read {}", file.display()))?;
    let at = text
        .lines()
        .take_while(|line| !line.trim_start().starts_with('['))
        .map(|line| line.len() + 1)
        .sum::<usize>()
        .min(text.len());
    let (head, rest) = text.split_at(at);
    let text = format!("{head}# added by `node join`\n{keys}\n{rest}");
    // What the cluster said must not break a file that was right before.
    sallyport_appliance::node::Settings::parse(file, &text, "n").with_context(|| {
        format!(
            "could not add to {}; add there by hand:\n{keys}",
            file.display()
        )
    })?;
    home::write_private(file, &text)
}
