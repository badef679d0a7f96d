//! Configuration for data planes: Kong's hybrid protocol, the control plane's side.
//!
//! One publisher per control plane follows the change log. On protocol v2 ([`rpc`]) every link
//! sends the same frame with what has changed; on v1 ([`session`]) the same compressed payload
//! with everything, which is built only while somebody takes it. What a data plane runs on is what
//! it last said.

mod answers;
mod kong_results;
mod kong_view;
mod outlet;
mod payload;
mod publishers;
mod recorder;
mod rpc;
mod session;
mod state;
mod trust;

use sallyport_store::Store;
use sallyport_wire::config_sync::PluginVersion;
use tokio::sync::mpsc;

pub(crate) use answers::Answered;
pub(crate) use outlet::{Host, agree_to_upgrade, serve};
pub(crate) use publishers::{Publishers, supervise};
pub(crate) use recorder::{Recorder, record};
pub(crate) use state::{State as Published, exported, plane};
pub(crate) use trust::{
    Dialled, EXPIRY_WARN_SECS, Guest, Refusal, admit, check as check_trust, is_trusted, now_secs,
};

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
