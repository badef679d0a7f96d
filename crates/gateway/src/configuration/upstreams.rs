//! Upstreams made ready to serve.

use std::collections::HashMap;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::ConfigTable;
use uuid::Uuid;

use super::Unservable;
use crate::balancer::{Balancer, Balancers};
use crate::certificates;

/// The balancer of every upstream, by the upstream's name.
pub(super) fn upstreams<'a>(
    table: &'a ConfigTable,
    loaded: &certificates::Identities,
    balancers: &Balancers,
    problems: &mut Vec<Unservable>,
) -> HashMap<&'a str, Arc<Balancer>> {
    let mut targets: HashMap<Uuid, Vec<_>> = HashMap::new();
    for target in &table.targets {
        targets.entry(target.upstream.0).or_default().push(target);
    }
    let mut made = HashMap::new();
    for upstream in &table.upstreams {
        let targets = targets.get(&upstream.id).map_or(&[][..], Vec::as_slice);
        let shown = upstream.client_certificate;
        let shown = shown.and_then(|id| Some(&loaded.get(&id.0)?.first));
        match balancers.balancer(upstream, targets, shown) {
            Ok(balancer) => _ = made.insert(upstream.name.as_str(), balancer),
            Err(reason) => problems.push(Unservable::new(
                Kind::Upstream,
                upstream.id,
                Some(&upstream.name),
                reason,
            )),
        }
    }
    made
}
