//! Edits of services.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap;
use sallyport_model::Kind;
use sallyport_model::entities::Foreign;
use sallyport_plugins::ids::Ids;
use uuid::Uuid;

use super::Edits;
use super::balancers::ChangedBalancers;
use crate::balancer::Balancers;
use crate::certificates::{self, Made, UpstreamTlsMaker};
use crate::configuration::links::Links;
use crate::configuration::services::{served_service, tls_of};
use crate::configuration::{Configuration, ServedService, Unservable};
use crate::router::is_stream;

/// The services of the next configuration.
pub(super) struct ChangedServices {
    pub(super) all: Ids<Arc<ServedService>>,
    /// Those among them that are other than before.
    pub(super) changed: BTreeSet<Uuid>,
}

impl Configuration {
    pub(super) fn edited_services(
        &self,
        edits: &Edits,
        (behind, loaded, balancers): (&ChangedBalancers, &certificates::Identities, &Balancers),
        links: &mut Links,
        problems: &mut Vec<Unservable>,
    ) -> Option<(ChangedServices, Made)> {
        let mut all = self.services.clone();
        let mut changed = BTreeSet::new();
        let mut maker = UpstreamTlsMaker::new(&self.tls_defaults, &self.upstream_tls);
        for balancer in &behind.changed {
            let services = links.services.get(&*balancer.name).cloned();
            for id in services.iter().flat_map(|ids| ids.iter()) {
                let service = all.get(id)?.with(balancer);
                // these are held elsewhere as well
                if service.is_stream {
                    return None;
                }
                all.insert(*id, Arc::new(service));
                changed.insert(*id);
            }
        }
        for id in edits.gone(Kind::Service) {
            let before = all.remove(&id);
            if before.as_ref().is_some_and(|before| before.is_stream) {
                return None;
            }
            if let Some(before) = before {
                links.leave_host(&before.upstream, id);
            }
        }
        for service in &edits.services {
            let before = all.get(&service.id).cloned();
            let was_stream = before.as_ref().is_some_and(|before| before.is_stream);
            if was_stream || is_stream(service.protocol) || !service.ca_certificates.is_empty() {
                return None;
            }
            if let Some(Foreign(id)) = service.client_certificate {
                loaded.get(&id)?;
                links.shown.insert(id, ());
            }
            let upstream = links.upstreams.get(&*service.host);
            let upstream = upstream.and_then(|id| behind.all.get(id));
            let tls = tls_of(loaded, (service, upstream), &AHashMap::new(), &mut maker);
            match served_service(service, upstream, balancers, tls) {
                Ok(made) => all.insert(service.id, Arc::new(made)),
                Err(unservable) => problems.push(unservable),
            }
            if let Some(before) = before {
                links.leave_host(&before.upstream, service.id);
            }
            links.join_host(&service.host, service.id);
            changed.insert(service.id);
        }
        Some((ChangedServices { all, changed }, maker.finish_with_before()))
    }
}
