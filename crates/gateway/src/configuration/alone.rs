//! What is wrong with an entity whatever else there is.

use sallyport_model::config_table::flat;
use sallyport_model::entities::{Certificate, Plugin, Route, Upstream};
use sallyport_model::{Kind, RouterFlavor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::edit::is_plain;
use crate::balancer::Balancers;
use crate::certificates;
use crate::chain::Handlers;
use crate::conf::Dns;
use crate::router::{Router, StreamRouter, is_stream};
use crate::vaults::has_reference;

/// Whether an entity that passed the schema cannot be served, and no other entity would change
/// that. `false` if it might.
pub(crate) fn is_bad_alone(kind: Kind, entity: &Value, flavor: RouterFlavor) -> bool {
    let value = flat(kind, entity.clone());
    match kind {
        Kind::Route => read::<Route>(value).is_some_and(|route| {
            let routes = std::slice::from_ref(&route);
            let is_for_streams = route.protocols.iter().copied().any(is_stream);
            Router::new(flavor).edited(routes, &[]).is_err()
                || is_for_streams && StreamRouter::new(flavor, routes).is_err()
        }),
        Kind::Plugin if has_reference(&value["config"]) => false,
        Kind::Plugin => read::<Plugin>(value).is_some_and(|plugin| {
            let plugins = std::slice::from_ref(&plugin);
            Handlers::new(plugins, &[], &Handlers::default()).is_err()
        }),
        Kind::Certificate if !is_plain(&value) => false,
        Kind::Certificate => read::<Certificate>(value).is_some_and(|certificate| {
            let certificates = std::slice::from_ref(&certificate);
            certificates::load(certificates, &certificates::Identities::default()).is_err()
        }),
        Kind::Upstream => read::<Upstream>(value).is_some_and(|upstream| {
            let balancers = Balancers::new(Dns::default());
            balancers.balancer(&upstream, &[], None).is_err()
        }),
        _ => false,
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}
