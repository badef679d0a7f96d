//! What this machine knows: resolvers, authorities, open sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustls::RootCertStore;
use sallyport_contract::{Catalogue, Installation, Net, PublishedList, Role};
use sallyport_doctor::fetch;
use sallyport_runtime::tls::client::TrustError;
use sallyport_runtime::tls::{ServerTrust, trust_store};

use crate::commands::described::{answer, remark};

/// For the published list.
const FETCH_LIMIT: Duration = Duration::from_secs(30);

/// Name servers of `/etc/resolv.conf`.
pub(super) fn resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words
            .next()
            .filter(|it| *it == "nameserver")
            .and(words.next())?;
        address.split('%').next()?.parse().ok()
    });
    servers.collect()
}

/// The system's authorities, and the one of `--ca`.
pub(crate) fn trust(ca: Option<&str>) -> anyhow::Result<ServerTrust> {
    let mut entries = vec!["system"];
    entries.extend(ca);
    let roots = match trust_store(&entries) {
        Err(TrustError::System(reason)) => {
            remark(&format!(
                "note: this machine has no list of authorities{reason}"
            ));
            trust_store(&entries[1..])
        }
        other => other,
    };
    let roots: RootCertStore = roots.map_err(|error| anyhow!("--ca: {error}"))?;
    Ok(ServerTrust::Roots(Arc::new(roots)))
}

/// What a published list says, by host name. `place` is a file, or the URL of one.
pub(super) fn published(
    place: Option<&str>,
    ca: Option<&str>,
) -> anyhow::Result<BTreeMap<String, Vec<Net>>> {
    let Some(place) = place else {
        return Ok(BTreeMap::new());
    };
    let text = if place.starts_with("https://") || place.starts_with("http://") {
        let fetched = fetch(place, None, None, trust(ca)?, FETCH_LIMIT);
        let fetched = super::runtime()?.block_on(fetched)?;
        String::from_utf8(fetched.body).with_context(|| place.to_owned())?
    } else {
        std::fs::read_to_string(place)
            .with_context(|| format!("could not read the published list {place}"))?
    };
    let list = PublishedList::parse(&text).with_context(|| place.to_owned())?;
    let hosts = list.regions.into_values().flatten();
    Ok(hosts
        .map(|(host, nets)| (host, nets.into_iter().collect()))
        .collect())
}

/// Prints the sockets that processes of this program listen on, and flags those that are open to the
/// network without a row.
pub(super) fn surface(catalogue: &Catalogue, mut installation: Installation) -> anyhow::Result<()> {
    // Any feature may be in use on this machine; the question is whether the contract knows the port.
    installation.features = catalogue.features.keys().cloned().collect();
    installation.roles = Role::ALL.to_vec();
    let known = sallyport_doctor::inbound(catalogue, &installation, &Role::ALL)
        .map_err(|error| anyhow!("the installation cannot be used: {error}"))?;
    let exe = std::env::current_exe()?;
    let name = exe
        .file_name()
        .map(|it| it.to_string_lossy().into_owned())
        .unwrap_or_default();
    let all = sallyport_doctor::surface()?;
    let own: Vec<_> = all
        .into_iter()
        .filter(|it| {
            it.process
                .as_ref()
                .is_some_and(|(_, program)| program.trim_end_matches(" (deleted)") == name)
        })
        .collect();
    let ports: Vec<_> = known.iter().map(|(port, _)| *port).collect();
    let unknown = sallyport_doctor::unknown(&own, &ports);
    let mut text = String::new();
    for socket in &own {
        let ids = known
            .iter()
            .find(|(port, _)| *port == socket.port)
            .map(|(_, ids)| ids.join(", "));
        let about = match (unknown.contains(&socket), ids) {
            (true, _) => {
                "NOT IN THE CONTRACT: no rule will let it in; move it to loopback, or say so \
                          under `ports` or `exposed` of the installation"
                    .to_owned()
            }
            (false, Some(ids)) => ids,
            (false, None) => "loopback only".to_owned(),
        };
        let pid = socket
            .process
            .as_ref()
            .map(|(pid, _)| *pid)
            .unwrap_or_default();
        text.push_str(&format!(
            "{:<24} {:<10} process {pid:<8} {about}\n",
            socket.address.to_string(),
            socket.port.to_string()
        ));
    }
    if own.is_empty() {
        remark(
            "no process of this program listens here (or they belong to another user: try as root)",
        );
    }
    answer(&text)?;
    match unknown.len() {
        0 => Ok(()),
        count => bail!("{count} listening sockets are outside the contract"),
    }
}
