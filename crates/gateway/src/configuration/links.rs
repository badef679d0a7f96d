//! What belongs to what in a configuration, so that one of them can change alone.

use std::collections::HashMap;
use std::sync::Arc;

use sallyport_model::entities::ConfigTable;
use sallyport_plugins::ids::Ids;
use uuid::Uuid;

/// What belongs to what, so that one of them can change alone.
#[derive(Clone, Default)]
pub(super) struct Links {
    /// Upstreams by name.
    pub(super) upstreams: Ids<Uuid, Box<str>>,
    /// The upstreams of targets.
    pub(super) upstream_of: Ids<Uuid>,
    /// Services by their `host`.
    pub(super) services: Ids<Arc<Vec<Uuid>>, Box<str>>,
    /// Certificates that services or upstreams show, and perhaps some that they did show.
    pub(super) shown: Ids<()>,
}

impl Links {
    pub(super) fn new(table: &ConfigTable) -> Links {
        let mut services: HashMap<&str, Vec<Uuid>> = HashMap::new();
        for service in &table.services {
            let of_host = services.entry(&service.host).or_default();
            of_host.push(service.id);
        }
        let upstreams = table.upstreams.iter();
        let shown = table.services.iter().map(|it| it.client_certificate);
        let shown = shown.chain(upstreams.clone().map(|it| it.client_certificate));
        let targets = table.targets.iter();
        Links {
            upstreams: upstreams
                .map(|it| (it.name.as_str().into(), it.id))
                .collect(),
            upstream_of: targets.map(|it| (it.id, it.upstream.0)).collect(),
            services: services
                .into_iter()
                .map(|(host, ids)| (host.into(), Arc::new(ids)))
                .collect(),
            shown: shown.flatten().map(|it| (it.0, ())).collect(),
        }
    }

    pub(super) fn join_host(&mut self, host: &str, service: Uuid) {
        let mut services = self.services.remove(host).unwrap_or_default();
        Arc::make_mut(&mut services).push(service);
        self.services.insert(host.into(), services);
    }

    pub(super) fn leave_host(&mut self, host: &str, service: Uuid) {
        if let Some(mut services) = self.services.remove(host) {
            Arc::make_mut(&mut services).retain(|own| *own != service);
            if !services.is_empty() {
                self.services.insert(host.into(), services);
            }
        }
    }
}
