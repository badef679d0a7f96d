//! `telemetry`: what this gateway counted, to its control plane.
//!
//! Every worker folds its requests into a [`Fold`] of its own, which costs a look-up in a small table
//! and a few additions, and hands it in once a second. One task puts those together and sends them as
//! OTLP to `cluster_telemetry_endpoint`; while nobody takes them they wait in a [`Buffer`] with a
//! bound. Without an endpoint nothing of this exists.

mod buffer;
mod fold;
mod sender;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_runtime::tls::client::ClientConfigError;
use sallyport_wire::telemetry::{Dimensions, Source, Totals};
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use fold::{Fold, Request};
pub(crate) use sender::run;

use crate::conf::{ClusterMaterial, Conf, ControlPlaneAddr};
use crate::config_sync::{ClusterTls, Place, Through, hostname, proxy};

/// Hand-ins that wait for the sender; it takes one in microseconds.
const INBOX_MAX: usize = 256;

/// What a worker hands in.
pub(crate) type Folded = HashMap<Dimensions, Totals>;

/// What the node tells about its telemetry.
#[derive(Default)]
pub(crate) struct Counters {
    /// Batches that were acknowledged.
    pub(crate) sent: AtomicU64,
    /// Records that were given up, and the requests in them.
    pub(crate) dropped_records: AtomicU64,
    pub(crate) dropped_requests: AtomicU64,
    /// Of those, requests that no batch told of yet.
    untold: AtomicU64,
    /// Records that wait.
    pub(crate) waiting: AtomicU64,
    /// Whether the last attempt succeeded.
    pub(crate) connected: AtomicBool,
}

impl Counters {
    fn dropped(&self, records: u64, requests: u64) {
        self.dropped_records.fetch_add(records, Ordering::Relaxed);
        self.dropped_requests.fetch_add(requests, Ordering::Relaxed);
        self.untold.fetch_add(requests, Ordering::Relaxed);
    }
}

/// Where workers hand in what they folded.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: mpsc::Sender<Folded>,
    pub(crate) counters: Arc<Counters>,
}

impl Inbox {
    /// The inbox, and what comes out of it.
    pub(crate) fn new() -> (Inbox, mpsc::Receiver<Folded>) {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        let counters = Arc::default();
        (Inbox { sender, counters }, receiver)
    }

    fn hand_in(&self, folded: Folded) {
        if let Err(refused) = self.sender.try_send(folded) {
            let folded = refused.into_inner();
            let requests = folded.values().map(Totals::requests).sum();
            self.counters.dropped(folded.len() as u64, requests);
        }
    }
}

/// Where telemetry goes and how.
pub(crate) struct Settings {
    endpoint: ControlPlaneAddr,
    /// Path of the request.
    path: String,
    tls_name: String,
    tls: ClusterTls,
    proxy: Option<Through>,
    flush_interval: Duration,
    records_max: usize,
    source: Source,
    /// Made up for this run.
    run: Uuid,
}

impl Settings {
    /// From `kong.conf`; `None` if telemetry goes nowhere.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub(crate) fn new(
        conf: &Conf,
        material: Option<&ClusterMaterial>,
        node: Uuid,
    ) -> Result<Option<Settings>, ClientConfigError> {
        let cluster = conf.cluster.as_ref();
        let (Some(cluster), Some(material)) = (cluster, material) else {
            return Ok(None);
        };
        let (Some(telemetry), Some(tls_name)) = (&cluster.telemetry, cluster.telemetry_tls_name())
        else {
            return Ok(None);
        };
        let tls = ClusterTls::new(material)?;
        Ok(Some(Settings {
            endpoint: telemetry.endpoint.clone(),
            path: format!(
                "{}{}",
                telemetry.path,
                sallyport_wire::telemetry::METRICS_PATH
            ),
            tls_name: tls_name.to_owned(),
            tls,
            proxy: proxy(conf)?,
            flush_interval: telemetry.flush_interval,
            records_max: telemetry.records_max,
            source: Source {
                node,
                hostname: hostname(),
                version: conf.kong_version.clone(),
            },
            run: Uuid::new_v4(),
        }))
    }

    /// The certificate that is shown, and what is believed.
    pub(crate) fn tls(&self) -> ClusterTls {
        self.tls.clone()
    }

    fn place(&self, tls: Arc<ClientConfig>) -> Place<'_> {
        Place {
            at: &self.endpoint,
            proxy: self.proxy.as_ref(),
            tls_name: &self.tls_name,
            tls,
        }
    }
}
