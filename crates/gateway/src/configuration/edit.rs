//! A configuration out of the one before and a few entities: what it costs depends on these.
//!
//! `None` says everywhere that it takes a look at the whole: what does not fit together. What has to
//! be made again with something (services with the certificate that they show, say) has to be among
//! the edits; [`follow`](crate::follow) puts it there.

mod balancers;
mod certificates;
mod plugins;
mod routes;
mod services;
mod vaults;

use std::sync::Arc;

use ahash::AHashSet;
use sallyport_model::Kind;
use sallyport_model::config_table::flat;
use sallyport_model::entities::{
    CaCertificate, Certificate, Plugin, Route, Service, Sni, Target, Upstream, Vault,
};
use sallyport_plugins::IdentityEdits;
use sallyport_wire::ConfigHash;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::{Configuration, Unservable};
use crate::balancer::Balancers;
use crate::closed::Closed;
use crate::vaults::inner;

/// What came of an edit: `None` if it takes more than that, an error with everything among the
/// edits that this gateway cannot serve.
type Tried<T> = Option<Result<T, Vec<Unservable>>>;

/// Entities that are new or other than before, and those that are gone.
#[derive(Default)]
pub(crate) struct Edits {
    routes: Vec<Route>,
    services: Vec<Service>,
    plugins: Vec<Plugin>,
    upstreams: Vec<Upstream>,
    targets: Vec<Target>,
    certificates: Vec<Certificate>,
    snis: Vec<Sni>,
    authorities: Vec<CaCertificate>,
    vaults: Vec<Vault>,
    identities: IdentityEdits,
    /// All of them as flat values.
    values: Vec<(Kind, Uuid, Value)>,
    gone: Vec<(Kind, Uuid)>,
    /// Scopes that are closed from now on, and that are closed no longer.
    closed: Vec<Closed>,
    opened: Vec<Closed>,
}

fn read<T: DeserializeOwned>(value: &Value, list: &mut Vec<T>) -> bool {
    let typed = T::deserialize(value);
    typed.map(|it| list.push(it)).is_ok()
}

impl Edits {
    /// Adds an entity that passed the schema; `false` if it takes more than an edit.
    #[must_use]
    pub(crate) fn put(&mut self, kind: Kind, id: Uuid, entity: &Value) -> bool {
        let mut value = flat(kind, entity.clone());
        if kind == Kind::ConsumerGroupMember {
            value["id"] = Value::String(id.to_string());
        }
        let is_read = match kind {
            Kind::Service if entity["enabled"] == false => {
                self.gone.push((kind, id));
                return true;
            }
            Kind::Service => read(&value, &mut self.services),
            Kind::Route => read(&value, &mut self.routes),
            // one that is switched off is none
            Kind::Plugin if entity["enabled"] == false => {
                self.gone.push((kind, id));
                return true;
            }
            Kind::Plugin => read(&value, &mut self.plugins),
            Kind::Upstream => read(&value, &mut self.upstreams),
            Kind::Target => read(&value, &mut self.targets),
            Kind::Certificate => read(&value, &mut self.certificates),
            Kind::Sni => read(&value, &mut self.snis),
            Kind::CaCertificate => read(&value, &mut self.authorities),
            Kind::Vault => read(&value, &mut self.vaults),
            // nothing here reads them
            Kind::Key | Kind::KeySet => true,
            _ => self.identities.put(kind, id, value.clone()),
        };
        self.values.push((kind, id, value));
        is_read
    }

    /// Adds one that is gone.
    pub(crate) fn remove(&mut self, kind: Kind, id: Uuid) {
        self.gone.push((kind, id));
        if IdentityEdits::takes(kind) {
            self.identities.remove(kind, id);
        }
    }

    /// What is closed because of a refused entity, in the place of what was.
    pub(crate) fn close(&mut self, before: &[Closed], now: &[Closed]) {
        if before != now {
            self.opened.extend_from_slice(before);
            self.closed.extend_from_slice(now);
        }
    }

