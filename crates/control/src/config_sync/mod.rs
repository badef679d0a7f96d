//! Configuration for data planes: Kong's hybrid protocol v1, the control plane's side.
//!
//! One publisher per control plane builds one compressed payload per revision; every link to a
//! data plane sends that same payload. What a data plane runs on is what its last PING said.

mod outlet;
mod payload;
mod publishers;
mod recorder;
mod session;
mod trust;

use sallyport_store::Store;
use sallyport_wire::config_sync::PluginVersion;
use tokio::sync::mpsc;

pub(crate) use outlet::{Host, agree_to_upgrade, serve};
pub(crate) use publishers::{Publishers, supervise};
pub(crate) use recorder::{Recorder, record};
pub(crate) use trust::{Guest, Refusal, admit, check as check_trust, is_trusted};

use crate::KONG_VERSION;

/// What every link needs.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) store: Store,
    pub(crate) publishers: Publishers,
    pub(crate) recorder: Recorder,
}

impl Links {
    /// The links' shared parts, and what their tasks work on.
    pub(crate) fn new(
        store: Store,
    ) -> (
        Links,
        mpsc::Receiver<publishers::Subscribe>,
        recorder::Inbox,
    ) {
        let (publishers, subscriptions) = Publishers::new();
        let (recorder, inbox) = Recorder::new();
        (
            Links {
                store,
                publishers,
                recorder,
            },
            subscriptions,
            inbox,
        )
    }
}

/// A plugin as this control plane speaks of it to data planes.
fn own_plugin(name: &str) -> PluginVersion {
    PluginVersion {
        name: name.to_owned(),
        version: KONG_VERSION.to_owned(),
    }
}
