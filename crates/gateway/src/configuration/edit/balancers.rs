//! Edits of upstreams and of their targets.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap;
use sallyport_model::Kind;
use sallyport_model::entities::{Foreign, Target, Upstream};
use sallyport_plugins::ids::Ids;
use uuid::Uuid;

use super::Edits;
use crate::balancer::{Balancer, Balancers};
use crate::certificates;
use crate::configuration::links::Links;
use crate::configuration::{Configuration, Unservable};

/// The balancers of the next configuration.
pub(super) struct ChangedBalancers {
    pub(super) all: Ids<Arc<Balancer>>,
    /// Those among them that are other than before.
    pub(super) changed: Vec<Arc<Balancer>>,
}

impl Configuration {
    pub(super) fn edited_balancers(
        &self,
        edits: &Edits,
        (loaded, balancers): (&certificates::Identities, &Balancers),
        links: &mut Links,
        problems: &mut Vec<Unservable>,
    ) -> Option<ChangedBalancers> {
        let mut all = self.balancers.clone();
        let mut targets: AHashMap<Uuid, Vec<Target>> = AHashMap::new();
        let (gone, gone_targets) = (edits.gone(Kind::Upstream), edits.gone(Kind::Target));
        let of = |id: &Uuid| self.balancers.get(id).map(|it| it.source());
        let has_services = |links: &Links, name: &str| {
            let services = links.services.get(name);
            services.is_some_and(|services| !services.is_empty())
        };
        for id in &gone {
            let (upstream, _) = of(id)?;
            // its name is that of a host from now on
            if has_services(links, &upstream.name) {
                return None;
            }
            all.remove(id);
            links.upstreams.remove(&*upstream.name);
        }
        let members = |id: Uuid| of(&id).map_or_else(Vec::new, |(_, targets)| targets.to_vec());
        let moved = edits.targets.iter().map(|target| target.id);
        for id in gone_targets.into_iter().chain(moved) {
            if let Some(upstream) = links.upstream_of.remove(&id) {
                let list = targets.entry(upstream).or_insert_with(|| members(upstream));
                list.retain(|target| target.id != id);
            }
        }
        for target in &edits.targets {
            let upstream = target.upstream.0;
            let list = targets.entry(upstream).or_insert_with(|| members(upstream));
            list.push(target.clone());
            list.sort_by_key(|target| target.id);
            links.upstream_of.insert(target.id, upstream);
        }
        let mut upstreams: AHashMap<Uuid, Upstream> = AHashMap::new();
        for upstream in &edits.upstreams {
            let before = of(&upstream.id).map(|(before, _)| before);
            let same_name = before.is_some_and(|before| before.name == upstream.name);
            let same_shown =
                before.is_some_and(|it| it.client_certificate == upstream.client_certificate);
            // services that meant a host mean this, or the other way round, or show another
            if !same_name || !same_shown {
                let names = [Some(&upstream.name), before.map(|before| &before.name)];
                if names
                    .into_iter()
                    .flatten()
                    .any(|name| has_services(links, name))
                {
                    return None;
                }
            }
            if !same_name {
                if links.upstreams.get(&*upstream.name).is_some() {
                    return None;
                }
                before.map(|before| links.upstreams.remove(&*before.name));
                links
                    .upstreams
                    .insert(upstream.name.as_str().into(), upstream.id);
            }
            if let Some(Foreign(id)) = upstream.client_certificate {
                loaded.get(&id)?;
                links.shown.insert(id, ());
            }
            upstreams.insert(upstream.id, upstream.clone());
        }
        let mut touched: BTreeSet<Uuid> = targets.keys().copied().collect();
        touched.extend(upstreams.keys());
        let mut changed = Vec::new();
        for id in touched {
            if gone.contains(&id) {
                continue;
            }
            let upstream = match upstreams.get(&id) {
                Some(upstream) => upstream,
                None => of(&id)?.0,
            };
            let list = targets.remove(&id).unwrap_or_else(|| members(id));
            let shown = upstream.client_certificate;
            let shown = shown.and_then(|it| Some(&loaded.get(&it.0)?.first));
            let list: Vec<&Target> = list.iter().collect();
            match balancers.balancer(upstream, &list, shown) {
                Ok(balancer) => {
                    all.insert(id, balancer.clone());
                    changed.push(balancer);
                }
                Err(reason) if upstreams.contains_key(&id) => {
                    let name = Some(&*upstream.name);
                    problems.push(Unservable::new(Kind::Upstream, id, name, reason));
                }
                // a target is to blame
                Err(_) => return None,
            }
        }
        Some(ChangedBalancers { all, changed })
    }
}
