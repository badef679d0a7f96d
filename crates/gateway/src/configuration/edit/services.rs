//! Edits of services.

use std::collections::BTreeSet;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::Foreign;
use sallyport_plugins::ids::Ids;
use uuid::Uuid;

use super::Edits;
use super::balancers::ChangedBalancers;
use super::certificates::ChangedCertificates;
use crate::balancer::Balancers;
use crate::certificates::{Made, UpstreamTlsMaker};
use crate::configuration::links::Links;
use crate::configuration::services::{served_service, tls_of};
use crate::configuration::{Configuration, ServedService, Unservable};
use crate::router::is_stream;

/// The services of the next configuration.
pub(super) struct ChangedServices {
    pub(super) all: Ids<Arc<ServedService>>,
    /// Those among them that are other than before.
    pub(super) changed: BTreeSet<Uuid>,
    /// Those among them that are for streams from now on, or are no longer.
    pub(super) switched: Vec<Uuid>,
}

impl Configuration {
    pub(super) fn edited_services(
        &self,
        edits: &Edits,
        (behind, certificates, balancers): (&ChangedBalancers, &ChangedCertificates, &Balancers),
        links: &mut Links,
        problems: &mut Vec<Unservable>,
    ) -> Option<(ChangedServices, Made)> {
        let mut all = self.services.clone();
        let mut changed = BTreeSet::new();
        let mut switched = Vec::new();
        let mut maker = UpstreamTlsMaker::new(&self.tls_defaults, &self.upstream_tls);
        for balancer in &behind.changed {
            let services = links.services.get(&*balancer.name).cloned();
            for id in services.iter().flat_map(|ids| ids.iter()) {
                let service = all.get(id)?.with(balancer);
                all.insert(*id, Arc::new(service));
                changed.insert(*id);
            }
        }
        for id in edits.gone(Kind::Service) {
            if let Some(before) = all.remove(&id) {
                links.leave(&before);
            }
        }
        for service in &edits.services {
            let before = all.get(&service.id).cloned();
            let was_stream = before.as_ref().map(|before| before.is_stream);
            if was_stream.is_some_and(|was| was != is_stream(service.protocol)) {
                switched.push(service.id);
            }
            if let Some(Foreign(id)) = service.client_certificate {
                certificates.loaded.get(&id)?;
            }
            let upstream = links.upstreams.get(&*service.host);
            let upstream = upstream.and_then(|id| behind.all.get(id));
            let known = (&certificates.loaded, &certificates.authorities);
            let tls = tls_of(known, (service, upstream), &mut maker);
            let made = match served_service(service, upstream, balancers, tls) {
                Ok(made) => Arc::new(made),
                Err(unservable) => {
                    problems.push(unservable);
                    continue;
                }
            };
            if let Some(before) = before {
                links.leave(&before);
            }
            links.join(&made);
            all.insert(service.id, made);
            changed.insert(service.id);
        }
        let services = ChangedServices {
            all,
            changed,
            switched,
        };
        Some((services, maker.finish_with_before()))
    }
}
