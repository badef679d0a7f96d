//! What tests of other modules need of the proxy.

use std::sync::Arc;

use uuid::Uuid;

use super::worker::Shared;
use crate::balancer::Balancers;
use crate::certificates::{ByName, Certificates};
use crate::conf::Conf;
use crate::configuration::Configuration;
use crate::log_queue::{Queues, Ways};

/// What workers share, without listeners and without anything that runs beside them.
pub(crate) fn shared(conf: &Conf, configuration: Configuration) -> Arc<Shared> {
    let options = crate::start::options(conf, Uuid::nil(), None).unwrap();
    let balancers = Arc::new(Balancers::new(conf.dns.clone()));
    let named = ByName::new(Certificates::new(&[]));
    let unused = Ways::new(&options.tls_verified, &options.tls_unverified, "".into());
    let (queues, _) = Queues::new(unused);
    let (nodes, _) = crate::start::counting(conf, &options);
    Arc::new(Shared::new(
        options,
        configuration,
        balancers,
        (named, queues, nodes),
    ))
}
