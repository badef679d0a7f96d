//! What goes wrong with requests, told with its reason and whose fault it was.

use std::fmt::Display;

use sallyport_plugins::Exchange;
use tracing::{error, info};

use super::serve::Turn;
use crate::logs::CLIENT_FAULTS;

/// Who has to change something so that it does not happen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Whoever sent the request.
    Client,
    /// The service behind the gateway, or the network to it.
    Upstream,
    /// The gateway, or its configuration.
    Gateway,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Gateway => "gateway",
        }
    }
}

impl Turn<'_> {
    /// A request was refused because something failed.
    pub(super) fn report(&self, fault: Fault, reason: &dyn Display, exchange: &Exchange) {
        let request = &exchange.request;
        let fault_of = fault.as_str();
        let client = exchange.client_ip;
        let (method, uri) = (&request.method, &request.uri);
        let id = self.request_id.to_str().unwrap_or_default();
        let service = exchange.service.map(tracing::field::display);
        match fault {
            Fault::Client => info!(
                target: CLIENT_FAULTS,
                fault = fault_of, %reason, %client, request = %format_args!("\"{method} {uri}\""),
                service, request_id = id, "request failed"
            ),
            Fault::Upstream | Fault::Gateway => error!(
                fault = fault_of, %reason, %client, request = %format_args!("\"{method} {uri}\""),
                service, request_id = id, "request failed"
            ),
        }
    }
}
