//! What a node contributes to the published list of addresses.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use sallyport_appliance::node::{Sealer, Settings, State};
use sallyport_control::{Contribution, Contributor, Feed, Seal, described_addresses};
use sallyport_store::Store;

/// What the key of the list is sealed as.
const KEY: &str = "ip_addresses";

struct OfCluster(Sealer);

impl Seal for OfCluster {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        self.0.seal(KEY, plain).map_err(|it| it.to_string())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String> {
        self.0.open(KEY, sealed).map_err(|it| it.to_string())
    }
}

/// The list, with the addresses of this node and those of its file.
pub(super) async fn feed(
    settings: &Settings,
    state: &State,
    store: Store,
    sealer: Sealer,
    directory: &Path,
) -> anyhow::Result<Feed> {
    let planes = &settings.control_planes;
    let base_domain = &planes.base_domain;
    let (ingress, egress) = settings.published();
    let mut contribution = Contribution::of_node(base_domain, &planes.geo, &ingress, &egress);
    for geo in &planes.more_geos {
        let more = Contribution::of_node(base_domain, geo, &ingress, &egress);
        contribution.merge(more);
    }
    if let Some(path) = &planes.ip_addresses {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        let described = described_addresses(&text, base_domain);
        contribution.merge(described.with_context(|| path.display().to_string())?);
    }
    let seal = OfCluster(sealer);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let feed = Feed::open(
        store,
        Contributor::Node(state.identity.id),
        contribution,
        base_domain,
        directory,
        Some(&seal),
        i64::try_from(now)?,
    );
    Ok(feed.await?)
}