    /// Services that are among them.
    fn services(&self) -> AHashSet<Uuid> {
        let put = self.services.iter().map(|it| it.id);
        put.chain(self.gone(Kind::Service)).collect()
    }

    /// Upstreams that are among them.
    fn upstreams(&self) -> AHashSet<Uuid> {
        let put = self.upstreams.iter().map(|it| it.id);
        put.chain(self.gone(Kind::Upstream)).collect()
    }

    fn gone(&self, kind: Kind) -> Vec<Uuid> {
        let of_kind = self.gone.iter().filter(|(own, _)| *own == kind);
        of_kind.map(|(_, id)| *id).collect()
    }
}

/// Whether no part of a certificate is in a vault.
pub(super) fn is_plain(certificate: &Value) -> bool {
    let texts = ["cert", "key", "cert_alt", "key_alt"];
    let mut texts = texts
        .iter()
        .filter_map(|field| certificate[*field].as_str());
    texts.all(|text| inner(text).is_none())
}

impl Configuration {
    /// This configuration with some edits; `None` if they take more than that.
    ///
    /// # Errors
    /// Everything among the edits that this gateway cannot serve.
    pub(crate) fn edited(
        &self,
        edits: &Edits,
        hash: ConfigHash,
        balancers: &Balancers,
    ) -> Tried<Configuration> {
        let identities = self.edited_identities(edits)?;
        let named_vaults = self.edited_vaults(edits)?;
        let plugins = match self.edited_plugins(edits, (&identities, &named_vaults))? {
            Ok(edited) => edited,
            Err(bad) => return Some(Err(bad)),
        };
        let certificates = match self.edited_certificates(edits, &named_vaults)? {
            Ok(edited) => edited,
            Err(bad) => return Some(Err(bad)),
        };
        let handlers = plugins.handlers;
        let mut links = self.links.clone();
        let mut problems = Vec::new();
        let changed = {
            let behind = (&certificates.loaded, balancers);
            self.edited_balancers(edits, behind, &mut links, &mut problems)?
        };
        if !problems.is_empty() {
            return Some(Err(problems));
        }
        let behind = (&changed, &certificates, balancers);
        let (services, upstream_tls) =
            self.edited_services(edits, behind, &mut links, &mut problems)?;
        let gone = edits.gone(Kind::Route);
        let (router, work) = match self.router.edited(&edits.routes, &gone) {
            Ok(edited) => edited,
            Err(bad) => {
                problems.extend(bad.into_iter().map(|(index, error)| {
                    let Route { id, name, .. } = &edits.routes[index];
                    Unservable::new(Kind::Route, *id, name.as_deref(), error.to_string())
                }));
                return Some(Err(problems));
            }
        };
        if !problems.is_empty() {
            return Some(Err(problems));
        }
        let besides = (&services, &plugins.touched);
        let routes = self.edited_routes(edits, &router, &handlers, besides)?;
        let streams = match routes.are_streams {
            true => self.edited_streams(edits, &handlers, &services),
            false => Ok(self.streams.clone()),
        };
        let streams = match streams {
            Ok(streams) => streams,
            Err(bad) => return Some(Err(bad)),
        };
        let (global_chain, global_streams) = match Arc::ptr_eq(&handlers, &self.handlers) {
            true => (self.global_chain.clone(), self.global_streams.clone()),
            false => (
                Arc::new(handlers.global_chain(false)),
                Arc::new(handlers.global_chain(true)),
            ),
        };
        Some(Ok(Configuration {
            hash,
            identities,
            global_chain,
            global_streams,
            balancers: changed.all,
            links,
            keeps_all: self.keeps_all,
            vaults: self.vaults.clone(),
            named_vaults,
            has_references: self.has_references
                || plugins.have_references
                || certificates.have_references,
            authorities: certificates.authorities,
            tls_defaults: self.tls_defaults.clone(),
            upstream_tls,
            loaded: certificates.loaded,
            named: certificates.named,
            streams,
            entities: self.entities.edited(&edits.values, &edits.gone),
            handlers,
            router,
            routes: routes.all,
            services: services.all,
            routes_of: routes.of,
            work,
        }))
    }
}
